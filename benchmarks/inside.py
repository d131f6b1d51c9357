"""Ratios without a network, for CI: servers alternate every few milliseconds in one process; the best turn of each
counts.

Other load on a shared machine affects neighbouring turns alike, and does not affect the best of many turns. On one
machine, wrk's ratios varied by a factor of two within a day, and these by a few percent.
"""

import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, cycle, islice
from typing import cast

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.serving import server
from app.serving.admission import ConnectionLimiter
from app.vending.models import UserKey
from app.vending.telephony.login_cache import LoginCache
from benchmarks import floors, processes
from benchmarks.goals import FASTAPI, FASTAPI_401, FRESH, SAME, Line, at_least
from benchmarks.load import Request
from benchmarks.tokens import PATH, issue, login_request, sign_all, with_bad_signature

PROCESSES = 3
"""Number of processes. Memory layout differs between processes, so the median of several is reported."""

TURNS, COLD_TURNS = 60, 12
DEVICES, MANY, AT_ONCE = 512, 20_000, 64
FRESH_TOKENS = TURNS * AT_ONCE
"""Number of tokens for a server that gets one batch of fresh tokens in each turn."""

BODY = '{"device_id": "tab-1"}'

GOALS = {
    f"{SAME}: against {FASTAPI}": 3.3,
    f"{FRESH}: against {FASTAPI}": 1.3,
    f"{MANY:,} devices, {SAME}: share of the rate of {DEVICES}": 0.85,
    f"{MANY:,} devices, {FRESH}: share of the rate of {DEVICES}": 0.85,
    f"refusing a bad signature: against {FASTAPI_401}": 1.5,
    f"refusing garbage: against {FASTAPI_401}": 4.0,
    f"refusing 8 KB of junk: against {FASTAPI_401}": 4.0,
    "cold mints against the careful peer (no ledger)": 0.9,
}


def measure() -> list[Line]:
    """The ratios of goals that need no network. Prints those of each process."""
    users = [_many(number) for number in range(MANY)]
    users += [_known(number) for number in range(FRESH_TOKENS)] + users[:FRESH_TOKENS]
    tokens = "\n".join(sign_all(users))
    seen = []
    for _ in range(PROCESSES):
        microseconds = _played(tokens)
        print("  " + ", ".join(f"{name} {value:.0f} us" for name, value in microseconds.items()), flush=True)
        seen.append(ratios(microseconds))
    return [at_least(name, goal, statistics.median(ratio[name] for ratio in seen)) for name, goal in GOALS.items()]


def _played(tokens: str) -> dict[str, float]:
    """The measurements of one process. Raises RuntimeError with the end of its output if it fails."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "benchmarks.inside"]
        env = os.environ | {processes.SIGNING_KEY: processes.private_pem()}
        run = subprocess.run(
            command,
            env=env,
            cwd=processes.ROOT,
            check=False,
            input=tokens,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        if run.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[1:])} ended with {run.returncode}:\n{log.read()[-2000:]}")
    microseconds: dict[str, float] = json.loads(run.stdout)
    return microseconds


def ratios(microseconds: dict[str, float]) -> dict[str, float]:
    own, empty = microseconds["FastAPI's own 401"], microseconds["FastAPI, empty route"]
    each = (
        empty / microseconds["same bytes"],
        empty / microseconds["fresh"],
        microseconds["same bytes"] / microseconds["many, same bytes"],
        microseconds["fresh"] / microseconds["many, fresh"],
        own / microseconds["bad signature"],
        own / microseconds["garbage"],
        own / microseconds["junk"],
        microseconds["careful, cold"] / microseconds["cold"],
    )
    return dict(zip(GOALS, each, strict=True))


@dataclass(frozen=True)
class Contestant:
    """A server's connections, and the requests for them."""

    name: str
    connections: Sequence["Connection"]
    asked: Iterator[Request]
    a_turn: int
    """Requests per turn. As many run concurrently as there are connections."""
    wanted: frozenset[int]
    """The expected statuses."""


class Connection(asyncio.Transport):
    """A connection without a network. Collects the server's output."""

    def __init__(self, serve: Callable[[], asyncio.BaseProtocol]) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8010)})
        self.heard = b""
        self.answered: Callable[[], None] = lambda: None
        self.server = serve()
        self.server.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.heard:
            self.answered()
        self.heard += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Ignored: the server closes idle connections, but the next turn uses them again."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Writes are never buffered."""

    def is_reading(self) -> bool:
        return True

    def resume_reading(self) -> None:
        """Ignored: requests are passed to the protocol directly."""


async def play(contest: Sequence[Contestant], turns: int) -> dict[str, float]:
    """CPU microseconds per request in the best turn of each server."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for one in contest:
            took = await _turn(one)
            best[one.name] = min(took, best.get(one.name, took))
    return best


async def _turn(one: Contestant) -> float:
    waiting = [request.to_bytes() for request in islice(one.asked, one.a_turn)]
    # CPU time of all threads, so that the speed of the machine's disk has no effect.
    took = 0.0
    while waiting:
        batch = [(connection, waiting.pop()) for connection in one.connections[: len(waiting)]]
        began = time.process_time()
        await _asked(batch)
        took += time.process_time() - began
        for connection, _ in batch:
            status, connection.heard = int(connection.heard[9:12]), b""
            if status not in one.wanted:
                raise RuntimeError(f"{one.name} answered {status}")
    return took / one.a_turn * 1e6


async def _asked(batch: Sequence[tuple[Connection, bytes]]) -> None:
    """Pass all requests in one iteration of the event loop. Returns when every response has started."""
    done = asyncio.get_running_loop().create_future()
    left = len(batch)

    def answered() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    def bring() -> None:
        for connection, request in batch:
            connection.answered = answered
            deliver(connection.server, request)

    asyncio.get_running_loop().call_soon(bring)
    await done
    await asyncio.sleep(0)


def deliver(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Give a protocol bytes as the event loop does."""
    if isinstance(protocol, asyncio.BufferedProtocol):
        buffer = memoryview(protocol.get_buffer(len(data)))
        buffer[: len(data)] = data
        protocol.buffer_updated(len(data))
    else:
        cast("asyncio.Protocol", protocol).data_received(data)


def _connections(app: ASGIApp, door: ConnectionLimiter | None = None) -> list[Connection]:
    """A connection to uvicorn, or to Dialtone's connection limiter."""
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Tue, 24 Nov 2026 00:00:00 GMT")]
    serve = HttpToolsProtocol if door is None else door
    return [Connection(partial(serve, config, state, {})) for _ in range(AT_ONCE)]


def _known(number: int) -> str:
    return f"user-{number % DEVICES}"


def _many(number: int) -> str:
    return f"many-{number}"


def _slow_monotonic() -> float:
    """A hundredth of the time, so that a repeat is not an audit event of its own, however slow the machine is."""
    return time.monotonic() / 100


def _tune() -> None:
    """The interpreter's settings of `app.serving.server`, so that the same is measured that runs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(server.GC_THRESHOLD, *gc.get_threshold()[1:])
    sys.setswitchinterval(server.SWITCH_INTERVAL_SECONDS)


def _cache_many(cache: LoginCache) -> None:
    """Cache a login for each of MANY devices, like that of the first known device, which has minted one."""
    issuer, subject = processes.ISSUER, _known(0)
    login = cache.get(UserKey(issuer, subject), "tab-1")
    if login is None or login.token is None:
        raise RuntimeError("the first device has no login token")
    for number in range(MANY):
        lease = replace(
            login.lease,
            id=f"{number:032x}",
            subject=_many(number),
            credential_id=f"00000000-0000-4000-9000-{number:012d}",
            sip_username=f"gencredm{number}",
        )
        secret = f"{number:08d}{login.token.secret[8:]}"
        cache.put(replace(login, lease=lease, token=replace(login.token, secret=secret)))


def _contest(app: ASGIApp, door: ConnectionLimiter, tokens: Sequence[str]) -> list[Contestant]:
    """The servers whose requests need neither Telnyx nor the ledger."""
    dialtone, fastapi = _connections(app, door), _connections(floors.fastapi)
    requests = [login_request(token) for token in tokens]
    many, fresh, many_fresh = requests[:MANY], requests[MANY:-FRESH_TOKENS], requests[-FRESH_TOKENS:]
    known = [issue(_known(number)) for number in range(DEVICES)]

    def again(make: Callable[[int], str]) -> Iterator[Request]:
        return cycle([Request(PATH, "POST", make(number), BODY) for number in range(DEVICES)])

    given, refused = frozenset({200}), frozenset({401})
    own = cycle([Request("/refused", "POST", "garbage", BODY)])
    return [
        Contestant("FastAPI, empty route", fastapi, cycle([Request("/")]), 128, given),
        Contestant("same bytes", dialtone, cycle(known), 256, given),
        Contestant("fresh", dialtone, iter(fresh), AT_ONCE, given),
        Contestant("many, same bytes", dialtone, cycle(many), 256, given),
        Contestant("many, fresh", dialtone, iter(many_fresh), AT_ONCE, given),
        Contestant("FastAPI's own 401", fastapi, own, 64, refused),
        Contestant("bad signature", dialtone, again(with_bad_signature), 128, refused),
        Contestant("garbage", dialtone, again("garbage-{}".format), 192, refused),
        Contestant("junk", dialtone, cycle([Request(PATH, "POST", "x" * 8192, BODY)]), 192, refused),
    ]


async def _measured(tokens: Sequence[str]) -> dict[str, float]:
    from app.composition.build import build_components
    from app.composition.components import Overrides
    from app.config.settings import Settings
    from app.main import build_server_app
    from app.observability import logging as logs
    from benchmarks.peers import careful

    settings = Settings.load()
    components = build_components(settings, Overrides(monotonic=_slow_monotonic))
    door, app, _ = build_server_app(settings, components)
    contest, peer, dialtone = _contest(app, door, tokens), _connections(careful.app), _connections(app, door)
    given = frozenset({200, 201})
    new_devices = (issue(f"new-{number}") for number in count())
    cold = (
        Contestant("careful, cold", peer, new_devices, 64, given),
        Contestant("cold", dialtone, new_devices, 64, given),
    )
    known = [issue(_known(number)) for number in range(DEVICES)]
    with logs.non_blocking():
        async with components.run(), contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(careful.lifespan(careful.app))
            _tune()
            for _ in range(2):  # new, then cached
                await play([Contestant("warm", dialtone, iter(known), DEVICES, given)], 1)
            _cache_many(components.telephony.login_cache)
            await play([one for one in contest if one.name == "many, same bytes"], -(-MANY // 256))
            return await play(contest, TURNS) | await play(cold, COLD_TURNS)


def main(tokens: Sequence[str]) -> dict[str, float]:
    """The measurements of one process. `tokens` are those that `measure` has signed."""
    with processes.stub(0.0) as stub, processes.settings(f"{stub.url}/v2") as env:
        os.environ.update(env)
        os.sched_setaffinity(0, processes.SERVER_CORES)
        return uvloop.run(_measured(tokens))


if __name__ == "__main__":
    print(json.dumps(main(sys.stdin.read().split())))
