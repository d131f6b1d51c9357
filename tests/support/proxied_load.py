"""Requests of many clients through a proxy, timed around the moments at which connections are closed."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx

from tests.support.tokens import token

CLIENTS = 100
PROXY_IDLE_SECONDS, DIALTONE_IDLE_SECONDS = 1, 5
"""How long the proxy and Dialtone keep idle connections. With the shipped times, the proxy closes them 15 seconds
before Dialtone does. Here it has four, because a busy machine may not run the proxy for some of them.
"""

PAUSES = (PROXY_IDLE_SECONDS, DIALTONE_IDLE_SECONDS, DIALTONE_IDLE_SECONDS)
LATE_SECONDS = 0.6
"""Dialtone checks for idle connections every half second, so it closes them up to this much later."""

NETWORK_SECONDS = 0.1
"""Between the proxy and Dialtone, in each direction. A request may be under way while the other end closes."""


async def post_around_timeouts(connect: Callable[[int], httpx.AsyncClient]) -> Counter[int]:
    """Statuses of 400 POSTs: four from each client. `connect` gets the number of a client.

    The clients pause together, so that the proxy's connections are idle together.
    """
    statuses: Counter[int] = Counter()
    bearers = [token(f"user-{number}") for number in range(CLIENTS)]

    async def post(session: httpx.AsyncClient, number: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        headers = {"Authorization": f"Bearer {bearers[number]}"}
        answer = await session.post("/v1/telephony-credentials", headers=headers, json={"device_id": "laptop"})
        statuses[answer.status_code] += 1

    sessions, chance = [connect(number) for number in range(CLIENTS)], random.Random(1)  # noqa: S311 - reproducible load
    for pause in (0, *PAUSES):
        await asyncio.gather(
            *(post(session, number, pause + chance.uniform(0, LATE_SECONDS)) for number, session in enumerate(sessions))
        )
    for session in sessions:
        await session.aclose()
    return statuses


@asynccontextmanager
async def distant(port: int | None) -> AsyncIterator[int]:
    """A port that leads to this one over a slow network."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))

    async with await asyncio.start_server(join, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await asyncio.sleep(NETWORK_SECONDS)
            writer.write(data)
        await asyncio.sleep(NETWORK_SECONDS)
    writer.close()
