"""Readiness of the database after a failed transaction."""

import pytest
import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.migrate import migrate, newest_revision
from app.vending.errors import LedgerUnavailable

FULL_DISK = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$
"""
TRIGGER = "CREATE TRIGGER full_disk BEFORE UPDATE ON alembic_version EXECUTE FUNCTION refuse()"


async def test_transaction_that_changes_no_row_does_not_end_an_outage(postgres: str) -> None:
    await migrate(database_url(postgres))
    engine = open_engine(database_url(postgres))
    database = Database(engine)
    async with engine.begin() as connection:
        for statement in (FULL_DISK, TRIGGER):
            await connection.exec_driver_sql(statement)
    with pytest.raises(LedgerUnavailable):
        async with database.writing() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = version_num"))

    async with database.writing() as connection:
        await connection.execute(sa.text("UPDATE leases SET version = version WHERE id = ''"))

    with pytest.raises(LedgerUnavailable):
        await database.check_ready(newest_revision())
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DROP TRIGGER full_disk ON alembic_version")
    await database.check_ready(newest_revision())
    await database.close()
