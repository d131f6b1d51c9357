"""The ledger is locked, down, unresponsive, read-only or full: no create without a row, and full recovery.

Each outage begins and ends under a running service. During the outage a device with a cached login is served, a new
device is rejected before Telnyx is called, `/livez` succeeds and `/readyz` fails. Afterwards no restart is needed.
"""

import asyncio
import ctypes
import os
import random
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.adapters.ledger.engines import database_url
from tests.support.load import LoadGenerator, check_invariants, finish_sweeps
from tests.support.outages import asked, readiness
from tests.support.replicas import replica
from tests.support.sandbox import Telnyx
from tests.support.service import running_service
from tests.support.tcp_proxy import tcp_proxy

Outage = Callable[[str], AbstractAsyncContextManager[None]]


async def check_outage(client: httpx.AsyncClient, telnyx: Telnyx, outage: AbstractAsyncContextManager[None]) -> None:
    """Check the behaviour before, during and after an outage."""
    known = await asked(client, "known")
    assert known.status_code == 201
    async with outage:
        during = await asyncio.gather(asked(client, "known"), *(asked(client, f"new-{n}") for n in range(6)))
        await readiness(client, 503)
        assert (await client.get("/livez")).status_code == 200
        assert telnyx.created() == 1, "rejected before the create"
    assert during[0].status_code == 200
    assert during[0].json()["login_token"] == known.json()["login_token"], "cached logins need no ledger"
    for refused in during[1:]:
        assert (refused.status_code, refused.json()["retryable"]) == (503, True), refused.text
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    await readiness(client, 200)
    assert (await asked(client, "new-0")).status_code == 201


@asynccontextmanager
async def operator(database: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url(database), isolation_level="AUTOCOMMIT")
    yield engine
    await engine.dispose()


async def execute_sql(database: str, *statements: str) -> None:
    async with operator(database) as engine, engine.connect() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


def name_of(database: str) -> str:
    return str(database_url(database).database)


END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


# -- SQLite -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def locked_file(database: str) -> AsyncIterator[None]:
    with closing(sqlite3.connect(name_of(database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_sqlite_locked_by_another_process_recovers(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, request_timeout_seconds=5) as service:
        await check_outage(service.client, telnyx, locked_file(sqlite))


async def test_sqlite_on_a_full_disk_recovers(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """Simulates a full disk: a resource limit rejects all writes beyond the first byte of a file."""
    async with replica(telnyx.url, sqlite, tmp_path) as service:

        @asynccontextmanager
        async def full() -> AsyncIterator[None]:
            pid, (soft, hard) = service.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
            yield
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

        await check_outage(service.client, telnyx, full())


async def test_sqlite_file_that_was_read_only_recovers(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """SQLite opens such a file read-only without an error, and that connection would reject all later writes."""
    async with replica(telnyx.url, sqlite, tmp_path):
        pass
    file = Path(name_of(sqlite))
    file.chmod(0o400)
    async with replica(
        telnyx.url, sqlite, tmp_path, migrate=False, is_ready=False, before_start=obey_file_modes
    ) as service:
        await readiness(service.client, 503)
        assert (await asked(service.client, "laptop")).status_code == 503
        assert telnyx.created() == 0

        for mended in file.parent.glob(file.name + "*"):
            mended.chmod(0o600)

        await readiness(service.client, 200)
        again = await asked(service.client, "laptop")
        assert again.status_code == 201, again.text


def obey_file_modes() -> None:
    """Drop the capability with which root can write any file."""
    if os.getuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


# -- PostgreSQL -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def locked_table(database: str) -> AsyncIterator[None]:
    """Lock the tables as a careless migration does."""
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(sa.text("LOCK TABLE leases IN ACCESS EXCLUSIVE MODE"))
        yield
    await engine.dispose()


@asynccontextmanager
async def full_disk(database: str) -> AsyncIterator[None]:
    tables = ("leases", "alembic_version")
    await execute_sql(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
        *(f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {t} EXECUTE FUNCTION refuse()" for t in tables),
    )
    yield
    await execute_sql(database, *(f"DROP TRIGGER full_disk ON {table}" for table in tables))


@asynccontextmanager
async def standby(database: str) -> AsyncIterator[None]:
    """Make the server read-only and later writable, as in a switch-over."""
    read_only = f"ALTER DATABASE {name_of(database)} SET default_transaction_read_only = "
    await execute_sql(database, read_only + "on", END_OTHERS)
    yield
    await execute_sql(
        database, "SET default_transaction_read_only = off", read_only + "off"
    )  # sessions keep their initial setting


@pytest.mark.parametrize("outage", [locked_table, full_disk, standby], ids=lambda outage: outage.__name__)
async def test_postgresql_outages_lose_nothing(telnyx: Telnyx, postgres: str, outage: Outage) -> None:
    async with running_service(telnyx, postgres, request_timeout_seconds=5) as service:
        await check_outage(service.client, telnyx, outage(postgres))


@pytest.mark.parametrize("is_silent", [False, True], ids=["disconnected", "unresponsive"])
async def test_unreachable_postgresql_recovers(telnyx: Telnyx, postgres: str, *, is_silent: bool) -> None:
    async with tcp_proxy(postgres) as proxy:

        @asynccontextmanager
        async def broken() -> AsyncIterator[None]:
            if is_silent:
                proxy.pause()
            else:
                await proxy.disconnect()
            yield
            await proxy.restore()

        async with running_service(telnyx, proxy.url, request_timeout_seconds=5) as service:
            await check_outage(service.client, telnyx, broken())


async def test_killed_postgresql_connections_lose_nothing(telnyx: Telnyx, postgres: str) -> None:
    async with running_service(telnyx, postgres, request_timeout_seconds=5) as service:
        load = LoadGenerator([service.client], random.Random(5))  # noqa: S311 - reproducible load
        rush = asyncio.create_task(load.run(60))
        async with operator(postgres) as engine, engine.connect() as connection:
            while not rush.done():
                await connection.exec_driver_sql(END_OTHERS)
                await asyncio.sleep(0.03)
        await rush
        await load.settle()
        await readiness(service.client, 200)
        await finish_sweeps([service])

        await check_invariants(telnyx, postgres, load)


# -- the last commit --------------------------------------------------------------------------------------------

ON_SQLITE = """
    CREATE TRIGGER last BEFORE UPDATE ON leases WHEN NEW.state = 'active'
    BEGIN SELECT RAISE(ABORT, 'disk full'); END"""
ON_POSTGRESQL = (
    """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.state = 'active' THEN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END IF; RETURN NULL; END $$""",
    # Deferred: every statement succeeds, and the COMMIT fails.
    """
    CREATE CONSTRAINT TRIGGER last AFTER UPDATE ON leases DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse()""",
)


async def test_failed_commit_after_the_create_loses_nothing(telnyx: Telnyx, database: str) -> None:
    is_sqlite = database.startswith("sqlite")
    async with running_service(telnyx, database) as service:
        load = LoadGenerator([service.client], random.Random(3), users=4, devices=1)  # noqa: S311 - reproducible load
        await execute_sql(database, *([ON_SQLITE] if is_sqlite else ON_POSTGRESQL))
        failed: list[Any] = [await asked(service.client, "tab-0", f"user-{n}") for n in range(4)]
        assert {answer.status_code for answer in failed} == {503}
        assert telnyx.created() == 4
        await execute_sql(database, "DROP TRIGGER last" + ("" if is_sqlite else " ON leases"))

        await load.settle()

        assert telnyx.created() == 4, "found by name and not created again"
        await check_invariants(telnyx, database, load)
        await readiness(service.client, 200)
