"""The service as real processes, which tests call over HTTP and kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.vending.ids import new_id
from tests.support.databases import migrate_database
from tests.support.http_server import free_port, http_client
from tests.support.tokens import AUDIENCE, ISSUER, pem, token

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 120.0
STOP_SECONDS = 30.0
NONE: Mapping[str, str] = MappingProxyType({})


def environment(**settings: str) -> dict[str, str]:
    # Without PYTHONUNBUFFERED, Python flushes standard error at its end, which blocks while the log is not read.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DIALTONE_", "TELNYX_", "PYTHONUNBUFFERED"))}
    return inherited | {"PYTHONPATH": str(ROOT), "DIALTONE_ENV_FILE": ""} | settings


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


def take_interrupts() -> None:
    """For a new process. Shells run background jobs with SIGINT ignored, `nohup` ignores SIGHUP, and children inherit
    both.
    """
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


@dataclass
class Replica:
    """One service process."""

    process: subprocess.Popen[bytes]
    client: httpx.AsyncClient
    log: Path

    async def issue(self, device: str = "laptop", user: str = "alice") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(user)}"}
        return await self.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The lines of its JSON log, or those with this event."""
        return [event for event in events_of(self.log) if name in ("", event["event"])]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def events_of(log: Path) -> list[dict[str, Any]]:
    """The lines of a JSON log. An incomplete last line is left out: the process is still writing it."""
    *lines, _ = log.read_text().split("\n")
    return [json.loads(line) for line in lines if line.startswith("{")]


async def read_changes(there: Replica, here: Replica) -> None:
    """Wait until `there` has read what `here` has changed in the ledger so far. It reads changes in their order."""
    device = ("last-change", f"user-{new_id()}")
    lease_id = (await here.issue(*device)).json()["id"]
    former = (await there.issue(*device)).json()["expires_at"]
    headers = {"Authorization": f"Bearer {token(device[1])}"}
    path = f"/v1/telephony-credentials/{lease_id}"
    changed = await here.client.patch(path, headers=headers, json={"ttl_seconds": 600})
    assert changed.status_code == 200, changed.text
    deadline = time.monotonic() + START_SECONDS
    while (await there.issue(*device)).json()["expires_at"] == former:
        assert time.monotonic() < deadline, "the change was not read"
        await asyncio.sleep(0.05)


def replica_variables(telnyx_url: str, database: str) -> dict[str, str]:
    """The settings of a replica and of commands, as environment variables."""
    return {
        "TELNYX_API_KEY": DEMO_KEY,
        "TELNYX_CONNECTION_ID": DEMO_CONNECTION,
        "TELNYX_BASE_URL": telnyx_url,
        "TELNYX_CALL_SECONDS": "5",
        "DIALTONE_ISSUER": ISSUER,
        "DIALTONE_AUDIENCE": AUDIENCE,
        "DIALTONE_ISSUER_PEM": pem(),
        "DIALTONE_DATABASE_URL": database,
        "DIALTONE_WARM_POOL_SIZE": "0",
        "DIALTONE_ENV_FILE": "",
    }


def replica_environment(telnyx_url: str, database: str) -> dict[str, str]:
    """The complete environment of a replica process."""
    return environment(**replica_variables(telnyx_url, database))


@asynccontextmanager
async def replica(
    telnyx_url: str,
    database: str,
    folder: Path,
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    is_ready: bool = True,
    migrate: bool = True,
    before_start: Callable[[], None] | None = None,
    log_to: int | None = None,
) -> AsyncIterator[Replica]:
    """Migrate, start a replica and wait until it is ready (`is_ready=False`: live); stops it at the end.

    `before_start` is called in the new process; `log_to` is a descriptor for its log instead of a file.
    """
    port = free_port()
    env = replica_environment(telnyx_url, database) | {"DIALTONE_PORT": str(port)} | dict(settings)
    if migrate:
        await migrate_database(env["DIALTONE_DATABASE_URL"])
    log = folder / f"service-{port}.log"
    with log.open("wb") as output:
        stderr = output if log_to is None else log_to
        process = subprocess.Popen(command("serve"), env=env, cwd=folder, stderr=stderr, preexec_fn=before_start)
    try:
        async with http_client(f"http://127.0.0.1:{port}", timeout=30) as client:
            await wait_until_ready(client, process, log, "/readyz" if is_ready else "/livez")
            yield Replica(process, client, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def wait_until_ready(
    client: httpx.AsyncClient, process: subprocess.Popen[bytes], log: Path, path: str = "/readyz"
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if (await client.get(path)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(log.read_text())
