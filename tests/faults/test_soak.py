"""A soak test: three replicas under load with random faults and kills; nothing is lost and memory does not grow."""

import asyncio
import os
import random
import statistics
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.adapters.ledger.engines import database_url
from app.vending.telephony.revoke import MIN_RETRY_DELAY
from tests.support.load import LoadGenerator, check_invariants
from tests.support.outages import readiness
from tests.support.replicas import Replica, command, replica, replica_environment
from tests.support.sandbox import Telnyx

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "15"))
"""`make soak` runs for ten minutes."""

RUSH_EVERY, REQUESTS = 0.5, 12
KILL_EVERY = 15.0
SETTINGS = {"TELNYX_CALL_SECONDS": "1", "DIALTONE_RETENTION_DAYS": str(1 / 1440), "DIALTONE_WARM_POOL_SIZE": "3"}

FAULTS: list[dict[str, Any]] = [
    {"kind": kind, "method": method, **more}
    for method in ("POST", "GET", "PATCH", "DELETE")
    for kind, more in (
        ("status", {"times": 3}),
        ("status", {"after_commit": True}),
        ("status", {"status": 429, "headers": {"retry-after": "1"}}),
        ("drop", {"after_commit": True, "times": 2}),
        ("drop", {}),
        ("hang", {"after_commit": True}),
        ("delay", {"seconds": 0.5, "times": 5}),
        ("garbage", {"body": "<html>"}),
    )
]


@dataclass
class Gauges:
    """Samples of the resources of the replicas that are not killed."""

    replicas: list[Replica]
    engine: AsyncEngine
    memory: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)

    async def read(self) -> None:
        pids = [service.process.pid for service in self.replicas]
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        self.memory.append(max(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6)
        self.descriptors.append(max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids))
        async with self.engine.connect() as connection:
            unfinished = "SELECT count(*) FROM leases WHERE state NOT IN ('revoked', 'deleted', 'failed')"
            self.rows.append(await connection.scalar(sa.text(unfinished)) or 0)


def level(samples: list[float], part: int) -> float:
    """The median of one quarter of the samples."""
    size = len(samples) // 4
    return statistics.median(samples[part * size : (part + 1) * size])


@pytest.mark.timeout(SOAK_SECONDS + 300)
async def test_random_faults_lose_nothing_and_memory_does_not_grow(
    telnyx: Telnyx, postgres: str, tmp_path: Path
) -> None:
    rng = random.Random(4)  # noqa: S311 - reproducible load
    engine = create_async_engine(database_url(postgres))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(replica(telnyx.url, postgres, tmp_path, SETTINGS))
        second = await stack.enter_async_context(replica(telnyx.url, postgres, tmp_path, SETTINGS, migrate=False))
        gauges = Gauges([first, second], engine)
        load = LoadGenerator([first.client, second.client], rng, users=20, devices=3)
        killing = asyncio.create_task(kill_repeatedly(telnyx, postgres, tmp_path, load))
        end = time.monotonic() + SOAK_SECONDS
        while time.monotonic() < end:
            if rng.random() < 0.3:
                telnyx.fail(**rng.choice(FAULTS))
            rush = asyncio.create_task(load.run(REQUESTS))
            await asyncio.sleep(RUSH_EVERY)
            await rush
            await gauges.read()
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        telnyx.sandbox.faults.plans.clear()
        await load.settle()
        for service in (first, second):
            await readiness(service.client, 200)
        await asyncio.sleep(MIN_RETRY_DELAY.total_seconds())
        env = replica_environment(telnyx.url, postgres) | SETTINGS
        await asyncio.to_thread(subprocess.run, command("sweep"), env=env, check=True, stdout=subprocess.DEVNULL)

        await check_invariants(telnyx, postgres, load, forgets=True)
    await engine.dispose()
    for name, slack in (("memory", 8.0), ("descriptors", 12.0), ("rows", 40.0)):
        samples: list[float] = getattr(gauges, name)
        before, after = level(samples, 1), level(samples, 3)
        print(f"{name}: {before:.1f} -> {after:.1f}, at most {max(samples):.1f}")
        assert after <= before * 1.1 + slack, f"{name} grew from {before} to {after}"
    print(f"{sum(load.statuses.values())} requests: {dict(load.statuses)}; {telnyx.created()} creates")


async def kill_repeatedly(telnyx: Telnyx, database: str, folder: Path, load: LoadGenerator) -> None:
    """A third replica that is killed and restarted every KILL_EVERY seconds."""
    while True:
        async with replica(telnyx.url, database, folder, SETTINGS, migrate=False) as doomed:
            load.clients.append(doomed.client)
            try:
                await asyncio.sleep(KILL_EVERY)
            finally:
                load.clients.remove(doomed.client)
                doomed.kill()
