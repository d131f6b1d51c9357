"""Migrated databases for tests."""

import atexit
import shutil
import tempfile
from pathlib import Path

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.engines import database_url

_template: Path | None = None
"""A migrated SQLite file that is copied for each test."""


async def migrate_database(database: str) -> None:
    """Migrate the database; a new SQLite file is copied from a template."""
    global _template
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
