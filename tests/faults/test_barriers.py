"""A replica dies, or is stopped, at the worst moments there are: whoever comes after it finds everything, and once.

The moments are brought about from outside: the sandbox withholds an answer, or the database a lock.
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
from app.vending.telephony.lease import LIVE, State
from app.vending.telephony.revoke import FIRST_RETRY
from tests.faults.crowd import Crowd, check, rows_of
from tests.processes.replicas import Replica, command, replica, settings_of
from tests.stage import Telnyx, eventually, token

STOP_SECONDS = float(os.environ.get("STOP_SECONDS", "7"))
"""How long a holder is stopped; longer than its claim lives. `make faults` stops it for 30 s."""

IS_LONG = "STOP_SECONDS" in os.environ

CREATE: dict[str, Any] = {"method": "POST", "path": "telephony_credentials$"}
MINT: dict[str, Any] = {"method": "POST", "path": "/token$"}
DELETE: dict[str, Any] = {"method": "DELETE", "path": "telephony_credentials"}
IMPATIENT = {"TELNYX_CALL_SECONDS": "1"}


@dataclass
class Scene:
    """One replica that is going to die, with two users on it."""

    telnyx: Telnyx
    database: str
    doomed: Replica
    crowd: Crowd = field(init=False)

    def __post_init__(self) -> None:
        self.crowd = Crowd([self.doomed.client], random.Random(1), users=2, devices=1)  # noqa: S311 - a crowd

    async def dies(self, asking: "asyncio.Task[Any]", moment: Callable[[], Any]) -> None:
        await eventually(moment)
        self.doomed.kill()
        with suppress(httpx.TransportError):
            await asking

    def asks(self) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.crowd.ask(("user-0", "tab-0")))


async def after_intent(scene: Scene) -> None:
    """The row is written; what was sent to Telnyx has had no effect."""
    scene.telnyx.fail("hang", **CREATE)
    await scene.dies(scene.asks(), lambda: scene.telnyx.calls("POST"))


async def during_create(scene: Scene) -> None:
    """Telnyx has made it, and the answer is on its way."""
    scene.telnyx.fail("hang", **CREATE, after_commit=True)
    await scene.dies(scene.asks(), scene.telnyx.created)


async def before_commit(scene: Scene) -> None:
    """Telnyx has answered, and the ledger does not take it down."""
    scene.telnyx.fail("delay", **CREATE, seconds=0.6)
    asking = scene.asks()
    await eventually(lambda: scene.telnyx.calls("POST"))
    async with ledger_locked(scene.database):
        await eventually(lambda: scene.telnyx.sandbox.journal.entries[-1].status == 201)
        await asyncio.sleep(0.2)
        await scene.dies(asking, lambda: True)


async def before_answer(scene: Scene) -> None:
    """The credential is written down, and the login token still being minted."""
    scene.telnyx.fail("hang", **MINT)
    await scene.dies(scene.asks(), lambda: scene.telnyx.calls("POST", "/token"))


async def in_a_revoke(scene: Scene) -> None:
    await scene.crowd.settle()
    scene.telnyx.fail("hang", **DELETE)
    users = {"Authorization": f"Bearer {token('user-0')}"}
    asking = asyncio.create_task(scene.doomed.client.delete("/v1/telephony-credentials", headers=users))
    await scene.dies(asking, lambda: scene.telnyx.calls("DELETE"))


async def in_a_sweep(scene: Scene) -> None:
    """A lease has run out, and whoever sweeps dies over it: here a process that does nothing else."""
    await scene.crowd.settle()
    await make_due(scene.database)
    scene.telnyx.fail("hang", **DELETE)
    env = settings_of(scene.telnyx.url, scene.database) | IMPATIENT
    sweeping = subprocess.Popen(command("sweep"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await eventually(lambda: scene.telnyx.calls("DELETE"), 20)
    sweeping.kill()
    sweeping.wait()
    scene.doomed.kill()


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
async def test_kill_9(
    telnyx: Telnyx, database: str, tmp_path: Path, barrier: Callable[[Scene], Any], others: int
) -> None:
    """With `others`, so many replicas go on beside it; without, it is started again."""
    async with AsyncExitStack() as stack:

        async def start(*, migrate: bool = False) -> Replica:
            return await stack.enter_async_context(replica(telnyx.url, database, tmp_path, IMPATIENT, migrate=migrate))

        doomed = await start(migrate=True)
        survivors = [await start() for _ in range(others)]
        scene = Scene(telnyx, database, doomed)
        await barrier(scene)
        created = telnyx.created()
        survivors = survivors or [await start()]
        telnyx.sandbox.faults.plans.clear()

        last = Crowd([survivor.client for survivor in survivors], random.Random(2), users=2, devices=1)  # noqa: S311
        await last.settle(30)
        if barrier in (in_a_revoke, in_a_sweep):
            await asyncio.sleep(FIRST_RETRY.total_seconds())
        swept = command("sweep", "--json")
        env = settings_of(telnyx.url, database) | IMPATIENT
        await asyncio.to_thread(subprocess.run, swept, env=env, check=True, stdout=subprocess.DEVNULL)

        last.answers += scene.crowd.answers
        await check(telnyx, database, last)
        rows = (await rows_of(database)).values()
        assert {row.state for row in rows} <= {*LIVE, State.REVOKED, State.DELETED}, "I4: ended, and gone"
        assert len(telnyx.live()) == sum(row.state is State.ACTIVE for row in rows) == 2
        assert telnyx.created() - created <= 2, "I6"


@pytest.mark.parametrize("database", ["sqlite", "postgres"] if IS_LONG else ["postgres"], indirect=True)
async def test_a_claim_holder_that_is_stopped_and_goes_on_makes_nothing_twice(
    telnyx: Telnyx, database: str, tmp_path: Path
) -> None:
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
        assert isinstance(late, httpx.TransportError), "its caller hung up meanwhile"
    given = {answer.json()["sip_username"] for answer in heard if answer.is_success}
    assert given == {item.sip_username for item in telnyx.sandbox.account.credentials.values()}


@asynccontextmanager
async def ledger_locked(database: str) -> AsyncIterator[None]:
    """Nobody else writes."""
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
    """As if user-0's lease had run out."""
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(
            sa.text("UPDATE leases SET expires_at = '2026-01-01 00:00:00' WHERE subject = 'user-0'")
        )
    await engine.dispose()
