"""Ratios without a network, for CI: servers alternate every few milliseconds in one process; the best turn of each
counts.

Other load on a shared machine affects neighbouring turns alike, and does not affect the best of many turns. On one
machine, wrk's ratios varied by a factor of two within a day, and these by a few percent.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle, islice
from typing import cast

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.serving.admission import ConnectionLimiter
from benchmarks import floors, processes
from benchmarks.goals import Line, at_least
from benchmarks.load import Request
from benchmarks.tokens import PATH, issue, with_bad_signature

PROCESSES = 3
"""Number of processes. Memory layout differs between processes, so the median of several is reported."""

TURNS, COLD_TURNS = 60, 12
DEVICES, AT_ONCE = 512, 64
BODY = '{"device_id": "tab-1"}'

GOALS = {
    "hot path against FastAPI's empty route": 2.0,
    "refusing a bad signature against FastAPI's own 401": 2.4,
    "refusing garbage against FastAPI's own 401": 5.0,
    "refusing 8 KB of junk against FastAPI's own 401": 5.0,
    "cold mints against the careful peer (no ledger)": 0.9,
}


def measure() -> list[Line]:
    """The ratios of goals that need no network. Prints those of each process."""
    seen = []
    for _ in range(PROCESSES):
        microseconds = _played()
        print("  " + ", ".join(f"{name} {value:.0f} us" for name, value in microseconds.items()), flush=True)
        seen.append(ratios(microseconds))
    return [at_least(name, goal, statistics.median(ratio[name] for ratio in seen)) for name, goal in GOALS.items()]


def _played() -> dict[str, float]:
    """The measurements of one process. Raises RuntimeError with the end of its output if it fails."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "benchmarks.inside"]
        run = subprocess.run(command, cwd=processes.ROOT, check=False, stdout=subprocess.PIPE, stderr=log)
        if run.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[1:])} ended with {run.returncode}:\n{log.read()[-2000:]}")
    microseconds: dict[str, float] = json.loads(run.stdout)
    return microseconds


def ratios(microseconds: dict[str, float]) -> dict[str, float]:
    own = microseconds["FastAPI's own 401"]
    each = (
        microseconds["FastAPI, empty route"] / microseconds["hot"],
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
    waiting = [_written(request) for request in islice(one.asked, one.a_turn)]
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


def _written(request: Request) -> bytes:
    """The bytes that a load generator sends."""
    lines = [f"{request.method} {request.path} HTTP/1.1", "Host: 127.0.0.1:8010"]
    if request.token is not None:
        lines += [f"Authorization: Bearer {request.token}", "Content-Type: application/json"]
    if request.body:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body.encode()


def _connections(app: ASGIApp, door: ConnectionLimiter | None = None) -> list[Connection]:
    """A connection to uvicorn, or to Dialtone's connection limiter."""
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Tue, 24 Nov 2026 00:00:00 GMT")]
    serve = HttpToolsProtocol if door is None else door
    return [Connection(partial(serve, config, state, {})) for _ in range(AT_ONCE)]


async def _measured() -> dict[str, float]:
    from app.composition.build import build_components
    from app.config.settings import Settings
    from app.main import build_server_app
    from app.observability import logging as logs
    from benchmarks.peers import careful

    settings = Settings.load()
    components = build_components(settings)
    door, app, _ = build_server_app(settings, components)
    dialtone, fastapi, peer = _connections(app, door), _connections(floors.fastapi), _connections(careful.app)
    known = [issue(f"user-{number}") for number in range(DEVICES)]

    def again(make: Callable[[int], str]) -> Iterator[Request]:
        return cycle([Request(PATH, "POST", make(number), BODY) for number in range(DEVICES)])

    given, refused = frozenset({200, 201}), frozenset({401})
    own = cycle([Request("/refused", "POST", "garbage", BODY)])
    short = (
        Contestant("FastAPI, empty route", fastapi, cycle([Request("/")]), 128, given),
        Contestant("hot", dialtone, cycle(known), 256, given),
        Contestant("fresh token", dialtone, (issue(f"user-{number % DEVICES}") for number in count()), 128, given),
        Contestant("FastAPI's own 401", fastapi, own, 64, refused),
        Contestant("bad signature", dialtone, again(with_bad_signature), 128, refused),
        Contestant("garbage", dialtone, again("garbage-{}".format), 192, refused),
        Contestant("junk", dialtone, cycle([Request(PATH, "POST", "x" * 8192, BODY)]), 192, refused),
    )
    new_devices = (issue(f"new-{number}") for number in count())
    cold = (
        Contestant("careful, cold", peer, new_devices, 64, given),
        Contestant("cold", dialtone, new_devices, 64, given),
    )
    with logs.non_blocking():
        async with components.run(), contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(careful.lifespan(careful.app))
            for _ in range(2):  # new, then cached
                await play([Contestant("warm", dialtone, iter(known), DEVICES, given)], 1)
            return await play(short, TURNS) | await play(cold, COLD_TURNS)


def main() -> dict[str, float]:
    """The measurements of one process."""
    with processes.stub(0.0) as stub, processes.settings(f"{stub.url}/v2") as env:
        os.environ.update(env)
        os.sched_setaffinity(0, processes.SERVER_CORES)
        return uvloop.run(_measured())


if __name__ == "__main__":
    print(json.dumps(main()))
