"""Requests of many clients through a proxy, timed around the moments at which connections are closed."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import httpx

from tests.support.tokens import token

CLIENTS, REQUESTS_PER_CLIENT = 40, 10


async def post_around_timeouts(connect: Callable[[int], httpx.AsyncClient]) -> Counter[int]:
    """Statuses of 400 POSTs, with pauses around one and three seconds. `connect` gets the number of a client."""
    statuses: Counter[int] = Counter()

    async def client(number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - reproducible load
        headers = {"Authorization": f"Bearer {token(f'user-{number}')}"}
        body = {"device_id": "laptop"}
        async with connect(number) as session:
            for _ in range(REQUESTS_PER_CLIENT):
                statuses[(await session.post("/v1/telephony-credentials", headers=headers, json=body)).status_code] += 1
                await asyncio.sleep(chance.choice([1, 3]) + chance.uniform(-0.2, 0.2))

    await asyncio.gather(*map(client, range(CLIENTS)))
    return statuses
