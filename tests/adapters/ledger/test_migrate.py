"""Migrations on both databases."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import URL

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import BUSY_SECONDS, database_url, open_engine
from app.adapters.ledger.pg_connector import STATEMENT_SECONDS
from app.adapters.ledger.tables import metadata, sweep_runs
from app.vending.errors import LedgerUnavailable
from tests.support.databases import create_postgres


@pytest.fixture
async def postgres(postgres_server: str) -> str:
    """An empty database."""
    return await create_postgres(postgres_server)


async def test_migrations_are_idempotent_and_match_the_table_definitions(database: str) -> None:
    url = database_url(database)

    assert await migrating.migrate(url) == await migrating.migrate(url) == migrating.newest_revision()

    engine = open_engine(url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await engine.dispose()
    assert differences == []


async def test_stored_names_of_version_0_1_are_renamed(database: str) -> None:
    url = database_url(database)
    engine = open_engine(url)
    await migrating.migrate(url, "0006")
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "INSERT INTO audit_events (id, action, outcome, reason, at, details) VALUES"
                " ('1', 'refused', 'refused', 'Refused', '2026-11-23 09:30:00+00:00', '{}'),"
                " ('2', 'refused', 'failed', 'CarrierThrottled', '2026-11-23 09:30:00+00:00', '{}'),"
                " ('3', 'administered', 'done', 'sweep', '2026-11-23 09:30:00+00:00', '{}')"
            )
        )
        await connection.execute(
            sa.text(
                "INSERT INTO sweep_runs (id, state, started_at, report) VALUES"
                """ ('1', 'done', '2026-11-23 09:30:00+00:00', '{"stuck": [], "ended": 2}')"""
            )
        )
        await connection.execute(
            sa.text("INSERT INTO activity VALUES ('2026-11-23 09:30:00+00:00', 'refused', 'refused', 7)")
        )
        await connection.execute(
            sa.text(
                "INSERT INTO push_objects (fingerprint, type, telnyx_alias, stage, version, app_id, fingerprint_sha256,"
                " created_at, updated_at, attempts) VALUES ('f', 'ios', 'a', 'leaving', 1, 'app', 'h',"
                " '2026-11-23 09:30:00+00:00', '2026-11-23 09:30:00+00:00', 0)"
            )
        )

    await migrating.migrate(url)

    async with engine.connect() as connection:
        events = (
            await connection.execute(sa.text("SELECT action, outcome, reason FROM audit_events ORDER BY id"))
        ).all()
        counts = (await connection.execute(sa.text("SELECT action, outcome, events FROM activity"))).all()
        reports = (await connection.execute(sa.select(sweep_runs.c.report))).all()
        states = (await connection.execute(sa.text("SELECT state FROM push_objects"))).all()
    await engine.dispose()
    assert [tuple(row) for row in events] == [
        ("denied", "denied", "AccessDenied"),
        ("denied", "failed", "TelnyxRateLimited"),
        ("admin_action", "done", "sweep"),
    ]
    assert [row.report for row in reports] == [{"ended": 2, "irrevocable": []}]
    assert [tuple(row) for row in counts] == [("denied", "denied", 7)]
    assert [tuple(row) for row in states] == [("deleting",)]


async def test_two_replicas_can_migrate_one_database_at_once(database: str) -> None:
    url = database_url(database)

    await asyncio.gather(*(migrating.migrate(url) for _ in range(3)))

    engine = open_engine(url)
    await Database(engine).check_ready(migrating.newest_revision())
    await engine.dispose()


@asynccontextmanager
async def migration_of_another_replica(url: URL) -> AsyncIterator[None]:
    """The locks that a migration holds."""
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    engine = open_engine(url)
    async with engine.begin() as connection:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(migrating.MIGRATION_LOCK_ID)))
        yield
    await engine.dispose()


async def test_replica_waits_for_the_migration_of_another_one(database: str) -> None:
    url = database_url(database)
    async with migration_of_another_replica(url):
        waiting = asyncio.create_task(migrating.migrate(url))
        await asyncio.wait({waiting}, timeout=max(BUSY_SECONDS, STATEMENT_SECONDS) + 1)

        assert not waiting.done(), "requests wait that long, and a migration waits longer"

    assert await waiting == migrating.newest_revision()


async def test_replica_requires_its_migration_and_tolerates_a_newer_one(database: str) -> None:
    await migrating.migrate(database_url(database))
    engine = open_engine(database_url(database))

    with pytest.raises(LedgerUnavailable):
        await Database(engine).check_ready("9999")
    await Database(engine).check_ready("0001")
    await engine.dispose()


@pytest.mark.parametrize("url", ["", "mysql://x", "sqlite://", "sqlite:///:memory:", "nonsense", "http://x"])
def test_unsupported_databases_are_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="must be sqlite:///FILE or postgresql://"):
        database_url(url)
