"""Bringing a database to the newest form of the ledger: Alembic, run from here and nowhere else."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

import migrations
from app.adapters.ledger.engines import BUSY_SECONDS, open_engine

ONE_AT_A_TIME = 6_243_871
"""The advisory lock that keeps two replicas from migrating one PostgreSQL at once. Any number, ours alone."""


def newest_revision() -> str:
    """The revision that this version of the service needs. Their files are numbered."""
    files = (Path(migrations.__file__).parent / "versions").glob("[0-9]*.py")
    return max(file.stem.split("_")[0] for file in files)


async def migrate(url: URL) -> str:
    """Bring the database to the newest revision, which is returned. Running it again changes nothing."""
    if url.get_backend_name() == "sqlite" and url.database:
        await asyncio.to_thread(_prepare_file, Path(url.database))
    engine = open_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()
    return newest_revision()


def _prepare_file(file: Path) -> None:
    """Who may phone whom is nobody else's business. SQLite's journals inherit the file's mode.

    The write-ahead log is the file's own, once and for all: readers go on while somebody writes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    deadline = time.monotonic() + BUSY_SECONDS
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                # This one statement does not wait for another process that is about the same.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


def _upgrade(connection: sa.Connection) -> None:
    # Imported here: 10 MB that a service which only serves need not hold.
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ONE_AT_A_TIME)))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
