"""The database under the ledger: opening it, short transactions on it, and its trouble as LedgerUnavailable."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.vending.errors import LedgerUnavailable
from app.vending.nouns import Owner

STATEMENT_SECONDS = 5
CONNECT_SECONDS = 3
BUSY_SECONDS = 3
"""How long SQLite waits for another process's write to end."""

POOL_SIZE = 10

SQLITE_POOL_SIZE, SQLITE_CACHE_KB = 5, 1024
"""Each connection to SQLite is a thread and a cache of its own; there is one writer anyway."""

TROUBLE = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a database's trouble comes as. The driver's own errors leak while a connection is being made."""

STAYS_BROKEN = ("SQLITE_READONLY", "SQLITE_IOERR", "25006")
"""Errors of SQLite and PostgreSQL that a connection keeps: one that was opened on a read-only file, or to a server that
became a standby, goes on refusing after the trouble is over. Such connections are given up, and new ones opened."""


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
    engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)

    @sa.event.listens_for(engine.sync_engine, "handle_error")
    def give_up_broken(context: sa.engine.ExceptionContext) -> None:
        if _name_of(context.original_exception).startswith(STAYS_BROKEN):
            context.is_disconnect = True

    return engine


def _postgresql(url: URL) -> AsyncEngine:
    arguments = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
    return create_async_engine(
        url,
        hide_parameters=True,
        connect_args=arguments,
        pool_size=POOL_SIZE + 1,  # one of them only listens
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
    )


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=SQLITE_POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own implicit BEGIN comes too late to be IMMEDIATE
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged row survives a power cut
        cursor.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KB}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_write = connection.get_execution_options().get("is_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    return engine


class Database:
    """Short transactions, none held while anything but the database is awaited. Trouble raises LedgerUnavailable."""

    def __init__(
        self, engine: AsyncEngine, span: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext()
    ) -> None:
        """`span` goes on while a transaction does."""
        self._span = span
        self._engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer: waiting for it here, in turn, beats its busy handler's sleeping.
        self._writer = asyncio.Semaphore(1 if self.is_sqlite else POOL_SIZE)
        self._is_in_doubt = False
        """Whether the last that was tried failed."""

    async def check_ready(self, revision: str) -> None:
        """Raises LedgerUnavailable unless the database can be written, and stands at this migration or a later one.

        Revisions are numbered, and a later one only adds: a replica of the version before goes on beside it.
        """
        async with self.reading() as connection:
            found = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            is_read_only = not self.is_sqlite and await connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
        if found is None or found < revision:
            raise LedgerUnavailable
        if self.is_sqlite or is_read_only or self._is_in_doubt:
            await self._try_to_write(thoroughly=is_read_only or self._is_in_doubt)

    async def _try_to_write(self, *, thoroughly: bool) -> None:
        """A write of nothing finds it locked or read-only; that it is full, only a write of something can tell."""
        async with self.writing() as connection:
            await connection.execute(sa.text("UPDATE leases SET version = version WHERE id = ''"))
            if thoroughly:
                await connection.execute(sa.text("UPDATE alembic_version SET version_num = version_num"))

    async def rows(self, query: sa.Select[Any]) -> list[sa.RowMapping]:
        async with self.reading() as connection:
            return list((await connection.execute(query)).mappings())

    async def one_at_a_time(self, connection: AsyncConnection, owner: Owner) -> None:
        """Until this transaction ends, no other that asks so for this user goes on. SQLite has one writer anyway."""
        if not self.is_sqlite:
            user = sa.func.hashtextextended(f"{owner.issuer} {owner.subject}", 0)
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(user)))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            with self._span("ledger read"):
                async with self._engine.connect() as connection:
                    await connection.execution_options(is_write=False)
                    yield connection
        except TROUBLE as error:
            self._is_in_doubt = True
            raise LedgerUnavailable from error

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block."""
        try:
            with self._span("ledger write"):
                async with self._turn(), self._engine.begin() as connection:
                    yield connection
        except TROUBLE as error:
            self._is_in_doubt = not isinstance(error, IntegrityError)
            raise LedgerUnavailable from error
        self._is_in_doubt = False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Whoever waits longer than the database itself would is told so: no queue grows behind one that is locked."""
        async with asyncio.timeout(BUSY_SECONDS):
            await self._writer.acquire()
        try:
            yield
        finally:
            self._writer.release()


def is_duplicate(error: BaseException | None) -> bool:
    """Whether the unique index said no. Any other broken constraint (a trigger's, a full disk's) is trouble."""
    if not isinstance(error, IntegrityError):
        return False
    return _name_of(error.orig) in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505")


def _name_of(error: BaseException | None) -> str:
    """SQLite's name of an error, or PostgreSQL's code."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
