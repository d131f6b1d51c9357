"""Known devices: page loads with new access tokens, as most page loads have, and repeats of the same bytes.

They are compared in alternating runs with FastAPI's empty route and with Node servers that verify each token.
"""

from contextlib import ExitStack
from functools import cache

from benchmarks import load, processes
from benchmarks.browser import behind_proxy, empty_route
from benchmarks.goals import (
    FASTAPI,
    FASTIFY,
    FRESH,
    FRESH_BROWSER,
    RATE,
    SAME,
    SAME_BROWSER,
    Figure,
    Line,
    Missing,
    reached,
)
from benchmarks.load import Load, Once, Reading, Request
from benchmarks.processes import Server
from benchmarks.tokens import login_request, sign_all
from benchmarks.turns import in_turns, named, show
from benchmarks.warm import warm

EXPRESS = "Express, verifying"
HELLO = [Request("/")]
DEVICES = 1000
TOKENS = 120_000
"""For three rounds of 40,000 requests. A run ends when its tokens are used."""

ONLY_REPEATED = "only repeated bytes reach this"


@cache
def requests() -> tuple[list[Request], list[Request]]:
    """One request of each device, and a request with a new token for each of TOKENS, by the devices in turn."""
    print(f"  signing {TOKENS:,} access tokens ...", flush=True)
    signed = sign_all([f"user-{number % DEVICES}" for number in range(DEVICES + TOKENS)])
    all_requests = [login_request(token) for token in signed]
    return all_requests[:DEVICES], all_requests[DEVICES:]


def measure(rounds: int, seconds: float) -> list[Line]:
    known, new = requests()
    lines = _measured(FRESH, SAME, known, Once(new), HELLO, rounds, seconds)
    # The proxy passes each device's own address on, and gives each request an id.
    known, new = behind_proxy(known, DEVICES), behind_proxy(new, DEVICES)
    return lines + _measured(FRESH_BROWSER, SAME_BROWSER, known, Once(new), empty_route(known), rounds, seconds)


def _measured(
    fresh_name: str, same_name: str, known: list[Request], new: Once, hello: list[Request], rounds: int, seconds: float
) -> list[Line]:
    """Rows for one kind of head, with a server that has seen none of the tokens."""
    print(f"  {fresh_name}:", flush=True)
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        dialtone = stack.enter_context(processes.dialtone(f"{stub.url}/v2"))
        fastapi = stack.enter_context(processes.asgi(FASTAPI, "benchmarks.floors:fastapi"))
        fresh, same = named(dialtone, "Dialtone, fresh tokens"), named(dialtone, "Dialtone, same bytes")
        contest: list[tuple[Server, Load]] = [(fastapi, hello), (fresh, new), (same, known)]
        if load.installed():
            contest.append((stack.enter_context(processes.node(FASTIFY, "fastify.mjs")), new))
            contest.append((stack.enter_context(processes.node(EXPRESS, "express.mjs")), new))
        warm(dialtone, known)
        seen = in_turns(contest, rounds, seconds)
        alone = load.median([load.send(dialtone.url, known, seconds, connections=1) for _ in range(rounds)])
        show("Dialtone, one connection", alone)
    ours, floor = seen[fresh.name], seen[FASTAPI]
    lines = [_against(fresh_name, FASTAPI, ours, floor), _against_fastify(fresh_name, ours, seen)]
    lines.append(Figure(f"{fresh_name}: {RATE}", ours.requests_a_second, "requests/s", "one core"))
    return lines + _same_bytes(same_name, seen[same.name], floor, alone)


def _against(name: str, peer: str, ours: Reading, theirs: Reading, more: str = "") -> Line:
    details = f"{ours.compared_with(theirs)}; {DEVICES:,} devices, no token twice{more}"
    return reached(f"{name}: against {peer}", ours.requests_a_second / theirs.requests_a_second, details)


def _against_fastify(name: str, ours: Reading, seen: dict[str, Reading]) -> Line:
    if FASTIFY not in seen:
        return Missing(f"{name}: against {FASTIFY}", "no Node, or `npm ci` not done")
    express = f"; Express {seen[EXPRESS].requests_a_second:,.0f} requests/s"
    return _against(name, FASTIFY, ours, seen[FASTIFY], express)


def _same_bytes(name: str, ours: Reading, floor: Reading, alone: Reading) -> list[Line]:
    details = f"{ours.compared_with(floor)}; {DEVICES:,} devices; {ONLY_REPEATED}"
    return [
        reached(f"{name}: against {FASTAPI}", ours.requests_a_second / floor.requests_a_second, details),
        reached(f"{name}: p99 at 64 connections", ours.p99_ms, ONLY_REPEATED),
        Figure(f"{name}: {RATE}", ours.requests_a_second, "requests/s", f"one core; {ONLY_REPEATED}"),
        Figure(f"{name}: p50 with one connection", alone.p50_ms, "ms", f"p99 {alone.p99_ms:.3f} ms"),
    ]
