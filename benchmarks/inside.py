"""Ratios without a network, for CI: apps take turns of some milliseconds in one process, and each one's best counts.

What disturbs a shared machine falls on neighbouring turns alike, and spares the best of many. wrk's ratios moved by a
factor of two within a day on a machine where these moved by a few percent.
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
from itertools import count, cycle, islice
from typing import Any

import uvloop
from starlette.types import ASGIApp, Message, Scope

from benchmarks import floors, processes
from benchmarks.goals import Line, at_least
from benchmarks.load import Request
from benchmarks.tokens import PATH, issue, with_bad_signature

PROCESSES = 3
"""Each anew, because a process lies in memory as chance has it; the median is told."""

TURNS, COLD_TURNS = 60, 12
DEVICES = 500
BODY = '{"device_id": "tab-1"}'

GOALS = {
    "hot path against FastAPI's empty route": 2.0,
    "refusing a bad signature against FastAPI's own 401": 2.4,
    "refusing garbage against FastAPI's own 401": 5.0,
    "refusing 8 KB of junk against FastAPI's own 401": 5.0,
    "cold mints against the careful peer (no ledger)": 0.9,
}


def measure() -> list[Line]:
    """The goals' ratios, as far as they do not need a network. Prints each process's."""
    seen = []
    for _ in range(PROCESSES):
        microseconds = _played()
        print("  " + ", ".join(f"{name} {value:.0f} us" for name, value in microseconds.items()), flush=True)
        seen.append(ratios(microseconds))
    return [at_least(name, goal, statistics.median(ratio[name] for ratio in seen)) for name, goal in GOALS.items()]


def _played() -> dict[str, float]:
    """The figures of one process. Raises RuntimeError with the last of what it said, if it broke."""
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
    """An app, and what it is asked."""

    name: str
    app: ASGIApp
    asked: Iterator[Request]
    a_turn: int
    at_once: int
    wanted: frozenset[int]
    """The statuses that it must answer with."""


async def play(contest: Sequence[Contestant], turns: int) -> dict[str, float]:
    """Microseconds of the processor a request, of each one's best turn."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for one in contest:
            took = await _turn(one)
            best[one.name] = min(took, best.get(one.name, took))
    return best


async def _turn(one: Contestant) -> float:
    waiting = [_scope(request) for request in islice(one.asked, one.a_turn)]
    body = BODY.encode()

    async def ask() -> None:
        while waiting:
            status = await asyncio.get_running_loop().create_task(_status(one.app, waiting.pop(), body))
            if status not in one.wanted:
                raise RuntimeError(f"{one.name} answered {status}")

    # Of the processor, all threads together: how long this machine's disk takes is no figure of ours.
    began = time.process_time()
    await asyncio.gather(*(ask() for _ in range(one.at_once)))
    return (time.process_time() - began) / one.a_turn * 1e6


async def _status(app: ASGIApp, scope: Scope, body: bytes) -> int:
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


def _scope(request: Request) -> Scope:
    """As uvicorn would make it."""
    headers = [(b"host", b"127.0.0.1:8010")]
    if request.token is not None:
        headers += [(b"authorization", f"Bearer {request.token}".encode()), (b"content-type", b"application/json")]
    headers.append((b"content-length", b"%d" % len(BODY)))
    common: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1"}
    common |= {"server": ("127.0.0.1", 8010), "client": ("127.0.0.1", 40000), "scheme": "http", "root_path": ""}
    own = {"method": request.method, "path": request.path, "raw_path": request.path.encode(), "query_string": b""}
    return common | own | {"headers": headers, "state": {}}


async def _measured() -> dict[str, float]:
    from app.main import assemble
    from app.observability import logs
    from app.settings import Settings
    from app.wiring import join
    from benchmarks.peers import careful

    settings = Settings.load()
    parts = join(settings)
    dialtone, _ = assemble(settings, parts)
    known = [issue(f"user-{number}") for number in range(DEVICES)]

    def again(make: Callable[[int], str]) -> Iterator[Request]:
        return cycle([Request(PATH, "POST", make(number), BODY) for number in range(DEVICES)])

    given, refused = frozenset({200, 201}), frozenset({401})
    short = (
        Contestant("FastAPI, empty route", floors.fastapi, cycle([Request("/")]), 100, 1, given),
        Contestant("hot", dialtone, cycle(known), 250, 1, given),
        Contestant(
            "FastAPI's own 401", floors.fastapi, cycle([Request("/refused", "POST", "garbage", BODY)]), 50, 1, refused
        ),
        Contestant("bad signature", dialtone, again(with_bad_signature), 100, 1, refused),
        Contestant("garbage", dialtone, again("garbage-{}".format), 200, 1, refused),
        Contestant("junk", dialtone, cycle([Request(PATH, "POST", "x" * 8192, BODY)]), 200, 1, refused),
    )
    strangers = (issue(f"stranger-{number}") for number in count())
    cold = (
        Contestant("careful, cold", careful.app, strangers, 64, 32, given),
        Contestant("cold", dialtone, strangers, 64, 32, given),
    )
    with logs.unblocking():
        async with parts.running(), contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(careful.lifespan(careful.app))
            await play([Contestant("warm", dialtone, iter(known), DEVICES, 16, given)], 1)
            return await play(short, TURNS) | await play(cold, COLD_TURNS)


def main() -> dict[str, float]:
    """One process's figures."""
    with processes.stub(0.0) as stub, processes.settings(f"{stub.url}/v2") as env:
        os.environ.update(env)
        os.sched_setaffinity(0, processes.SERVER_CORES)
        return uvloop.run(_measured())


if __name__ == "__main__":
    print(json.dumps(main()))
