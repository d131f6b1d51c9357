"""Announcements: on PostgreSQL a replica tells the others at once that there is something new for them in the ledger.

An announcement says nothing but "look". Whoever misses one (its connection was cut, a pooler sits in between, the
ledger is SQLite) looks anyway, every second: announcements make that sooner, and nothing depends on them.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.adapters.ledger.database import TROUBLE

CHANNEL = "dialtone"

GATHER_SECONDS = 0.1
"""Announcements within this time are one: a thousand logouts a second must not be a thousand looks."""

CHECK_SECONDS = 3.0


def announce(connection: sa.Connection) -> None:
    """Tell every replica to look, when and if this transaction is committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"NOTIFY {CHANNEL}"))


class PgListener:
    """One replica's ear, on a connection of its own."""

    def __init__(self, engine: AsyncEngine, heard: Callable[[], None]) -> None:
        self._engine = engine
        self._heard = heard
        self._connection: AsyncConnection | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def ensure_listening(self) -> None:
        """Begin to listen, or make sure that we still do; trouble means that the next `tend` tries anew."""
        if self._engine.dialect.name != "postgresql":
            return
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                if self._connection is None:
                    await self._listen()
                else:
                    await (await _driver_of(self._connection)).fetchval("SELECT 1")
        except TROUBLE:
            await self.close()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if connection is not None:
            with suppress(*TROUBLE):
                await connection.invalidate()  # it listens: nobody else may have it
            with suppress(*TROUBLE):
                await connection.close()

    async def _listen(self) -> None:
        self._connection = await self._engine.connect()
        await (await _driver_of(self._connection)).add_listener(CHANNEL, self._gather)
        self._heard()  # what was announced before we listened

    def _gather(self, *_: object) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._heard()


async def _driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection
