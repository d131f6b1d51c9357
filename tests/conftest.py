"""Fixtures: a sandbox, a ledger on either database, and the service in front of both."""

import gc
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.sweep import SqlSweep
from tests.support.databases import FreshDatabase, fresh_postgres, migrate_database, sqlite_url
from tests.support.postgres_server import start_postgres
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import Service, running_service

gc.set_threshold(
    10_000, 20, 50
)  # with Python's thresholds, collections pause a worker with thousands of tests for a second

# By default, Hypothesis fails an example that takes 200 ms, and a test whose examples are generated slowly. On a busy
# machine, any example can take that long.
settings.register_profile("dialtone", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dialtone")

_at_the_end = ExitStack()
"""Is closed after the last test. The time limit of that test would include the end of a server with many databases."""


def pytest_sessionfinish() -> None:
    _at_the_end.close()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove Dialtone's settings from the environment."""
    for name in list(os.environ):
        if name.startswith(("DIALTONE_", "TELNYX_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Undo the logging configuration of commands and services."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def telnyx() -> AsyncIterator[Telnyx]:
    async with telnyx_sandbox() as telnyx:
        yield telnyx


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return sqlite_url(tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """A PostgreSQL server of this test run, from a Python package."""
    folder = _at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="dialtone-pg-"))
    server = start_postgres(folder)
    _at_the_end.callback(server.cleanup)
    # The tests kill processes, not the machine: data that was written survives without fsync.
    server.psql("ALTER SYSTEM SET fsync = off")
    server.psql("SELECT pg_reload_conf()")
    uri: str = server.get_uri()
    return uri


@pytest.fixture(scope="session")
def fresh_database(postgres_server: str) -> FreshDatabase:
    return fresh_postgres(postgres_server)


@pytest.fixture
async def postgres(fresh_database: FreshDatabase, tmp_path: Path) -> str:
    """A new database of this version, without rows."""
    return await fresh_database(tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """A file that does not exist, and a database without rows."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    await migrate_database(database)
    engine = open_engine(database_url(database))
    yield Database(engine)
    await engine.dispose()


@pytest.fixture
def ledger(opened: Database) -> SqlLeases:
    return SqlLeases(opened)


@pytest.fixture
def sweeping(opened: Database) -> SqlSweep:
    return SqlSweep(opened)


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, sqlite) as service:
        yield service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the tests with the longest timeouts first, so that no worker runs one alone at the end."""
    items.sort(key=_timeout_above_the_default, reverse=True)


def _timeout_above_the_default(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker is not None else 0.0
    return seconds if seconds > 180 else 0.0


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    return val if isinstance(val, str) and len(val) < 60 else None
