"""Known devices whose requests each bring an access token that the server has not seen, as most page loads do."""

from contextlib import ExitStack
from functools import cache

from benchmarks import hot, load, processes
from benchmarks.browser import behind_proxy, empty_route
from benchmarks.goals import FASTAPI, FASTIFY, FRESH, FRESH_BROWSER, SAME_BROWSER, Line, Missing, reached
from benchmarks.load import Load, Once, Reading, Request
from benchmarks.processes import Server
from benchmarks.tokens import login_request, sign_all
from benchmarks.turns import in_turns, named
from benchmarks.warm import warm

EXPRESS = "Express, verifying"
DEVICES = 1000
TOKENS = 120_000
"""For three rounds of 40,000 requests. A run ends when its tokens are used."""


@cache
def requests() -> tuple[list[Request], list[Request]]:
    """One request of each device, and a request with a new token for each of TOKENS, by the devices in turn."""
    print(f"  signing {TOKENS:,} access tokens ...", flush=True)
    signed = sign_all([f"user-{number % DEVICES}" for number in range(DEVICES + TOKENS)])
    all_requests = [login_request(token) for token in signed]
    return all_requests[:DEVICES], all_requests[DEVICES:]


def measure(rounds: int, seconds: float) -> list[Line]:
    known, new = requests()
    lines = _measured(FRESH, known, Once(new), hot.HELLO, rounds, seconds)
    # The proxy passes each device's own address on, and gives each request an id.
    known, new = behind_proxy(known, DEVICES), behind_proxy(new, DEVICES)
    return lines + _measured(FRESH_BROWSER, known, Once(new), empty_route(known), rounds, seconds)


def _measured(
    name: str, known: list[Request], new: Once, hello: list[Request], rounds: int, seconds: float
) -> list[Line]:
    """Rows for one kind of head, with a server that has seen none of the tokens."""
    print(f"  {name}:", flush=True)
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
    ours = seen[fresh.name]
    lines = [_against(name, FASTAPI, ours, seen[FASTAPI])]
    lines.append(
        _against(name, FASTIFY, ours, seen[FASTIFY], f"; Express {seen[EXPRESS].requests_a_second:,.0f} requests/s")
        if load.installed()
        else Missing(f"{name}: against {FASTIFY}", "no Node, or `npm ci` not done")
    )
    return lines + (_same_bytes(seen[same.name], seen[FASTAPI]) if name == FRESH_BROWSER else [])


def _against(name: str, peer: str, ours: Reading, theirs: Reading, more: str = "") -> Line:
    details = f"{ours.compared_with(theirs)}; {DEVICES:,} devices, no token twice{more}"
    return reached(f"{name}: against {peer}", ours.requests_a_second / theirs.requests_a_second, details)


def _same_bytes(ours: Reading, hello: Reading) -> list[Line]:
    times = ours.requests_a_second / hello.requests_a_second
    details = f"{ours.compared_with(hello)}; {DEVICES:,} devices; {hot.ONLY_REPEATED}"
    return [
        reached(f"{SAME_BROWSER}: against {FASTAPI}", times, details),
        reached(f"{SAME_BROWSER}: p99 at 64 connections", ours.p99_ms, hot.ONLY_REPEATED),
    ]
