"""Migrations of the ledger's database. The only module that runs Alembic."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

import migrations
from app.adapters.ledger.engines import open_engine
from app.adapters.ledger.pg_connector import PgConnector

MIGRATION_LOCK_ID = 6_243_871
"""The advisory lock that serializes migrations of a PostgreSQL database. An arbitrary number."""


MIGRATION_SECONDS = 60.0
"""How long a migration waits for that of another process, and how long one of its statements may take. No request waits
for it, and a statement on a large table takes longer than one of a request."""


def newest_revision() -> str:
    """The revision that this version of the service requires. The files of migrations are numbered."""
    files = (Path(migrations.__file__).parent / "versions").glob("[0-9]*.py")
    return max(file.stem.split("_")[0] for file in files)


async def migrate(url: URL, target: str = "head") -> str:
    """Bring the database to a revision, and return the newest one. Running it again changes nothing."""
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database:
        await asyncio.to_thread(_prepare_file, Path(url.database))
    connector = None if is_sqlite else PgConnector(url, MIGRATION_SECONDS)
    engine = open_engine(url, connector, busy_seconds=MIGRATION_SECONDS)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, target)
    finally:
        await engine.dispose()
    return newest_revision()


def _prepare_file(file: Path) -> None:
    """Create the SQLite file with mode 600, which its journals inherit, and switch it to write-ahead logging.

    The journal mode is stored in the file. With write-ahead logging, a writer does not block readers.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    deadline = time.monotonic() + MIGRATION_SECONDS
    with closing(sqlite3.connect(file, timeout=MIGRATION_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                # SQLite's busy timeout does not apply to this statement, so another process may interfere.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


def _upgrade(connection: sa.Connection, target: str) -> None:
    # Imported here, because Alembic takes 10 MB that a running service does not need.
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK_ID)))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)
