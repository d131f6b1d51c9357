"""The database of the ledger: short transactions, whose failures are raised as LedgerUnavailable."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa
from opentelemetry.trace import NoOpTracer, Span, Tracer
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.adapters.ledger.engines import BUSY_SECONDS, POOL_SIZE, name_of
from app.adapters.ledger.group_commit import GroupCommit, T, Work
from app.adapters.ledger.pg_connector import is_behind_pooler
from app.adapters.ledger.sqlite_threads import SqliteThreads
from app.vending.errors import LedgerUnavailable
from app.vending.models import UserKey

DATABASE_ERRORS = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""How a failure of the database is raised. While a connection is opened, the driver's own errors are not wrapped."""


class Database:
    """Short transactions, none open while anything but the database is awaited. Raises LedgerUnavailable."""

    def __init__(self, engine: AsyncEngine, tracer: Tracer | None = None) -> None:
        """`tracer` records a span for each transaction."""
        self._tracer = tracer or NoOpTracer()
        self._engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer. Waiting for it here, in order, is faster than its busy handler, which sleeps.
        self._writer = asyncio.Semaphore(1 if self.is_sqlite else POOL_SIZE)
        self._is_in_doubt = False
        """True after a failed transaction, until `check_ready` has written a row. A transaction that changes no row is
        no proof: it succeeds on a full disk."""
        self._threads = SqliteThreads(engine.url) if self.is_sqlite else None
        self._group = GroupCommit(self._commit, BUSY_SECONDS)

    async def close(self) -> None:
        """Close all connections. Nothing may be read or written after this."""
        await self._engine.dispose()
        if self._threads is not None:
            await asyncio.to_thread(self._threads.close)

    async def check_ready(self, revision: str) -> None:
        """Raises LedgerUnavailable unless the database accepts writes and has this migration or a later one.

        Revisions are numbered. A later one only adds, unless its changelog says otherwise.
        """
        async with self.reading() as connection:
            found = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            is_read_only = not self.is_sqlite and await connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
        if found is None or found < revision:
            raise LedgerUnavailable
        if self.is_sqlite or is_read_only or self._is_in_doubt:
            await self._try_to_write(thoroughly=is_read_only or self._is_in_doubt)

    async def is_behind_pooler(self) -> bool:
        """True if connections pass a pooler such as PgBouncer. Raises LedgerUnavailable."""
        if self.is_sqlite:
            return False
        async with self.reading() as connection:
            return await is_behind_pooler((await connection.get_raw_connection()).driver_connection)

    async def _try_to_write(self, *, thoroughly: bool) -> None:
        """An update of no rows fails if the database is locked or read-only; only a real write fails if it is full."""
        async with self.writing() as connection:
            await connection.execute(sa.text("UPDATE leases SET version = version WHERE id = ''"))
            if thoroughly:
                await connection.execute(sa.text("UPDATE alembic_version SET version_num = version_num"))
        self._is_in_doubt = False

    async def rows(self, query: sa.Select[Any], parameters: dict[str, Any] | None = None) -> list[sa.RowMapping]:
        if self._threads is None:
            async with self.reading() as connection:
                return list((await connection.execute(query, parameters)).mappings())
        with self._translating(), self._span("ledger read"):
            return await self._threads.rows(query, parameters)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            with self._span("ledger read"):
                async with self._engine.connect() as connection:
                    await connection.execution_options(is_write=False)
                    yield connection
        except DATABASE_ERRORS as error:
            self._is_in_doubt = True
            raise LedgerUnavailable from error

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block."""
        try:
            with self._span("ledger write"):
                async with self._writer_slot(), self._engine.begin() as connection:
                    yield connection
        except DATABASE_ERRORS as error:
            self._is_in_doubt |= not isinstance(error, IntegrityError)
            raise LedgerUnavailable from error

    async def write(self, work: Work[T]) -> T:
        """Run the statements in a transaction, which other callers may share. Returns after the commit."""
        if self._threads is not None:
            return await self._group.write(work)
        async with self.writing() as connection:
            return await connection.run_sync(work)

    async def _commit(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Run several callers' statements in one SQLite transaction."""
        if self._threads is None:
            raise TypeError("only SQLite groups commits")
        with self._translating(), self._span("ledger write"):
            async with self._writer_slot():
                return await self._threads.write(works)

    def _span(self, name: str) -> AbstractContextManager[Span]:
        """A span without exceptions, because their texts may contain values."""
        return self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except DATABASE_ERRORS as error:
            self._is_in_doubt |= not isinstance(error, IntegrityError)
            raise LedgerUnavailable from error

    @asynccontextmanager
    async def _writer_slot(self) -> AsyncIterator[None]:
        """Wait for the writer, no longer than the database itself would: no queue builds up behind a lock."""
        async with asyncio.timeout(BUSY_SECONDS):
            await self._writer.acquire()
        try:
            yield
        finally:
            self._writer.release()


def one_at_a_time(connection: sa.Connection, user_key: UserKey) -> None:
    """Hold a lock on this user until the transaction ends. SQLite needs none, because it has one writer."""
    _lock(connection, f"{user_key.issuer} {user_key.subject}")


def one_session_at_a_time(connection: sa.Connection, issuer: str, session: str) -> None:
    """Hold a lock on this session of the issuer until the transaction ends. Taken after the lock on the user."""
    _lock(connection, f"session {issuer} {session}")


def _lock(connection: sa.Connection, name: str) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


def is_duplicate(error: BaseException | None) -> bool:
    """True if a unique index rejected a row. Any other constraint (a trigger, a full disk) is a failure."""
    if not isinstance(error, IntegrityError):
        return False
    return name_of(error.orig) in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505")
