"""A service of several worker processes: responses, stop, reload, crashes, metrics and log."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.observability import logging as logs
from tests.support.databases import sqlite_url
from tests.support.generated_requests import PATH, Names, Side, generate_requests, logged
from tests.support.http_server import free_port
from tests.support.outages import readiness
from tests.support.redis_server import redis_server
from tests.support.replicas import ROOT, STOP_SECONDS, Replica, command, replica, replica_environment
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import running_service
from tests.support.shared_logins import KEY
from tests.support.tokens import AUDIENCE, ISSUER, pem, token
from tests.support.waiting import eventually

WORKERS = {"DIALTONE_WORKERS": "2"}

DIFFERENTIAL_REQUESTS = 400
CONNECTIONS = 8
"""Connections in turn, so that both workers get requests."""

UNLIMITED = "1000000/minute"
"""Each worker counts alone, so the limits of two workers and of one service cannot be compared."""


@asynccontextmanager
async def service(telnyx: Telnyx, database: str, folder: Path, **settings: str) -> AsyncIterator[Replica]:
    async with replica(telnyx.url, database, folder, WORKERS | settings) as running:
        await eventually(lambda: len(running.events("worker_ready")) == 2)  # before, the end of one is a failed start
        yield running


def worker_pids(running: Replica) -> list[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


async def request(running: Replica, device: str = "laptop", user: str = "alice") -> int:
    """The status of a login request over a new connection."""
    async with httpx.AsyncClient(base_url=running.client.base_url, trust_env=False, timeout=60) as client:
        headers = {"Authorization": f"Bearer {token(user)}"}
        return (await client.post(PATH, headers=headers, json={"device_id": device})).status_code


async def scrape(running: Replica, accept: str = "") -> str:
    return (await running.client.get("/metrics", headers={"Accept": accept})).text


async def test_both_workers_answer_and_one_scrape_has_the_metrics_of_both(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    async with service(telnyx, sqlite, tmp_path) as running:
        statuses: list[int] = []
        created: dict[str, float] = {}
        async with asyncio.timeout(240):
            # The kernel does not wait for a busy worker: the other one may accept all connections of a moment.
            while created.keys() != {"0", "1"} or sum(created.values()) < len(statuses):
                if created.keys() != {"0", "1"}:
                    first = len(statuses)
                    devices = [f"tab-{number}" for number in range(first, first + 20)]
                    statuses += await asyncio.gather(*(request(running, device) for device in devices))
                await asyncio.sleep(0.6)  # metrics are collected twice a second at most
                text = await scrape(running)
                created = created_logins(text)
        open_metrics = await scrape(running, "application/openmetrics-text; version=1.0.0")

    assert set(statuses) == {201}
    assert sum(created.values()) == len(statuses)
    assert 'dialtone_worker_up{worker="1"} 1.0' in text
    assert text.count("# TYPE dialtone_http_requests_total counter") == 1
    assert open_metrics.endswith("# EOF\n")


def created_logins(metrics: str) -> dict[str, float]:
    """The number of new logins, by worker."""
    found = re.findall(rf'route="{PATH}",status="201",worker="(\d)"}} (\S+)', metrics, re.MULTILINE)
    return {worker: float(value) for worker, value in found}


class NamesWithoutTokens(Names):
    """Leaves out what may differ: a worker that gets no response of Redis in time mints a login token of its own."""

    def plain(self, text: str) -> str:
        text = re.sub(r'"last_used_at":("[^"]*"|null)', "", text)  # written by each worker every 20 seconds
        return super().plain(re.sub(r"eyJ[\w.-]+", "<token>", text))


@pytest.mark.timeout(300)
async def test_two_workers_that_share_logins_answer_generated_requests_as_the_app_alone(
    telnyx: Telnyx, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(1_000_000)  # noqa: S311 - printed when the test fails
    # Another worker learns of a logout within two seconds, so the moment of a DELETE would matter.
    requests = [one for one in generate_requests(seed, DIFFERENTIAL_REQUESTS) if not one.startswith(b"DELETE")]
    limits: dict[str, Any] = {"limit_failures": UNLIMITED, "limit_user": UNLIMITED}
    folders = [tmp_path / name for name in ("workers", "app")]
    for folder in folders:
        folder.mkdir()
    with redis_server(tmp_path) as redis:
        settings = {
            **{f"DIALTONE_{name.upper()}": value for name, value in limits.items()},
            "DIALTONE_CORS_ORIGINS": "https://app.example.com",
            "DIALTONE_LOGIN_CACHE_URL": redis.url,
            "DIALTONE_LOGIN_CACHE_KEYS": KEY,
        }
        async with (
            telnyx_sandbox() as other,
            service(telnyx, sqlite_url(folders[0]), folders[0], **settings) as workers,
            running_service(other, sqlite_url(folders[1]), telnyx_call_seconds=5.0, **limits) as app,
        ):
            logs.configure("info", as_json=True)
            app.limiter.fast_path = None
            names, port = NamesWithoutTokens(), int(workers.client.base_url.port or 0)
            sides = [Side(port, names=names) for _ in range(CONNECTIONS)]
            alone = Side(app.port, names=NamesWithoutTokens())
            capsys.readouterr()
            for number, one in enumerate(requests):
                answers = await sides[number % CONNECTIONS].ask(one), await alone.ask(one)
                assert answers[0] == answers[1], (seed, number, one)
            await asyncio.sleep(0.6)  # metrics are collected twice a second at most
            metrics = await scrape(workers)
            await app.components.audit.close()
            by_app = logged(capsys.readouterr().err.splitlines())
    lines = workers.log.read_text().splitlines()
    by_workers = logged([line for line in lines if '"/metrics"' not in line and '"/readyz"' not in line])

    assert sorted(map(str, by_workers[0])) == sorted(map(str, by_app[0])), seed
    assert allowed(by_workers[1]) == allowed(by_app[1]), seed
    assert set(re.findall(rf'route="{PATH}",status="200",worker="(\d)"}} [1-9]', metrics)) == {"0", "1"}
    assert re.search(r"(?m)^dialtone_shared_login_cache_hits_total\S* [1-9]", metrics)


def allowed(audit: list[tuple[object, ...]]) -> set[tuple[object, ...]]:
    """Event, action, outcome, reason, user and device of events, without rejections.

    Each worker combines repeats, and limits the events of rejections per second.
    """
    return {event[:6] for event in audit if event[0] != "denied"}


async def test_stop_finishes_requests_and_leaves_nothing(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    socket_file = tmp_path / "service.sock"
    hosts = f"127.0.0.1 unix:{socket_file}"
    async with service(telnyx, sqlite, tmp_path, DIALTONE_HOST=hosts, TMPDIR=str(tmp_path)) as running:
        pids = worker_pids(running)
        telnyx.fail("delay", method="POST", path="telephony_credentials$", seconds=1.0)
        login = asyncio.create_task(request(running))
        await eventually(lambda: telnyx.calls("POST"))
        running.process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(running.process.wait, STOP_SECONDS)
        assert await login == 201

    assert status == -signal.SIGTERM
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not socket_file.exists()
    assert list(tmp_path.glob("dialtone-*")) == []


async def test_signal_to_the_process_group_is_one_signal(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    # systemd and terminals signal every process of the group. A second signal to a worker would end its drain.
    async with service(telnyx, sqlite, tmp_path, DIALTONE_DRAIN_SECONDS="60") as running:
        for pid in (running.process.pid, *worker_pids(running)):
            os.kill(pid, signal.SIGTERM)
        await readiness(running.client, 503)
        await asyncio.sleep(1)
        assert await request(running) == 201, "it still listens"
        assert (await running.client.get("/readyz")).status_code == 503
        running.process.terminate()  # a second signal to the service ends the drain
        assert await asyncio.to_thread(running.process.wait, STOP_SECONDS) == -signal.SIGTERM


async def test_reload_reaches_all_workers_and_later_replacements(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    file = tmp_path / "dialtone.toml"
    issuer = f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["{AUDIENCE}"]\npem = """{pem()}"""\n'
    file.write_text(issuer)
    by_file = {"DIALTONE_ISSUER": "", "DIALTONE_AUDIENCE": "", "DIALTONE_ISSUER_PEM": "", "DIALTONE_CONFIG": str(file)}
    async with service(telnyx, sqlite, tmp_path, **by_file) as running:
        assert await request(running) == 201
        file.write_text(issuer.replace(AUDIENCE, "other"))
        running.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(running.events("reloaded")) == 2)
        assert {await request(running) for _ in range(20)} == {401}
        for pid in worker_pids(running):
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(running.events("started")) == 4)
        await eventually(lambda: len(running.events("reloaded")) == 4)
        assert {await request(running) for _ in range(20)} == {401}


async def test_killed_worker_is_replaced(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with service(telnyx, sqlite, tmp_path) as running:
        victim = worker_pids(running)[0]
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: running.events("worker_ended"))  # until then, it may accept connections
        statuses = {await request(running) for _ in range(20)}
        await eventually(lambda: len(running.events("worker_ready")) == 3)
        [ended] = running.events("worker_ended")
        text = await scrape(running)

    assert statuses <= {200, 201}
    assert (ended["pid"], ended["exit_code"]) == (victim, -signal.SIGKILL)
    assert text.count("dialtone_worker_up{") == 2


async def test_workers_end_when_the_supervisor_is_killed(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with service(telnyx, sqlite, tmp_path) as running:
        pids = worker_pids(running)
        running.kill()
        await eventually(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_address_in_use_is_reported_once(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with service(telnyx, sqlite, tmp_path) as running:
        env = replica_environment(telnyx.url, sqlite) | WORKERS | {"DIALTONE_PORT": str(running.client.base_url.port)}
        second = await asyncio.to_thread(
            subprocess.run, command("serve"), env=env, cwd=tmp_path, capture_output=True, timeout=60, check=False
        )

    assert second.returncode == 1
    assert second.stderr.count(b"cannot_listen") == 1


FAILS = """
import os, sys
from pathlib import Path
from app.serving.workers import Supervisor
def run(link):
    if link.number == 1:
        sys.exit(3)
    import time; time.sleep(60)
Supervisor(2, run, [], 0.0).run()
"""


async def test_worker_that_cannot_start_ends_the_service(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FAILS, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 1
    assert b"worker_ended" in output
    assert b"exit_code=3" in output


async def test_lines_of_workers_do_not_mix_in_a_pipe(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    received = bytearray()

    def read() -> None:
        while block := os.read(reading, 65536):
            received.extend(block)
            time.sleep(0.001)

    async with replica(telnyx.url, sqlite, tmp_path, WORKERS, log_to=writing) as running:
        os.close(writing)
        reader = asyncio.get_running_loop().run_in_executor(None, read)
        limits = httpx.Limits(max_keepalive_connections=0)
        url = running.client.base_url
        async with httpx.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=60) as client:
            for _ in range(10):
                await asyncio.gather(*(client.get(f"/{'long' * 500}/{number}") for number in range(40)))
    await reader
    os.close(reading)

    lines = received.decode().splitlines()
    assert sum(json.loads(line)["event"] == "request" for line in lines) >= 400


@pytest.mark.parametrize("workers", ["0", "65", "many"])
async def test_invalid_number_of_workers_is_a_usage_error(workers: str, tmp_path: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        command("serve", "--workers", workers),
        env=os.environ | {"PYTHONPATH": str(ROOT), "DIALTONE_PORT": str(free_port())},
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert b"--workers" in done.stderr
