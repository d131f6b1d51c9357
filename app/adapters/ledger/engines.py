"""Database engines of the ledger for SQLite and PostgreSQL. They never log parameters."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.adapters.ledger.pg_address import DRIVER, pg_address
from app.adapters.ledger.pg_connector import CONNECT_SECONDS, PgConnector

BUSY_SECONDS = 3
"""How long SQLite waits for another process's write."""

POOL_SIZE = 10

SQLITE_POOL_SIZE, SQLITE_CACHE_KB = 5, 1024
"""Each SQLite connection has its own thread and cache. SQLite has only one writer, so few connections suffice."""

SQLITE_CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log, about 16 MB, after which a commit copies them to the database file. A busy replica
reaches SQLite's default of 1,000 with every third batch of audit events, and then copies the same pages often."""

STAYS_BROKEN = ("SQLITE_READONLY", "SQLITE_IOERR", "25006")
"""SQLite errors and SQLSTATE codes after which the connection is replaced. A connection to a file that was read-only,
or to a server that became a standby, keeps failing after the cause is fixed."""


_USAGE = "must be sqlite:///FILE or postgresql://..."


def database_url(text: str) -> URL:
    """Parse `sqlite:///FILE` or `postgresql://...` and set the asynchronous driver.

    Raises ValueError with one line, which names the fault and contains no part of the address.
    """
    if not text.startswith("sqlite"):
        return pg_address(text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError has the text of an invalid port
        raise ValueError(_USAGE) from None
    file = url.database or ":memory:"
    has_more = url.host or url.username or url.port or url.query
    if url.get_backend_name() != "sqlite" or file == ":memory:" or not file.isprintable() or has_more:
        raise ValueError(_USAGE)
    if file.startswith("~"):
        raise ValueError("names a file that begins with ~, which would be a folder of this name; write the whole path")
    return url.set(drivername="sqlite+aiosqlite")


def open_engine(url: URL, connector: PgConnector | None = None, *, busy_seconds: float = BUSY_SECONDS) -> AsyncEngine:
    """An asynchronous engine. On SQLite, commits are durable and several processes may use the file.

    `connector` is that of the PostgreSQL address, if its user and password may change. `busy_seconds` is for SQLite.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = _sqlite(url, busy_seconds) if is_sqlite else _postgresql(connector or PgConnector(url))
    replace_broken_connections(engine.sync_engine)
    return engine


def replace_broken_connections(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "handle_error")
    def check(context: sa.engine.ExceptionContext) -> None:
        if name_of(context.original_exception).startswith(STAYS_BROKEN):
            context.is_disconnect = True


def _postgresql(connector: PgConnector) -> AsyncEngine:
    engine = create_async_engine(
        f"{DRIVER}://",  # the connector has the address
        hide_parameters=True,
        async_creator=connector.open,
        pool_size=POOL_SIZE + 1,  # one connection only listens for notifications
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
    )
    _replace_former_logins(engine.sync_engine, connector)
    return engine


def _replace_former_logins(engine: sa.Engine, connector: PgConnector) -> None:
    """After a change of the user or password, replace each connection before its next use."""

    @sa.event.listens_for(engine, "connect")
    def note(_: Any, record: Any) -> None:
        record.info["login"] = connector.login

    @sa.event.listens_for(engine, "checkout")
    def check(_: Any, record: Any, __: Any) -> None:
        if record.info["login"] != connector.login:
            raise sa.exc.DisconnectionError


def _sqlite(url: URL, busy_seconds: float) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": busy_seconds},
        pool_size=SQLITE_POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
    )
    _prepare(engine.sync_engine)
    return engine


def open_threads_engine(url: URL, *, begins: bool = True) -> sa.Engine:
    """A synchronous SQLite engine for threads, with the same settings.

    Without `begins`, each statement is its own transaction.
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
    replace_broken_connections(engine)
    return engine


def _prepare(engine: sa.Engine, *, begins: bool = True) -> None:
    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's implicit BEGIN comes too late to be IMMEDIATE
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged row survives a power cut
        cursor.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KB}")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {SQLITE_CHECKPOINT_PAGES}")
        cursor.close()

    if not begins:
        return

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_write = connection.get_execution_options().get("is_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def name_of(error: BaseException | None) -> str:
    """SQLite's error name or PostgreSQL's SQLSTATE; empty if there is none."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
