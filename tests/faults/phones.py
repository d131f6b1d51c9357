"""Phones that reconnect: `python -m tests.faults.phones URL` takes a bearer token a line, a phone each; prints figures.

A process of its own: ten thousand connections are made in seconds, in which a sandbox beside them would not answer.
"""

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Sequence

import aiohttp

MOST_FILES = 65_536


async def storm(url: str, bearers: Sequence[str]) -> dict[str, object]:
    """All at once, each until it has a login; timed from the first word, as to dial takes this process seconds."""
    chance = random.Random(9)  # noqa: S311 - a crowd
    broken: list[float] = []
    spoken: list[float] = []

    async def note(*_: object) -> None:
        if not spoken:
            spoken.append(time.monotonic())

    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(note)
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[tracing]) as session:
        dialled = time.monotonic()
        asked = await asyncio.gather(*(reconnect(session, url, bearer, chance, broken) for bearer in bearers))
        ended = time.monotonic()
    return {"asked": asked, "broken": len(broken), "dialling": spoken[0] - dialled, "took": ended - spoken[0]}


async def reconnect(
    session: aiohttp.ClientSession, url: str, bearer: str, chance: random.Random, broken: list[float]
) -> int:
    """As the client does: until it has a login, waiting as told and a little more. How often it asked."""
    for asked in range(1, 200):
        try:
            async with session.post(
                url, headers={"Authorization": f"Bearer {bearer}"}, json={"device_id": "phone"}
            ) as answer:
                if answer.status in (200, 201):
                    return asked
                assert answer.status == 503, await answer.text()
                pause = float(answer.headers["retry-after"])
                assert 1 <= pause <= 60
        except (aiohttp.ClientConnectionError, TimeoutError):
            broken.append(time.monotonic())
            pause = 1.0
        await asyncio.sleep(pause + chance.random())
    raise AssertionError("a device that never got its login")


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MOST_FILES), hard))
    json.dump(asyncio.run(storm(sys.argv[1], sys.stdin.read().split())), sys.stdout)
