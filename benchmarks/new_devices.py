"""The time until a new device can log in with default settings, if Telnyx needs five seconds for a credential.

A login's `usable_at` is Dialtone's time for that. The browser test of `played.py` logs in at that time.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import aiohttp

from app.vending.upkeep.warm_pool_size import MIN_READY
from benchmarks import processes
from benchmarks.goals import BURST, NEW_DEVICE, POOLED_CALLS, Figure, Line, reached
from benchmarks.load import Request
from benchmarks.processes import Server
from benchmarks.tokens import issue
from benchmarks.warm import telnyx_calls

PROPAGATION_SECONDS = 5.0
"""The default of DIALTONE_PROPAGATION_SECONDS."""

READY = "dialtone_warm_pool_ready"
BURST_DEVICES = 10
AT_ONCE_SECONDS = 0.5
MAX_FILL_SECONDS = 60.0
TELNYX_CALL_SECONDS = 0.03


@dataclass(frozen=True)
class Waited:
    """The waiting time of a new device's user."""

    response: float
    """Seconds until the response."""
    propagation: float
    """Further seconds until the login works, by the response."""

    @property
    def seconds(self) -> float:
        return self.response + self.propagation


def measure() -> list[Line]:
    with (
        processes.stub(TELNYX_CALL_SECONDS) as stub,
        processes.dialtone(f"{stub.url}/v2", more={"DIALTONE_WARM_POOL_SIZE": "auto"}) as server,
    ):
        single, calls = [], []
        _wait_until_full(server)
        for number in range(MIN_READY):
            before = telnyx_calls(stub)
            single += asyncio.run(_at_once(server.url, [issue(f"single-{number}")]))
            _wait_until_full(server)
            calls.append(telnyx_calls(stub) - before)
        burst = asyncio.run(_at_once(server.url, [issue(f"burst-{number}") for number in range(BURST_DEVICES)]))
    took = sorted(waited.seconds for waited in burst)
    at_once = sum(seconds <= AT_ONCE_SECONDS for seconds in took)
    details = f"{PROPAGATION_SECONDS:g} s of propagation, Telnyx calls of {TELNYX_CALL_SECONDS * 1000:.0f} ms"
    return [
        reached(NEW_DEVICE, median(waited.seconds for waited in single), f"{details}, a pool of {MIN_READY}"),
        reached(f"{BURST}: can log in within {AT_ONCE_SECONDS:g} s", at_once, f"{details}, a pool of {MIN_READY}"),
        Figure(f"{BURST}: longest response", max(waited.response for waited in burst), "s"),
        Figure(f"{BURST}: longest time until it can log in", took[-1], "s", "all: " + _listed(took)),
        Figure(POOLED_CALLS, median(calls), "calls", "with the replacement of the pooled credential"),
    ]


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in seconds) + " s"


def _wait_until_full(server: Server) -> None:
    """Wait until the pool has its least number of credentials, and until all have propagated."""
    deadline = time.monotonic() + MAX_FILL_SECONDS
    while server.metric(READY) < MIN_READY:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the warm pool has {server.metric(READY):.0f} credentials")
        time.sleep(0.1)
    time.sleep(PROPAGATION_SECONDS + 1)


async def _at_once(url: str, requests: list[Request]) -> list[Waited]:
    """Send all requests at the same time."""
    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(_login(session, url, request) for request in requests))


async def _login(session: aiohttp.ClientSession, url: str, request: Request) -> Waited:
    began = time.monotonic()
    async with session.post(url + request.path, data=request.body, headers=dict(request.all_headers())) as answer:
        answer.raise_for_status()
        login = await answer.json()
    took = time.monotonic() - began
    propagation = datetime.fromisoformat(login["usable_at"]) - datetime.fromisoformat(login["server_time"])
    return Waited(took, max(0.0, propagation.total_seconds()))
