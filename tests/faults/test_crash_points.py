"""Replicas are killed or stopped at each crash point; the next replica finds every credential, exactly once.

The crash points are reached from outside: the sandbox withholds a response, or the database a lock.
"""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.engines import database_url
from app.vending.telephony.lease import LIVE, LeaseState
from app.vending.telephony.revoke import MIN_RETRY_DELAY
from tests.support.leases import read_leases
from tests.support.load import LoadGenerator, check_invariants
from tests.support.replicas import Replica, command, replica, replica_environment
from tests.support.sandbox import Telnyx
from tests.support.tokens import token
from tests.support.waiting import eventually, promptly

STOP_SECONDS = float(os.environ.get("STOP_SECONDS", "7"))
"""Seconds for which a claim holder is stopped: longer than its claim. `make faults` uses 30 s."""

IS_LONG = "STOP_SECONDS" in os.environ

CREATE: dict[str, Any] = {"method": "POST", "path": "telephony_credentials$"}
MINT: dict[str, Any] = {"method": "POST", "path": "/token$"}
DELETE: dict[str, Any] = {"method": "DELETE", "path": "telephony_credentials"}
IMPATIENT = {"TELNYX_CALL_SECONDS": "1"}


@dataclass
class CrashScenario:
    """The replica that will be killed, with two users."""

    telnyx: Telnyx
    database: str
    doomed: Replica
    load: LoadGenerator = field(init=False)

    def __post_init__(self) -> None:
        self.load = LoadGenerator([self.doomed.client], random.Random(1), users=2, devices=1)  # noqa: S311 - reproducible load

    async def kill_at(self, asking: "asyncio.Task[Any]", moment: Callable[[], Any]) -> None:
        await eventually(lambda: moment() or asking.done())
        if not moment():
            raise AssertionError(f"answered before: {await asking}")
        self.doomed.kill()
        with suppress(httpx.TransportError):
            await asking

    def asks(self) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.load.ask(("user-0", "tab-0")))


async def after_intent(scenario: CrashScenario) -> None:
    """The row is written; the call to Telnyx had no effect."""
    scenario.telnyx.fail("hang", **CREATE)
    await scenario.kill_at(scenario.asks(), lambda: scenario.telnyx.calls("POST"))


async def during_create(scenario: CrashScenario) -> None:
    """Telnyx has created the credential; its response has not arrived."""
    scenario.telnyx.fail("hang", **CREATE, after_commit=True)
    await scenario.kill_at(scenario.asks(), scenario.telnyx.created)


async def before_commit(scenario: CrashScenario) -> None:
    """Telnyx has responded; the ledger has not been updated."""
    scenario.telnyx.fail("delay", **CREATE, seconds=0.6)
    asking = scenario.asks()
    await eventually(lambda: scenario.telnyx.calls("POST"))
    async with ledger_locked(scenario.database):
        await eventually(lambda: is_create_answered(scenario.telnyx))
        await asyncio.sleep(0.2)
        await scenario.kill_at(asking, lambda: True)


def is_create_answered(telnyx: Telnyx) -> bool:
    """Later calls may follow, if the lock of the ledger came too late."""
    entries = telnyx.sandbox.journal.entries
    return any(entry.status == 201 and (entry.committed or "").startswith("create") for entry in entries)


async def before_answer(scenario: CrashScenario) -> None:
    """The credential is in the ledger; the login token is being minted."""
    scenario.telnyx.fail("hang", **MINT)
    await scenario.kill_at(scenario.asks(), lambda: scenario.telnyx.calls("POST", "/token"))


async def in_a_revoke(scenario: CrashScenario) -> None:
    await scenario.load.settle()
    scenario.telnyx.fail("hang", **DELETE)
    users = {"Authorization": f"Bearer {token('user-0')}"}
    asking = asyncio.create_task(scenario.doomed.client.delete("/v1/telephony-credentials", headers=users))
    await scenario.kill_at(asking, lambda: scenario.telnyx.calls("DELETE"))


async def in_a_sweep(scenario: CrashScenario) -> None:
    """A lease has expired, and the process that sweeps it is killed."""
    await scenario.load.settle()
    await make_due(scenario.database)
    scenario.telnyx.fail("hang", **DELETE)
    env = replica_environment(scenario.telnyx.url, scenario.database) | IMPATIENT
    sweeping = subprocess.Popen(command("sweep"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await eventually(lambda: scenario.telnyx.calls("DELETE"))
    sweeping.kill()
    sweeping.wait()
    scenario.doomed.kill()


BARRIERS = [after_intent, during_create, before_commit, before_answer, in_a_revoke, in_a_sweep]


WHERE = [("sqlite", 0), ("postgres", 2)]
SHORT = [(barrier, *WHERE[number % 2]) for number, barrier in enumerate(BARRIERS)]
LONG = [(barrier, database, others) for barrier in BARRIERS for database in ("sqlite", "postgres") for others in (0, 2)]


@pytest.mark.parametrize(
    ("barrier", "database", "others"),
    LONG if IS_LONG else SHORT,
    indirect=["database"],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_kill_at_each_crash_point_loses_and_repeats_nothing(
    telnyx: Telnyx, database: str, tmp_path: Path, barrier: Callable[[CrashScenario], Any], others: int
) -> None:
    """`others` is the number of replicas that keep running; with 0, the killed replica is restarted."""
    async with AsyncExitStack() as stack:

        async def start(*, migrate: bool = False) -> Replica:
            return await stack.enter_async_context(replica(telnyx.url, database, tmp_path, IMPATIENT, migrate=migrate))

        doomed = await start(migrate=True)
        survivors = [await start() for _ in range(others)]
        scenario = CrashScenario(telnyx, database, doomed)
        await barrier(scenario)
        created = telnyx.created()
        survivors = survivors or [await start()]
        telnyx.sandbox.faults.plans.clear()

        last = LoadGenerator([survivor.client for survivor in survivors], random.Random(2), users=2, devices=1)  # noqa: S311
        await last.settle()
        if barrier in (in_a_revoke, in_a_sweep):
            await asyncio.sleep(MIN_RETRY_DELAY.total_seconds())
        swept = command("sweep", "--json")
        env = replica_environment(telnyx.url, database) | IMPATIENT
        await asyncio.to_thread(subprocess.run, swept, env=env, check=True, stdout=subprocess.DEVNULL)

        async def are_deleted() -> bool:
            """Whether every ended lease is deleted. A survivor may be deleting one at the moment."""
            states = {row.state for row in (await read_leases(database)).values()}
            return states <= {*LIVE, LeaseState.REVOKED, LeaseState.DELETED}

        await promptly(are_deleted, 3)
        last.answers += scenario.load.answers
        await check_invariants(telnyx, database, last)
        rows = (await read_leases(database)).values()
        assert len(telnyx.live()) == sum(row.state is LeaseState.ACTIVE for row in rows) == 2
        assert telnyx.created() - created <= 2, "a create was repeated"


@pytest.mark.parametrize("database", ["sqlite", "postgres"] if IS_LONG else ["postgres"], indirect=True)
async def test_resumed_claim_holder_creates_no_second_credential(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    telnyx.fail("delay", **CREATE, seconds=0.5, after_commit=True)
    async with (
        replica(telnyx.url, database, tmp_path, IMPATIENT) as holder,
        replica(telnyx.url, database, tmp_path, IMPATIENT) as other,
    ):
        first = asyncio.create_task(holder.issue())
        await eventually(telnyx.created)
        holder.process.send_signal(signal.SIGSTOP)
        try:
            answers = [await other.issue()]
            while answers[-1].status_code == 503:
                await asyncio.sleep(float(answers[-1].headers["retry-after"]))
                answers.append(await other.issue())
            await asyncio.sleep(STOP_SECONDS)
        finally:
            holder.process.send_signal(signal.SIGCONT)
        (late,) = await asyncio.gather(first, return_exceptions=True)
        again = await holder.issue()

    assert answers[-1].is_success
    assert telnyx.created() == 1
    heard = [answers[-1], again]
    if isinstance(late, httpx.Response):
        assert late.status_code in (200, 201, 502, 503)
        heard.append(late)
    else:
        assert isinstance(late, httpx.TransportError), "its caller has disconnected"
    given = {answer.json()["sip_username"] for answer in heard if answer.is_success}
    assert given == {item.sip_username for item in telnyx.sandbox.account.credentials.values()}


@asynccontextmanager
async def ledger_locked(database: str) -> AsyncIterator[None]:
    """Hold the write lock of the database."""
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(str(database_url(database).database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(sa.text("LOCK TABLE leases IN EXCLUSIVE MODE"))
        yield
    await engine.dispose()


async def make_due(database: str) -> None:
    """Let the lease of user-0 expire."""
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(
            sa.text("UPDATE leases SET expires_at = '2026-01-01 00:00:00' WHERE subject = 'user-0'")
        )
    await engine.dispose()
