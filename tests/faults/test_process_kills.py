"""Processes are killed at random moments under load; nothing is lost or created twice."""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.load import LoadGenerator, check_invariants, finish_deletions
from tests.support.outages import readiness
from tests.support.replicas import replica
from tests.support.sandbox import Telnyx

KILLS = int(os.environ.get("KILLS", "2"))
"""Set KILLS=100 for the long form (`make faults`)."""


@pytest.mark.timeout(180 + KILLS * 20)
async def test_replicas_killed_under_load_lose_nothing(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    rng = random.Random(11)  # noqa: S311 - reproducible load
    seen: list[LoadGenerator] = []
    telnyx.fail("delay", method="POST", path="telephony_credentials", seconds=0.05, times=100_000)
    for _ in range(KILLS):
        async with replica(telnyx.url, database, tmp_path) as doomed:
            load = LoadGenerator([doomed.client], rng)
            rush = asyncio.create_task(load.run(30))
            await asyncio.sleep(rng.uniform(0.01, 0.6))
            doomed.kill()
            await rush
            seen.append(load)
    telnyx.sandbox.faults.plans.clear()
    async with AsyncExitStack() as stack:
        survivors = [await stack.enter_async_context(replica(telnyx.url, database, tmp_path)) for _ in range(2)]
        last = LoadGenerator([survivor.client for survivor in survivors], rng)
        await last.settle()
        for survivor in survivors:
            await readiness(survivor.client, 200)
    last.answers += [answer for load in seen for answer in load.answers]

    await finish_deletions(telnyx, database)
    await check_invariants(telnyx, database, last)
