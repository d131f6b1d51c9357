"""A reconnect storm: all devices reconnect at once, Telnyx allows few calls, and every device gets a login."""

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.leases import insert_devices
from tests.support.replicas import ROOT, Replica, replica
from tests.support.sandbox import telnyx_sandbox
from tests.support.tokens import token

MAX_MEGABYTES = 200

DEVICES = int(os.environ.get("STORM_DEVICES", "300"))
"""`make storm` uses ten thousand."""

ALLOWED = int(os.environ.get("STORM_ALLOWED", "50"))
"""Telnyx calls per second."""


PAUSE = timedelta(seconds=0.2)
"""The event loop, and the sandbox in it, has not run for this time."""


async def note_pauses(pauses: list[tuple[datetime, datetime]]) -> None:
    """Record each pause, and the second after it. The calls that arrive during a pause are counted in one second."""
    while True:
        before = datetime.now(UTC)
        await asyncio.sleep(0.02)
        now = datetime.now(UTC)
        if now - before > PAUSE:
            pauses.append((before, now + timedelta(seconds=1)))


class Probe:
    """Polls /livez and the service's memory from a separate process, which the storm does not delay."""

    def __init__(self, service: Replica) -> None:
        told = [str(service.client.base_url), str(service.process.pid)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.liveness_probe", *told],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measurements(self) -> tuple[list[float], list[float]]:
        """Response times in seconds, and memory in megabytes."""
        output, _ = self._process.communicate()
        seen = json.loads(output)
        return seen["seconds"], seen["megabytes"]


async def reconnect(url: str, bearers: list[str]) -> dict[str, Any]:
    """Reconnect all devices at once until each has a login; returns request counts, failures and durations."""
    phones = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.devices", url, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        output, said = await phones.communicate("\n".join(bearers).encode())
    finally:
        if phones.returncode is None:
            phones.kill()
    assert phones.returncode == 0, said.decode()
    seen: dict[str, Any] = json.loads(output)
    return seen


@pytest.mark.timeout(300 + DEVICES / 10)
async def test_devices_that_reconnect_at_once_all_get_logins(sqlite: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))  # inherited by the service
    bearers = [token(f"user-{number}") for number in range(DEVICES)]
    pauses: list[tuple[datetime, datetime]] = []
    async with telnyx_sandbox(requests_a_second=ALLOWED) as telnyx:
        await insert_devices(telnyx, sqlite, DEVICES)
        async with replica(telnyx.url, sqlite, tmp_path, migrate=False) as service:
            url = str(service.client.base_url.join("/v1/telephony-credentials"))
            probe = Probe(service)
            noting = asyncio.create_task(note_pauses(pauses))
            seen = await reconnect(url, bearers)
            noting.cancel()
            asked, broken, took = seen["asked"], seen["broken"], seen["took"]
            seconds, megabytes = probe.measurements()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    entries = [entry for entry in telnyx.sandbox.journal.entries if entry.path.startswith("/v2/")]
    throttled_at = [datetime.fromisoformat(entry.at) for entry in entries if entry.status == 429]
    throttled = sum(not any(start <= at <= end for start, end in pauses) for at in throttled_at)
    livez = sorted(seconds)[int(len(seconds) * 0.99)]
    print(
        f"{DEVICES} devices in {took:.1f} s ({DEVICES / took:.1f} a second of {ALLOWED}); {sum(asked)} requests, at "
        f"most {max(asked)} per device, {broken} without a response; first request "
        f"after {seen['dialling']:.1f} s; {len(entries)} calls, {throttled} throttled; /livez p50 "
        f"{statistics.median(seconds) * 1000:.1f} ms, p99 {livez * 1000:.1f} ms; {max(megabytes):.0f} MB"
    )
    if path := os.environ.get("STORM_FIGURES"):
        figures = {
            "devices": DEVICES,
            "allowed": ALLOWED,
            "asked": sum(asked) / DEVICES,
            "share_of_allowed": DEVICES / took / ALLOWED,
            "throttled_share": throttled / len(entries),
            "livez_p99_ms": livez * 1000,
            "megabytes": max(megabytes),
        }
        Path(path).write_text(json.dumps(figures))
    assert len(asked) == DEVICES, "every device got a login"
    assert telnyx.created() == 0, "every device keeps its SIP identity"
    # A kept-alive connection may be closed while the next request is sent.
    assert broken <= 20 + DEVICES * 0.01, "queued connections are served"
    assert throttled <= len(entries) * 0.01
    assert max(megabytes) < MAX_MEGABYTES
    if DEVICES >= 10_000:
        assert livez < 0.1  # only on an otherwise idle machine
