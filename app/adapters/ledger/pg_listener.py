"""LISTEN/NOTIFY on PostgreSQL: a replica tells the others at once that the ledger has changes for them.

A notification carries no data. Replicas also poll every second, so a missed notification (a lost connection, SQLite)
only delays a change. Behind a pooler, replicas only poll: it may give the connection that listens to another client.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.adapters.ledger.database import DATABASE_ERRORS
from app.adapters.ledger.pg_connector import is_behind_pooler

CHANNEL = "dialtone"

GATHER_SECONDS = 0.1
"""Notifications within this time are combined, so that a thousand logouts a second do not cause a thousand polls."""

CHECK_SECONDS = 3.0


def announce(connection: sa.Connection) -> None:
    """Notify every replica when this transaction is committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"NOTIFY {CHANNEL}"))


class PgListener:
    """Receives notifications on its own connection and calls `heard`."""

    def __init__(self, engine: AsyncEngine, heard: Callable[[], None]) -> None:
        self._engine = engine
        self._heard = heard
        self._connection: AsyncConnection | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def ensure_listening(self) -> None:
        """Start listening, or check that the connection still works. After a failure, the next call reconnects."""
        if self._engine.dialect.name != "postgresql":
            return
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                if self._connection is None:
                    await self._listen()
                else:
                    await (await _driver_of(self._connection)).fetchval("SELECT 1")
        except DATABASE_ERRORS:
            await self.close()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if connection is not None:
            with suppress(*DATABASE_ERRORS):
                await connection.invalidate()  # it still listens, so it must not return to the pool
            with suppress(*DATABASE_ERRORS):
                await connection.close()

    async def _listen(self) -> None:
        connection = await self._engine.connect()
        try:
            driver = await _driver_of(connection)
            if await is_behind_pooler(driver):
                await connection.close()
                return
        except BaseException:
            await connection.invalidate()
            await connection.close()
            raise
        self._connection = connection
        await driver.add_listener(CHANNEL, self._schedule_call)
        self._heard()  # notifications before this moment were missed

    def _schedule_call(self, *_: object) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._call)

    def _call(self) -> None:
        self._timer = None
        self._heard()


async def _driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection
