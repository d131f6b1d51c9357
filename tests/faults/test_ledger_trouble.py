"""The ledger is locked, down, silent, read-only, full or killed: nothing is made that is not written down; all heals.

Each trouble begins and ends under a running service. Meanwhile a device whose login is at hand is served, a new one is
refused before Telnyx hears of it, `/livez` stays well and `/readyz` says no. Afterwards nobody has to restart anything.
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
from tests.faults.crowd import Crowd, check
from tests.faults.wire import wire_to
from tests.processes.replicas import replica
from tests.stage import Telnyx, service_in_front_of, token

HEALS_SECONDS = 12.0
Trouble = Callable[[str], AbstractAsyncContextManager[None]]


async def asked(client: httpx.AsyncClient, device: str, user: str = "alice") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user)}"}
    return await client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


async def readiness(client: httpx.AsyncClient, wanted: int, seconds: float = HEALS_SECONDS) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while (answer := await client.get("/readyz")).status_code != wanted:
        assert asyncio.get_running_loop().time() < deadline, answer.text
        await asyncio.sleep(0.1)


async def endure(client: httpx.AsyncClient, telnyx: Telnyx, trouble: AbstractAsyncContextManager[None]) -> None:
    """Before, during and after: what is said above, for any trouble."""
    known = await asked(client, "known")
    assert known.status_code == 201
    async with trouble:
        during = await asyncio.gather(asked(client, "known"), *(asked(client, f"new-{n}") for n in range(6)))
        await readiness(client, 503)
        assert (await client.get("/livez")).status_code == 200
        assert telnyx.created() == 1, "refused before the create"
    assert during[0].status_code == 200
    assert during[0].json()["login_token"] == known.json()["login_token"], "what is at hand needs no ledger"
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


async def tell(database: str, *statements: str) -> None:
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


async def test_sqlite_locked_by_somebody_else(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, patience_seconds=5) as service:
        await endure(service.client, telnyx, locked_file(sqlite))


async def test_sqlite_on_a_full_disk(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """As near as a test may come: the system refuses the process any write beyond the first byte of a file."""
    async with replica(telnyx.url, sqlite, tmp_path) as service:

        @asynccontextmanager
        async def full() -> AsyncIterator[None]:
            pid, (soft, hard) = service.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
            yield
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

        await endure(service.client, telnyx, full())


async def test_sqlite_on_a_file_that_may_only_be_read_at_first(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """SQLite opens such a file for reading without a word, and that connection would refuse writes for ever."""
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
    """For a child of root: root may write any file, unless it gives up that right."""
    if os.getuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


# -- PostgreSQL -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def locked_table(database: str) -> AsyncIterator[None]:
    """As a migration does that is not as careful as ours."""
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(sa.text("LOCK TABLE leases IN ACCESS EXCLUSIVE MODE"))
        yield
    await engine.dispose()


@asynccontextmanager
async def full_disk(database: str) -> AsyncIterator[None]:
    tables = ("leases", "alembic_version")
    await tell(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
        *(f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {t} EXECUTE FUNCTION refuse()" for t in tables),
    )
    yield
    await tell(database, *(f"DROP TRIGGER full_disk ON {table}" for table in tables))


@asynccontextmanager
async def standby(database: str) -> AsyncIterator[None]:
    """As after a switch-over: what we are connected to takes no writes any more, and later it does again."""
    read_only = f"ALTER DATABASE {name_of(database)} SET default_transaction_read_only = "
    await tell(database, read_only + "on", END_OTHERS)
    yield
    await tell(
        database, "SET default_transaction_read_only = off", read_only + "off"
    )  # sessions keep what they began with


@pytest.mark.parametrize("trouble", [locked_table, full_disk, standby], ids=lambda trouble: trouble.__name__)
async def test_postgresql(telnyx: Telnyx, postgres: str, trouble: Trouble) -> None:
    async with service_in_front_of(telnyx, postgres, patience_seconds=5) as service:
        await endure(service.client, telnyx, trouble(postgres))


@pytest.mark.parametrize("is_silent", [False, True], ids=["gone", "silent"])
async def test_postgresql_out_of_reach(telnyx: Telnyx, postgres: str, *, is_silent: bool) -> None:
    async with wire_to(postgres) as wire:

        @asynccontextmanager
        async def broken() -> AsyncIterator[None]:
            if is_silent:
                wire.silence()
            else:
                await wire.cut()
            yield
            await wire.mend()

        async with service_in_front_of(telnyx, wire.url, patience_seconds=5) as service:
            await endure(service.client, telnyx, broken())


async def test_postgresql_whose_connections_are_killed_in_their_transactions(telnyx: Telnyx, postgres: str) -> None:
    async with service_in_front_of(telnyx, postgres, patience_seconds=5) as service:
        crowd = Crowd([service.client], random.Random(5))  # noqa: S311 - a crowd
        rush = asyncio.create_task(crowd.rush(60))
        async with operator(postgres) as engine, engine.connect() as connection:
            while not rush.done():
                await connection.exec_driver_sql(END_OTHERS)
                await asyncio.sleep(0.03)
        await rush
        await crowd.settle(30)
        await readiness(service.client, 200)

        await check(telnyx, postgres, crowd)


# -- the last commit --------------------------------------------------------------------------------------------

ON_SQLITE = """
    CREATE TRIGGER last BEFORE UPDATE ON leases WHEN NEW.state = 'active'
    BEGIN SELECT RAISE(ABORT, 'disk full'); END"""
ON_POSTGRESQL = (
    """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.state = 'active' THEN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END IF; RETURN NULL; END $$""",
    # Deferred: every statement is taken, and the COMMIT itself fails.
    """
    CREATE CONSTRAINT TRIGGER last AFTER UPDATE ON leases DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse()""",
)


async def test_only_the_commit_after_the_create_fails(telnyx: Telnyx, database: str) -> None:
    is_sqlite = database.startswith("sqlite")
    async with service_in_front_of(telnyx, database) as service:
        crowd = Crowd([service.client], random.Random(3), users=4, devices=1)  # noqa: S311 - a crowd
        await tell(database, *([ON_SQLITE] if is_sqlite else ON_POSTGRESQL))
        failed: list[Any] = [await asked(service.client, "tab-0", f"user-{n}") for n in range(4)]
        assert {answer.status_code for answer in failed} == {503}
        assert telnyx.created() == 4
        await tell(database, "DROP TRIGGER last" + ("" if is_sqlite else " ON leases"))

        await crowd.settle()

        assert telnyx.created() == 4, "found by name, and not made again"
        await check(telnyx, database, crowd)
        await readiness(service.client, 200)
