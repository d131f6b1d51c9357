"""Devices with a cached login that repeat the same bytes, compared with floors and peers in alternating runs."""

import json
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import load, processes
from benchmarks.goals import FASTAPI, SAME, Line, Missing, at_least, at_most, reached
from benchmarks.load import Load, Request
from benchmarks.processes import Server
from benchmarks.tokens import issue
from benchmarks.turns import in_turns, show
from benchmarks.warm import warm

DEVICES = 1000
NAIVE_SECONDS = 5.0
HELLO = [Request("/")]
ONLY_REPEATED = "only repeated bytes reach this"


def measure(rounds: int, seconds: float) -> list[Line]:
    """Rows of the goals table; prints every reading."""
    wanted = [issue(f"user-{number}") for number in range(DEVICES)]
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.03))
        telnyx = f"{stub.url}/v2"
        dialtone = stack.enter_context(processes.dialtone(telnyx))
        fastapi = stack.enter_context(processes.asgi("FastAPI, empty route", "benchmarks.floors:fastapi"))
        contest: list[tuple[Server, Load]] = [(fastapi, HELLO), (dialtone, wanted)]
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
        times = ours.requests_a_second / hello.requests_a_second
        details = f"{ours.compared_with(hello)}; {DEVICES:,} devices, no browser's head; {ONLY_REPEATED}"
        lines: list[Line] = [
            reached(f"{SAME}: against {FASTAPI}", times, details),
            reached(f"{SAME}: p99 at 64 connections", ours.p99_ms, ONLY_REPEATED),
        ]
        if load.installed():
            node = seen["Fastify + jose"]
            name = f"{SAME}: against Fastify, verifying"
            lines.append(
                at_least(
                    name,
                    1.9,
                    ours.requests_a_second / node.requests_a_second,
                    details=f"Fastify {node.requests_a_second:,.0f}, "
                    f"Express {seen['Express + jose'].requests_a_second:,.0f} requests/s; {ONLY_REPEATED}",
                )
            )
        else:
            lines.append(Missing(f"{SAME}: against Fastify, verifying", "no Node, or `npm ci` not done"))
        lines += _alone(dialtone, wanted, rounds)
        naive = stack.enter_context(processes.asgi("naive", "benchmarks.peers.naive:app", telnyx))
        poor = load.median([load.send(naive.url, wanted, NAIVE_SECONDS) for _ in range(rounds)])
        show("naive FastAPI", poor)
        lines.append(
            at_least(
                f"{SAME}: against the naive peer",
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
