"""Migrations on both databases."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
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
