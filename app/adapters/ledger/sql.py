"""The ledger on SQLite or PostgreSQL: each method one short transaction, none held while anything else is awaited."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.adapters.ledger.tables import (
    HAS_ENDED,
    IS_ACTIVE,
    IS_LEFTOVER,
    IS_LIVE,
    IS_PENDING,
    IS_UNFINISHED,
    leases,
)
from app.vending.errors import DeviceLimitReached, LeaseMoved, LeaseTaken, LedgerUnavailable
from app.vending.leases import Lease, State
from app.vending.nouns import Owner, Platform

STATEMENT_SECONDS = 5
CONNECT_SECONDS = 3
BUSY_SECONDS = 3
"""How long SQLite waits for another process's write to end."""

POOL_SIZE = 10
ENDED_AT_ONCE = 10_000
"""Ended leases read by one look of the watch."""

_FIELDS = tuple(field.name for field in fields(Lease))


def database_url(text: str) -> URL:
    """`sqlite:///file` or `postgresql://...`, with the asynchronous drivers filled in. Raises ValueError."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError("not a database URL") from None
    match url.get_backend_name():
        case "sqlite" if url.database and url.database != ":memory:":
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+asyncpg")
    raise ValueError("not sqlite:///FILE or postgresql://...")


def open_engine(url: URL) -> AsyncEngine:
    """An engine that never prints parameters; its SQLite form is durable, patient and fit for several processes."""
    if url.get_backend_name() != "sqlite":
        arguments = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
        return create_async_engine(
            url,
            hide_parameters=True,
            connect_args=arguments,
            pool_size=POOL_SIZE,
            pool_timeout=CONNECT_SECONDS,
            pool_pre_ping=True,
        )
    engine = create_async_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own implicit BEGIN comes too late to be IMMEDIATE
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged row survives a power cut
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_write = connection.get_execution_options().get("is_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    return engine


class SqlLedger:
    """The ledger. Every method raises LedgerUnavailable when the database does not do its part."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer: waiting for it here, in turn, beats its busy handler's sleeping.
        self._writer: asyncio.Lock | nullcontext[None] = asyncio.Lock() if self._is_sqlite else nullcontext()

    async def check_ready(self, revision: str) -> None:
        """Raises LedgerUnavailable unless the database answers and stands at this migration."""
        async with self._reading() as connection:
            found = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if found != revision:
            raise LedgerUnavailable

    async def live_lease(self, owner: Owner, device_id: str) -> Lease | None:
        query = sa.select(leases).where(_owned_by(owner), leases.c.device_id == device_id, IS_LIVE)
        return await self._one(query)

    async def find(self, lease_id: str) -> Lease | None:
        return await self._one(sa.select(leases).where(leases.c.id == lease_id))

    async def unfinished(self, owner: Owner) -> list[Lease]:
        return await self._all(sa.select(leases).where(_owned_by(owner), IS_UNFINISHED))

    async def page(self, owner: Owner, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        query = sa.select(leases).where(_owned_by(owner), IS_UNFINISHED)
        if after is not None:
            created_at, lease_id = after
            query = query.where(
                sa.tuple_(leases.c.created_at, leases.c.id)
                < sa.tuple_(sa.bindparam("at", created_at, leases.c.created_at.type), sa.literal(lease_id))
            )
        return await self._all(query.order_by(leases.c.created_at.desc(), leases.c.id.desc()).limit(limit))

    async def open(self, lease: Lease, max_devices: int) -> None:
        live = sa.select(sa.func.count()).where(_owned_by(lease.owner), IS_LIVE, leases.c.expires_at > lease.created_at)
        try:
            async with self._writing() as connection:
                if not self._is_sqlite:
                    # One at a time for each user, or two devices could both be the last that the limit allows.
                    user = sa.func.hashtextextended(f"{lease.issuer} {lease.subject}", 0)
                    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(user)))
                if (await connection.scalar(live) or 0) >= max_devices:
                    # The device's own live lease is no reason to refuse it: let the unique index speak first.
                    same = sa.select(leases.c.id).where(
                        _owned_by(lease.owner), leases.c.device_id == lease.device_id, IS_LIVE
                    )
                    raise LeaseTaken if await connection.scalar(same) is not None else DeviceLimitReached
                await connection.execute(leases.insert().values(asdict(lease)))
        except LedgerUnavailable as error:
            if _is_duplicate(error.__cause__):
                raise LeaseTaken from None
            raise

    async def advance(self, before: Lease, after: Lease) -> Lease:
        changed = {name: value for name in _FIELDS if (value := getattr(after, name)) != getattr(before, name)}
        update = leases.update().where(leases.c.id == before.id, leases.c.version == before.version).values(changed)
        async with self._writing() as connection:
            if (await connection.execute(update)).rowcount != 1:
                raise LeaseMoved
        return after

    async def due(self, now: datetime, stale_before: datetime, limit: int) -> list[Lease]:
        found: list[Lease] = []
        for condition, column, moment in (
            (IS_LEFTOVER, leases.c.retry_at, now),
            (IS_ACTIVE, leases.c.expires_at, now),
            (IS_PENDING, leases.c.updated_at, stale_before),
        ):
            query = sa.select(leases).where(condition, column <= moment).order_by(column)
            found += await self._all(query.limit(limit - len(found)))
        return found

    async def ended_since(self, moment: datetime) -> list[Lease]:
        query = sa.select(leases).where(HAS_ENDED, leases.c.updated_at >= moment)
        return await self._all(query.order_by(leases.c.updated_at).limit(ENDED_AT_ONCE))

    async def _one(self, query: sa.Select[Any]) -> Lease | None:
        async with self._reading() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else _lease(row)

    async def _all(self, query: sa.Select[Any]) -> list[Lease]:
        async with self._reading() as connection:
            return [_lease(row) for row in (await connection.execute(query)).mappings()]

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._engine.connect() as connection:
                await connection.execution_options(is_write=False)
                yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._writer, self._engine.begin() as connection:
                yield connection


class _translated:  # noqa: N801 - reads as a verb where it is used
    """Database trouble becomes LedgerUnavailable at the border."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SQLAlchemyError | OSError | TimeoutError):
            raise LedgerUnavailable from error


def _is_duplicate(error: BaseException | None) -> bool:
    """Whether the unique index said no. Any other broken constraint (a trigger's, a full disk's) is trouble."""
    if not isinstance(error, IntegrityError):
        return False
    name = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
    return name in ("SQLITE_CONSTRAINT_UNIQUE", "23505")


def _owned_by(owner: Owner) -> sa.ColumnElement[bool]:
    return sa.and_(leases.c.issuer == owner.issuer, leases.c.subject == owner.subject)


def _lease(row: sa.RowMapping) -> Lease:
    values = dict(row)
    return Lease(**{**values, "platform": Platform(values["platform"]), "state": State(values["state"])})
