"""Servers under measurement. Each is a separate process on the first core, unless a row says otherwise. The load
generator and the stub use the other cores."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))
ALL_CORES, SERVER_CORES, LOAD_CORES = set(CORES), {CORES[0]}, set(CORES[1:]) or {CORES[0]}
START_SECONDS = 120.0
NONE: Mapping[str, str] = MappingProxyType({})

ISSUER, AUDIENCE = "https://id.example.com", "dialtone"
NO_LIMIT = "1000000000/minute"
COMMAND = [sys.executable, "-m", "app.cli"]


SIGNING_KEY = "BENCHMARK_SIGNING_KEY"
"""Environment variable with the PEM of the key, in a process that another one of this run started."""


@cache
def signing_key() -> rsa.RSAPrivateKey:
    """The key of the identity provider in this run."""
    if pem := os.environ.get(SIGNING_KEY):
        return cast("rsa.RSAPrivateKey", serialization.load_pem_private_key(pem.encode(), None))
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem() -> str:
    """The value of SIGNING_KEY for a process of this run."""
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return signing_key().private_bytes(serialization.Encoding.PEM, form, none).decode()


def public_pem() -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return signing_key().public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    url: str
    pid: int
    started_seconds: float
    """Time from the start of the process to its first successful response."""
    log: Path = Path(os.devnull)

    @property
    def megabytes(self) -> float:
        """Resident memory. That of several workers is added, with the pages that they share counted for each."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the server and its workers since their start."""
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split() for pid in self._pids()]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> float:
        """The sum of a metric's series. Raises KeyError if there is no such metric."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        if not any(line.startswith(f"# TYPE {name} ") for line in lines):
            raise KeyError(name)
        return sum(float(line.split()[1]) for line in lines if re.match(rf"{name}[{{ ]", line))

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]


def environment(telnyx: str = "http://127.0.0.1:9/v2") -> dict[str, str]:
    """The environment of Dialtone and the peers, without this shell's settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DIALTONE_", "TELNYX_"))}
    return inherited | {
        "PYTHONPATH": str(ROOT),
        "TELNYX_API_KEY": DEMO_KEY,
        "TELNYX_CONNECTION_ID": DEMO_CONNECTION,
        "TELNYX_BASE_URL": telnyx,
        "DIALTONE_ISSUER": ISSUER,
        "DIALTONE_AUDIENCE": AUDIENCE,
        "DIALTONE_ISSUER_PEM": public_pem(),
        "DIALTONE_WARM_POOL_SIZE": "0",
        "DIALTONE_ENV_FILE": "",
    }


@contextmanager
def asgi(name: str, app: str, telnyx: str = "http://127.0.0.1:9/v2", **more: str) -> Iterator[Server]:
    """Run an ASGI app of this folder with uvicorn: one worker, no access log."""
    port = free_port()
    options = ["--port", str(port), "--log-level", "critical", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", app, *options]
    with _process(name, command, environment(telnyx) | more, port, "/docs" if "peers" in app else "/") as server:
        yield server


@contextmanager
def node(name: str, script: str) -> Iterator[Server]:
    """Run a peer in Node."""
    port = free_port()
    env = environment() | {"PORT": str(port), "NODE_ENV": "production"}
    with _process(name, ["node", str(HERE / "peers" / script)], env, port, "/") as server:
        yield server


@contextmanager
def stub(delay_seconds: float) -> Iterator[Server]:
    """Run the Telnyx stub on the cores of the load generator."""
    port = free_port()
    env = environment() | {"STUB_SECONDS": str(delay_seconds)}
    options = ["--port", str(port), "--log-level", "critical", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.stub:app", *options]
    with _process("stub", command, env, port, "/calls", LOAD_CORES) as server:
        yield server


@contextmanager
def settings(telnyx: str, database: str | None = None, more: Mapping[str, str] = NONE) -> Iterator[dict[str, str]]:
    """The environment of the service with all functions enabled, and a migrated ledger."""
    with tempfile.TemporaryDirectory(prefix="dialtone-bench-") as folder:
        env = environment(telnyx) | {
            "DIALTONE_DATABASE_URL": database or f"sqlite:///{folder}/ledger.db",
            "DIALTONE_LOG_FORMAT": "json",
            "DIALTONE_CORS_ORIGINS": "https://app.example.com",
            # Requests are counted as usual, with a limit that a load generator does not reach.
            "DIALTONE_LIMIT_USER": NO_LIMIT,
            "DIALTONE_LIMIT_FAILURES": NO_LIMIT,
            **more,
        }
        subprocess.run([*COMMAND, "migrate"], env=env, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        yield env


@contextmanager
def dialtone(
    telnyx: str,
    database: str | None = None,
    *,
    name: str = "Dialtone",
    cores: set[int] = SERVER_CORES,
    more: Mapping[str, str] = NONE,
) -> Iterator[Server]:
    """Run the service with `dialtone serve`, and wait until it is ready."""
    port = free_port()
    with (
        settings(telnyx, database, {"DIALTONE_PORT": str(port), **more}) as env,
        _process(name, [*COMMAND, "serve"], env, port, "/readyz", cores) as server,
    ):
        yield server


@contextmanager
def _process(
    name: str,
    command: list[str],
    env: Mapping[str, str],
    port: int,
    path: str,
    cores: set[int] = SERVER_CORES,
) -> Iterator[Server]:
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, preexec_fn=partial(pin, cores))
        try:
            _wait(process, lambda: _answers(url + path), name, Path(log.name))
            yield Server(name, url, process.pid, time.monotonic() - began, Path(log.name))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-1000:]
            raise RuntimeError(f"{name} did not start (status {process.poll()}): {end}")
        time.sleep(0.01)


def _answers(url: str) -> bool:
    """Whether the server responds with a status below 500."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def pin(cores: set[int]) -> None:
    """Restrict this process to the cores."""
    os.sched_setaffinity(0, cores)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
