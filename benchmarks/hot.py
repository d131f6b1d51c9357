"""The hot path: requests of devices whose login is cached, compared with floors and peers in alternating runs."""

import json
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import load, processes
from benchmarks.goals import Line, Missing, at_least, at_most
from benchmarks.load import Reading, Request
from benchmarks.processes import Server
from benchmarks.tokens import issue

DEVICES = 1000
NAIVE_SECONDS = 5.0
HELLO = [Request("/")]


def measure(rounds: int, seconds: float) -> list[Line]:
    """Rows of the goals table; prints every reading."""
    wanted = [issue(f"user-{number}") for number in range(DEVICES)]
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.03))
        telnyx = f"{stub.url}/v2"
        dialtone = stack.enter_context(processes.dialtone(telnyx))
        fastapi = stack.enter_context(processes.asgi("FastAPI, empty route", "benchmarks.floors:fastapi"))
        contest: list[tuple[Server, Sequence[Request]]] = [(fastapi, HELLO), (dialtone, wanted)]
        raw = stack.enter_context(processes.asgi("uvicorn, raw ASGI", "benchmarks.floors:raw"))
        starlette = stack.enter_context(processes.asgi("Starlette, empty route", "benchmarks.floors:starlette"))
        contest += [(raw, HELLO), (starlette, HELLO)]
        if load.installed():
            express = stack.enter_context(processes.node("Express + jose", "express.mjs"))
            fastify = stack.enter_context(processes.node("Fastify + jose", "fastify.mjs"))
            contest += [(express, wanted), (fastify, wanted)]
        warm(dialtone, wanted)
        seen = in_turns(contest, rounds, seconds)
        ours, hello = seen[dialtone.name], seen[fastapi.name]
        lines: list[Line] = [
            at_least(
                "hot path against FastAPI's empty route",
                2.0,
                ours.requests_a_second / hello.requests_a_second,
                details=f"{ours.requests_a_second:,.0f} to {hello.requests_a_second:,.0f} requests/s",
            ),
            at_most("hot path, p99 at 64 connections", 5.0, ours.p99_ms, "ms", f"p50 {ours.p50_ms:.2f} ms"),
        ]
        if load.installed():
            node = seen["Fastify + jose"]
            name = "hot path against Fastify that verifies each token"
            lines.append(
                at_least(
                    name,
                    1.9,
                    ours.requests_a_second / node.requests_a_second,
                    details=f"Fastify {node.requests_a_second:,.0f}, "
                    f"Express {seen['Express + jose'].requests_a_second:,.0f} requests/s",
                )
            )
        else:
            lines.append(Missing("hot path against Fastify that verifies each token", "no Node, or `npm ci` not done"))
        lines += _alone(dialtone, wanted, rounds)
        naive = stack.enter_context(processes.asgi("naive", "benchmarks.peers.naive:app", telnyx))
        poor = load.median([load.send(naive.url, wanted, NAIVE_SECONDS) for _ in range(rounds)])
        show("naive FastAPI", poor)
        lines.append(
            at_least(
                "hot path against the naive peer",
                650,
                ours.requests_a_second / poor.requests_a_second,
                details=f"naive: {poor.requests_a_second:.1f} requests/s, p99 {poor.p99_ms:,.0f} ms",
            )
        )
    return lines


def _alone(dialtone: Server, wanted: Sequence[Request], rounds: int) -> list[Line]:
    """One connection without other load: the duration of a request in the service, from its access log."""
    begin = dialtone.log.stat().st_size
    seen = load.median([load.send(dialtone.url, wanted, 2, connections=1) for _ in range(rounds)])
    show("Dialtone, one connection", seen)
    with dialtone.log.open() as log:
        log.seek(begin)
        lines = (json.loads(line) for line in log if line.endswith("}\n"))
        inside = sorted(line["milliseconds"] for line in lines if line.get("event") == "request")
    details = f"of {len(inside):,} requests; seen by the client {seen.p50_ms:.3f} / {seen.p99_ms:.3f} ms"
    return [
        at_most("a hit with one connection, inside the service, p50", 0.1, inside[len(inside) // 2], "ms", details),
        at_most("a hit with one connection, inside the service, p99", 0.2, inside[int(len(inside) * 0.99)], "ms"),
    ]


def warm(server: Server, wanted: Sequence[Request]) -> None:
    """Send requests until every device's login is cached."""
    before = 0.0
    for _ in range(20):
        reading = load.send(server.url, wanted, 2)
        if reading.requests_a_second < before * 1.3 and reading.requests_a_second > 2000:
            return
        before = reading.requests_a_second


def in_turns(contest: Sequence[tuple[Server, Sequence[Request]]], rounds: int, seconds: float) -> dict[str, Reading]:
    """Measure every server in each round, so that other load of the machine affects all servers alike."""
    seen: dict[str, list[Reading]] = {server.name: [] for server, _ in contest}
    for _ in range(rounds):
        for server, wanted in contest:
            seen[server.name].append(load.send(server.url, wanted, seconds))
    medians = {name: load.median(readings) for name, readings in seen.items()}
    for name, reading in medians.items():
        show(name, reading)
    return medians


def show(name: str, reading: Reading) -> None:
    print(
        f"  {name:<28}{reading.requests_a_second:>10,.0f} requests/s   p50 {reading.p50_ms:8.3f} ms   "
        f"p99 {reading.p99_ms:9.3f} ms" + (f"   {reading.broken} broken" if reading.broken else ""),
        flush=True,
    )
