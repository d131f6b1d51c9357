"""Migrations on both databases."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.tables import metadata
from app.vending.errors import LedgerUnavailable


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
    with pytest.raises(ValueError, match="not"):
        database_url(url)
