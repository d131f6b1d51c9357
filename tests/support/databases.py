"""Migrated databases for tests."""

import asyncio
import atexit
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.engines import database_url

_template: Path | None = None
"""A migrated SQLite file that is copied for each test."""

_migrated: set[str] = set()
"""URLs of PostgreSQL databases that were copied from a migrated template."""


async def migrate_database(database: str) -> None:
    """Migrate the database; a new SQLite file is copied from a template."""
    global _template
    if database in _migrated:
        return
    url = database_url(database)
    file = None if url.get_backend_name() != "sqlite" else Path(str(url.database))
    if file is None or file.exists():
        await migrating.migrate(url)
        return
    if _template is None:
        made = Path(tempfile.mkdtemp(prefix="dialtone-ledger-")) / "ledger.db"
        atexit.register(shutil.rmtree, made.parent, ignore_errors=True)
        await migrating.migrate(database_url(f"sqlite:///{made}"))
        _template = made
    shutil.copyfile(_template, file)


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


FreshDatabase = Callable[[Path], Awaitable[str]]
"""Returns the URL of an empty, migrated database. Its argument is a folder for files."""


def fresh_sqlite(folder: Path) -> FreshDatabase:
    template = folder / "template.db"
    asyncio.run(migrating.migrate(database_url(f"sqlite:///{template}")))

    async def fresh(folder: Path) -> str:
        for old in folder.glob("ledger.db*"):
            old.unlink()
        shutil.copy(template, folder / "ledger.db")
        return sqlite_url(folder)

    return fresh


async def create_postgres(server_url: str, template: str = "template1") -> str:
    """Create a database with a name of its own and return its URL. The default template is empty."""
    server = database_url(server_url)
    name = f"t{uuid.uuid4().hex}"
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    await engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


def fresh_postgres(server_url: str) -> FreshDatabase:
    template = database_url(asyncio.run(create_postgres(server_url)))
    asyncio.run(migrating.migrate(template))

    async def fresh(_: Path) -> str:
        url = await create_postgres(server_url, str(template.database))
        _migrated.add(url)
        return url

    return fresh
