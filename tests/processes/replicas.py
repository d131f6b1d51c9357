"""The service as real processes: started by its own command, asked over HTTP, killed without warning."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from tests.stage import AUDIENCE, ISSUER, free_port, migrated, pem, token

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 20.0
NONE: Mapping[str, str] = MappingProxyType({})


def environment(**settings: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DIALTONE_", "TELNYX_"))}
    return inherited | {"PYTHONPATH": str(ROOT), "DIALTONE_ENV_FILE": ""} | settings


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


@dataclass
class Replica:
    """One service process."""

    process: subprocess.Popen[bytes]
    client: httpx.AsyncClient
    log: Path

    async def issue(self, device: str = "laptop", user: str = "alice") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(user)}"}
        return await self.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def variables_of(telnyx_url: str, database: str) -> dict[str, str]:
    """The settings of a replica, and of commands beside it, as environment variables."""
    return {
        "TELNYX_API_KEY": DEMO_KEY,
        "TELNYX_CONNECTION_ID": DEMO_CONNECTION,
        "TELNYX_BASE_URL": telnyx_url,
        "TELNYX_CALL_SECONDS": "2",
        "DIALTONE_ISSUER": ISSUER,
        "DIALTONE_AUDIENCE": AUDIENCE,
        "DIALTONE_ISSUER_PEM": pem(),
        "DIALTONE_DATABASE_URL": database,
        "DIALTONE_ENV_FILE": "",
    }


def settings_of(telnyx_url: str, database: str) -> dict[str, str]:
    """The whole environment of such a process."""
    return environment(**variables_of(telnyx_url, database))


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
    """Migrated, started and ready (or, without `is_ready`, at least alive); ended on the way out however it went.

    `before_start` is called in the new process; `log_to` is a descriptor that takes its log in place of a file.
    """
    port = free_port()
    env = settings_of(telnyx_url, database) | {"DIALTONE_PORT": str(port)} | dict(settings)
    if migrate:
        await migrated(env["DIALTONE_DATABASE_URL"])
    log = folder / f"service-{port}.log"
    with log.open("wb") as output:
        stderr = output if log_to is None else log_to
        process = subprocess.Popen(command("serve"), env=env, cwd=folder, stderr=stderr, preexec_fn=before_start)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            await ready(client, process, log, "/readyz" if is_ready else "/livez")
            yield Replica(process, client, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def ready(client: httpx.AsyncClient, process: subprocess.Popen[bytes], log: Path, path: str = "/readyz") -> None:
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
