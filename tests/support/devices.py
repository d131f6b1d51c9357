"""Devices that reconnect: `python -m tests.support.devices URL` reads a bearer token per line and prints measurements.

It is a separate process: opening ten thousand connections takes seconds, in which a sandbox in the same process
would not answer.
"""

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Sequence

import aiohttp

MAX_OPEN_FILES = 65_536


async def reconnect_all(url: str, bearers: Sequence[str]) -> dict[str, object]:
    """Reconnect all devices at once. The time starts with the first request, as connecting takes seconds."""
    rng = random.Random(9)  # noqa: S311 - reproducible load
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
        asked = await asyncio.gather(*(reconnect(session, url, bearer, rng, broken) for bearer in bearers))
        ended = time.monotonic()
    return {"asked": asked, "broken": len(broken), "dialling": spoken[0] - dialled, "took": ended - spoken[0]}


async def reconnect(
    session: aiohttp.ClientSession, url: str, bearer: str, rng: random.Random, broken: list[float]
) -> int:
    """Retry as the client does until there is a login; returns the number of requests."""
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
        await asyncio.sleep(pause + rng.random())
    raise AssertionError("a device did not get its login")


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MAX_OPEN_FILES), hard))
    json.dump(asyncio.run(reconnect_all(sys.argv[1], sys.stdin.read().split())), sys.stdout)
