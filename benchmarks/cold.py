"""Cold mints: logins of new devices, each with two Telnyx calls of a given delay and two durable writes."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp

from benchmarks import processes
from benchmarks.goals import COLD_RATE, Figure, Line, at_least, at_most
from benchmarks.load import Request
from benchmarks.processes import Server
from benchmarks.tokens import issue

DELAY_SECONDS = 0.03
CALLS = 2
GOALS_MS = {1: 6.0, 8: 10.0, 64: 35.0}
REQUESTS = {1: 60, 8: 400, 64: 2000}
WARMING = 2500
"""Mints before the measurement, in which the call scheduler raises its concurrency limit."""


@dataclass(frozen=True)
class Mints:
    """Rate and durations of a number of requests."""

    a_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def measure() -> list[Line]:
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(DELAY_SECONDS))
        telnyx = f"{stub.url}/v2"
        dialtone = stack.enter_context(processes.dialtone(telnyx))
        careful = stack.enter_context(processes.asgi("careful", "benchmarks.peers.careful:app", telnyx))
        run(dialtone, new_devices(WARMING, "warm"), 64)
        run(careful, new_devices(200, "warm"), 64)
        ours = {
            connections: run(dialtone, new_devices(REQUESTS[connections], f"at-{connections}"), connections)
            for connections in GOALS_MS
        }
        theirs = run(careful, new_devices(1500, "careful"), 64)
        lines: list[Line] = []
        for connections, mints in ours.items():
            beyond = mints.p50_ms - CALLS * DELAY_SECONDS * 1000
            details = f"{mints.a_second:,.0f} logins/s, p99 {mints.p99_ms:.0f} ms, {mints.failed} failed"
            name = f"cold mint beyond Telnyx's own time, p50 at {connections}"
            lines.append(at_most(name, GOALS_MS[connections], beyond, "ms", details))
        lines.append(
            at_least(
                "cold mints a second at 64 against the careful peer (no ledger)",
                0.8,
                ours[64].a_second / theirs.a_second,
                details=f"{ours[64].a_second:,.0f} to {theirs.a_second:,.0f} a second",
            )
        )
        rate = f"one core, Telnyx calls of {DELAY_SECONDS * 1000:.0f} ms, SQLite"
        lines.append(Figure(COLD_RATE, ours[64].a_second, "logins/s", rate))
    return lines


def new_devices(count: int, name: str) -> list[Request]:
    return [issue(f"{name}-{number}") for number in range(count)]


def run(server: Server, wanted: Sequence[Request], connections: int) -> Mints:
    """Send each request once, with a given concurrency."""
    mints = asyncio.run(_send(server.url, list(wanted), connections))
    print(
        f"  {server.name:<28}{mints.a_second:>10,.1f} logins/s at {connections:<3}  p50 {mints.p50_ms:8.1f} ms   "
        f"p99 {mints.p99_ms:8.1f} ms   {mints.failed} failed",
        flush=True,
    )
    return mints


async def _send(url: str, wanted: list[Request], connections: int) -> Mints:
    seconds: list[float] = []
    failed = 0

    async def one_after_the_other(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        while wanted:
            request = wanted.pop()
            headers = {"Authorization": f"Bearer {request.token}", "Content-Type": "application/json"}
            began = time.perf_counter()
            try:
                async with session.post(url + request.path, data=request.body, headers=headers) as answer:
                    await answer.read()
                    failed += answer.status >= 400
            except (aiohttp.ClientError, TimeoutError):
                failed += 1
            seconds.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(one_after_the_other(session) for _ in range(connections)))
        took = time.perf_counter() - began
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return Mints((len(seconds) - failed) / took, statistics.median(ordered) * 1000, p99 * 1000, failed)
