"""Hostile clients attack one process: other clients are served, memory stays bounded, and the process recovers."""

import asyncio
import json
import os
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fresh_connection_probe import LIVEZ, ask, memory
from tests.support.replicas import ROOT, Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token

CONNECTIONS = int(os.environ.get("HOSTILE_CONNECTIONS", "300"))
"""Set HOSTILE_CONNECTIONS=2000 for the long form (`make faults`), which prints its measurements."""

IS_LONG = CONNECTIONS > 300
SECONDS = 12.0 if IS_LONG else 1.5
"""Duration of one attack. The long form exceeds the time that a request has to arrive."""

REQUESTS = 1_000_000 if IS_LONG else 100_000
"""Requests that are pipelined over one connection."""

BUSY_FACTOR = 1 if IS_LONG else 4
"""The short form runs beside other tests, which share the processors with its clients and its server."""

MAX_LIVEZ_SECONDS = 0.25 * BUSY_FACTOR
"""99 of 100 health checks. The limits of the long form are for an otherwise idle machine with two cores."""

MAX_LOGIN_SECONDS = 1.0 * BUSY_FACTOR
MAX_GROWTH_MEGABYTES = 20.0

GROWTH_MEGABYTES = {"idle connections": 40.0, "whole bodies of 150 KB without a token": 40.0}
"""2,000 idle connections have about 10 KB each. Whole bodies arrive with 800 MB a second, and their size is limited
only every 10 ms."""

EXPENSIVE = {"metrics from many connections"}
"""The clients reconnect as fast as they are rejected, 4,000 times a second."""

STREAM_ATTACKS = [
    "pipelined requests, nothing read",
    "pipelined requests, read slowly",
    "pipelined requests, all read",
    "pipelined cached logins, nothing read",
    "pipelined cached logins, all read",
    "one header value of 100 MB",
    "endless headers",
    "endless empty lines",
    "endless chunk extension",
    "endless tiny chunks",
    "endless body",
]
CONNECTION_ATTACKS = [
    "silent connections",
    "dripped heads",
    "half bodies of 30 KB with a token",
    "half bodies of 30 KB without a token",
    "half bodies of 10 bytes with a token",
    "half bodies of 10 bytes without a token",
    "half chunked bodies with a token",
    "expected bodies with a token",
    "expected bodies without a token",
    "too long bodies with a token",
    "too long bodies without a token",
    "whole bodies of 150 KB without a token",
    "idle connections",
    "unread responses",
    "unread pipelined responses",
    "metrics from many connections",
]


@dataclass
class Measured:
    """Measurements of another client during an attack."""

    livez: list[tuple[float, int]]
    logins: list[tuple[float, int]]
    megabytes: list[float]

    def percentile(self, share: float) -> float:
        seconds = sorted(took for took, _ in self.livez)
        return seconds[int((len(seconds) - 1) * share)]


def port_of(service: Replica) -> int:
    port = service.client.base_url.port
    assert port is not None
    return port


async def start(module: str, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )


async def attack(service: Replica, name: str, count: int, seconds: float) -> Measured:
    """Run an attack, and measure the service meanwhile."""
    port, pid = port_of(service), service.process.pid
    bearer = "" if "without" in name else token("mallory")
    probe = await start("tests.support.fresh_connection_probe", str(port), str(pid))
    assert probe.stdin is not None
    assert probe.stdout is not None
    probe.stdin.write(("\n".join(token(f"{name} {number}") for number in range(60)) + "\n\n").encode())
    await probe.stdout.readline()  # the attack is short, and a process may take seconds to start
    clients = await start("tests.support.hostile_clients", str(port), name, str(count), str(seconds), bearer)
    output, _ = await clients.communicate()
    measured = Measured(**json.loads((await probe.communicate(b""))[0]))
    if IS_LONG:
        sent = json.loads(output)
        print(
            f"{name}: {sent['bytes'] / 1e6:.1f} MB over {sent['connections']} connections, {sent['closed']} closed, "
            f"{sent['received'] / 1e6:.1f} MB received; /livez p50 {measured.percentile(0.5) * 1e3:.1f} ms, "
            f"p99 {measured.percentile(0.99) * 1e3:.1f} ms; slowest login "
            f"{max((took for took, _ in measured.logins), default=0) * 1e3:.0f} ms of {len(measured.logins)}; "
            f"{measured.megabytes[0]:.0f} to {max(measured.megabytes):.0f} MB"
        )
    return measured


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Replica]:
    async with replica(telnyx.url, sqlite, tmp_path) as service:
        await service.issue(user="mallory")
        for _ in range(100):
            await service.client.get("/livez")
        for number in range(20):
            await service.issue(user=f"warm {number}")
        yield service


SHORT_FORM = [
    "pipelined requests, all read",
    "pipelined cached logins, all read",
    "endless empty lines",
    "half bodies of 10 bytes with a token",
    "expected bodies with a token",
    "unread responses",
]


@pytest.mark.parametrize("name", STREAM_ATTACKS + CONNECTION_ATTACKS if IS_LONG else SHORT_FORM)
async def test_attack_does_not_affect_other_clients(service: Replica, name: str) -> None:
    before = memory(str(service.process.pid))

    count = REQUESTS if name in STREAM_ATTACKS else CONNECTIONS
    measured = await attack(service, name, count, SECONDS)
    after = await asyncio.to_thread(ask, port_of(service), LIVEZ)

    assert {status for _, status in measured.livez} == {200}
    assert {status for _, status in measured.logins} <= {200, 201}
    assert measured.percentile(0.99) <= MAX_LIVEZ_SECONDS * (4 if name in EXPENSIVE else 1)
    assert max(took for took, _ in measured.logins) <= MAX_LOGIN_SECONDS * (2 if name in EXPENSIVE else 1)
    growth = max(measured.megabytes) - before
    assert growth < GROWTH_MEGABYTES.get(name, MAX_GROWTH_MEGABYTES)
    assert after[1] == 200


async def test_more_connections_than_open_files_are_allowed(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))

    async with replica(telnyx.url, sqlite, tmp_path, before_start=limit_files) as service:
        await service.issue()
        attacking = asyncio.create_task(attack(service, "idle connections", 1_000, 6.0))
        descriptors = 0
        while not attacking.done():
            descriptors = max(descriptors, len(os.listdir(f"/proc/{service.process.pid}/fd")))
            await asyncio.sleep(0.1)
        measured = await attacking

        assert {status for _, status in measured.livez} == {200}
        assert {status for _, status in measured.logins} <= {200, 201}
        assert 256 <= descriptors < 400
        assert "few_connections" in service.log.read_text()
