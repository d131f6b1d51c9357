"""Processes killed at random moments under load: whoever comes next finds everything, and nothing twice."""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd, check
from tests.processes.replicas import replica
from tests.stage import Telnyx

KILLS = int(os.environ.get("KILLS", "2"))
"""`KILLS=100 pytest tests/faults/test_kills.py` for the long form."""


@pytest.mark.timeout(60 + KILLS * 20)
async def test_replicas_that_are_killed_under_load_lose_nothing(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    chance = random.Random(11)  # noqa: S311 - a crowd
    seen: list[Crowd] = []
    telnyx.fail("delay", method="POST", path="telephony_credentials", seconds=0.05, times=100_000)
    for _ in range(KILLS):
        async with replica(telnyx.url, database, tmp_path) as doomed:
            crowd = Crowd([doomed.client], chance)
            rush = asyncio.create_task(crowd.rush(30))
            await asyncio.sleep(chance.uniform(0.01, 0.6))
            doomed.kill()
            await rush
            seen.append(crowd)
    telnyx.sandbox.faults.plans.clear()
    async with AsyncExitStack() as stack:
        survivors = [await stack.enter_async_context(replica(telnyx.url, database, tmp_path)) for _ in range(2)]
        last = Crowd([survivor.client for survivor in survivors], chance)
        await last.settle(40)
        assert {(await survivor.client.get("/readyz")).status_code for survivor in survivors} == {200}, "I8"
    last.answers += [answer for crowd in seen for answer in crowd.answers]

    await check(telnyx, database, last)
