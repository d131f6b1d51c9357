"""Many devices in turn, and more devices than the login cache has room for.

Each number of devices has its own server. The ledger holds the devices' leases, and each device warms its server by its
own request, which mints its login token. Users have two devices each.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import fresh, million, processes
from benchmarks.audited import DROPPED, wait_until_written
from benchmarks.goals import FASTAPI, FRESH, OF_1000, SAME, SMALL_CACHE, Line, reached
from benchmarks.load import Load, Once, Reading, Request
from benchmarks.processes import Server
from benchmarks.tokens import login_request, sign_all
from benchmarks.turns import in_turns, named
from benchmarks.warm import send_each, telnyx_calls, warm

SIZES = (1_000, 20_000, 100_000)
FEW, MANY = SIZES[0], SIZES[-1]
CACHE_MB = 1024
"""DIALTONE_LOGIN_CACHE_MB of these servers, which is enough for all devices and for their fresh tokens."""

TOKENS = 36_000
"""Fresh tokens per server, for all rounds."""

SMALL_CACHE_MB, PASSES = 12, 3


def measure(rounds: int, seconds: float) -> list[Line]:
    known, new = _requests()
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        fastapi = stack.enter_context(processes.asgi(FASTAPI, "benchmarks.floors:fastapi"))
        servers = {size: _server(stack, stub, size, known[:size]) for size in SIZES}
        many_warm = servers[MANY].megabytes
        calls = telnyx_calls(stub)
        contest: list[tuple[Server, Load]] = [(fastapi, fresh.HELLO)]
        for size, server in servers.items():
            contest.append((named(server, f"{size:,} devices, {FRESH}"), Once(new[size])))
            contest.append((named(server, f"{size:,} devices, {SAME}"), known[:size]))
        # With many devices, a device's repeats are more than ten seconds apart, so each is an audit event.
        seen = in_turns(contest, rounds, seconds, lambda server: _settle(server, fastapi))
        calls = telnyx_calls(stub) - calls
        dropped = sum(int(server.metric(DROPPED)) for server in servers.values())
        memory = servers[MANY].megabytes
    lines = [
        line
        for size in SIZES[1:]
        for load in (FRESH, SAME)
        for line in _shares(size, load, seen, f"{calls} Telnyx calls, {dropped} audit events dropped")
    ]
    after = f"{many_warm:,.0f} MB before {TOKENS:,} fresh tokens; DIALTONE_LOGIN_CACHE_MB={CACHE_MB}"
    lines.append(reached(f"{MANY:,} devices: memory of the server", memory, after))
    return [*lines, *_more_than_fit(known)]


def _settle(server: Server, floor: Server) -> None:
    """Let Dialtone write its audit events, so that the next server has the core to itself."""
    if server is not floor:
        wait_until_written(server)


def _requests() -> tuple[list[Request], dict[int, list[Request]]]:
    """One request of each device, and for each size requests with new tokens by its devices in turn."""
    print(f"  signing {MANY + TOKENS * len(SIZES):,} access tokens ...", flush=True)
    known = _of_devices(range(MANY))
    return known, {size: _of_devices([number % size for number in range(TOKENS)]) for size in SIZES}


def _of_devices(numbers: Sequence[int]) -> list[Request]:
    """A request with a new token for each device, named as in `million.rows`."""
    tokens = sign_all([f"somebody-{number // 2}" for number in numbers])
    return [login_request(token, f"device-{number % 2}") for token, number in zip(tokens, numbers, strict=True)]


def _server(stack: ExitStack, stub: Server, size: int, known: list[Request], cache_mb: int = CACHE_MB) -> Server:
    """A server whose cache has the logins of these devices."""
    database = stack.enter_context(million.ledger(size))
    server = stack.enter_context(
        processes.dialtone(
            f"{stub.url}/v2", database, name=f"{size:,} devices", more={"DIALTONE_LOGIN_CACHE_MB": str(cache_mb)}
        )
    )
    began = time.monotonic()
    warm(server, known)
    took = time.monotonic() - began
    print(f"  {size:,} devices warmed in {took:.0f} s, {server.megabytes:.0f} MB", flush=True)
    return server


def _shares(size: int, load: str, seen: dict[str, Reading], counts: str) -> list[Line]:
    ours, few = seen[f"{size:,} devices, {load}"], seen[f"{FEW:,} devices, {load}"]
    floor = seen[FASTAPI].requests_a_second
    name = f"{size:,} devices, {load}"
    details = (
        f"{ours.compared_with(few)}; {ours.requests_a_second / floor:.2f} and {few.requests_a_second / floor:.2f} x "
        f"{FASTAPI}; {counts}; DIALTONE_LOGIN_CACHE_MB={CACHE_MB}"
    )
    if load == SAME:
        details += f"; {fresh.ONLY_REPEATED}"
    lines: list[Line] = [reached(f"{name}: {OF_1000}", ours.requests_a_second / few.requests_a_second, details)]
    return lines + ([reached(f"{name}: p99", ours.p99_ms)] if size == MANY else [])


def _more_than_fit(known: list[Request]) -> list[Line]:
    """Twice as many devices as the cache has room for, in turn."""
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        fits = cache_capacity(SMALL_CACHE_MB)
        wanted = known[: fits * 2]
        server = _server(stack, stub, len(wanted), wanted, SMALL_CACHE_MB)
        _pass(server, wanted)
        before = telnyx_calls(stub)
        for _ in range(PASSES):
            _pass(server, wanted)
        calls = telnyx_calls(stub) - before
    sent = PASSES * len(wanted)
    details = (
        f"{calls:,} Telnyx calls for {sent:,} requests of {len(wanted):,} devices in turn; "
        f"DIALTONE_LOGIN_CACHE_MB={SMALL_CACHE_MB} has room for {fits:,}"
    )
    return [reached(SMALL_CACHE, 1 - calls / sent, details)]


def _pass(server: Server, wanted: list[Request]) -> None:
    if failed := send_each(server.url, wanted):
        raise RuntimeError(f"{len(failed)} requests were rejected")


def cache_capacity(megabytes: int) -> int:
    """Number of devices that DIALTONE_LOGIN_CACHE_MB has room for."""
    from app.composition.login_cache import BYTES_PER_DEVICE

    return megabytes * 1024 * 1024 // BYTES_PER_DEVICE
