"""Opening the database under the ledger: engines that never print parameters, durable and patient on SQLite."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

STATEMENT_SECONDS = 5
CONNECT_SECONDS = 3
BUSY_SECONDS = 3
"""How long SQLite waits for another process's write to end."""

POOL_SIZE = 10

SQLITE_POOL_SIZE, SQLITE_CACHE_KB = 5, 1024
"""Each connection to SQLite is a thread and a cache of its own; there is one writer anyway."""

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
    give_up_broken(engine.sync_engine)
    return engine


def give_up_broken(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "handle_error")
    def look(context: sa.engine.ExceptionContext) -> None:
        if name_of(context.original_exception).startswith(STAYS_BROKEN):
            context.is_disconnect = True


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
    _prepare(engine.sync_engine)
    return engine


def open_threads_engine(url: URL, *, begins: bool = True) -> sa.Engine:
    """SQLite's, for threads: the same file with the same care, and each statement a plain call.

    Unless it `begins` transactions, each statement is one.
    """
    engine = sa.create_engine(
        url.set(drivername="sqlite"),
        hide_parameters=True,
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=SQLITE_POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
    )
    _prepare(engine, begins=begins)
    give_up_broken(engine)
    return engine


def _prepare(engine: sa.Engine, *, begins: bool = True) -> None:
    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own implicit BEGIN comes too late to be IMMEDIATE
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged row survives a power cut
        cursor.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KB}")
        cursor.close()

    if not begins:
        return

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_write = connection.get_execution_options().get("is_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def name_of(error: BaseException | None) -> str:
    """SQLite's name of an error, or PostgreSQL's code."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
