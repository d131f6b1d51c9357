"""The database under the ledger: short transactions on it, and its trouble as LedgerUnavailable."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.adapters.ledger.engines import BUSY_SECONDS, POOL_SIZE, name_of
from app.adapters.ledger.group_commit import GroupCommit, T, Work
from app.adapters.ledger.sqlite_threads import SqliteThreads
from app.vending.errors import LedgerUnavailable
from app.vending.models import Owner

TROUBLE = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a database's trouble comes as. The driver's own errors leak while a connection is being made."""


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
        self._threads = SqliteThreads(engine.url) if self.is_sqlite else None
        self._group = GroupCommit(self._commit, BUSY_SECONDS)

    async def close(self) -> None:
        """Nothing is read or written any more."""
        await self._engine.dispose()
        if self._threads is not None:
            await asyncio.to_thread(self._threads.close)

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

    async def write(self, work: Work[T]) -> T:
        """The work's statements in a transaction, which other works may share. Returns once it is committed."""
        if self._threads is not None:
            return await self._group.write(work)
        async with self.writing() as connection:
            return await connection.run_sync(work)

    async def _commit(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Several works in one transaction of SQLite's."""
        if self._threads is None:
            raise TypeError("only SQLite's writes are gathered")
        with self._translating(), self._span("ledger write"):
            async with self._turn():
                outcomes = await self._threads.write(works)
        self._is_in_doubt = False
        return outcomes

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except TROUBLE as error:
            self._is_in_doubt = not isinstance(error, IntegrityError)
            raise LedgerUnavailable from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Whoever waits longer than the database itself would is told so: no queue grows behind one that is locked."""
        async with asyncio.timeout(BUSY_SECONDS):
            await self._writer.acquire()
        try:
            yield
        finally:
            self._writer.release()


def one_at_a_time(connection: sa.Connection, owner: Owner) -> None:
    """Until this transaction ends, no other that asks so for this user goes on. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        user = sa.func.hashtextextended(f"{owner.issuer} {owner.subject}", 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(user)))


def is_duplicate(error: BaseException | None) -> bool:
    """Whether the unique index said no. Any other broken constraint (a trigger's, a full disk's) is trouble."""
    if not isinstance(error, IntegrityError):
        return False
    return name_of(error.orig) in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505")
