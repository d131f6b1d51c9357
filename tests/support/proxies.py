"""Reverse proxies as processes, and clients with any loopback address."""

import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

PROXIED = {
    "DIALTONE_MAX_TOKEN_BYTES": "12288",
    "DIALTONE_CORS_ORIGINS": "https://app.example.com",
    "DIALTONE_TRUSTED_PROXIES": "127.0.0.1,unix",
    "DIALTONE_LIMIT_FAILURES": "5/hour",
    "DIALTONE_LOG_FORMAT": "json",
    "DIALTONE_REQUEST_TIMEOUT_SECONDS": "40",
    "TELNYX_CALL_SECONDS": "20",
}
"""Settings of a service behind a proxy. It waits for the sandbox, which shares a process with the clients of a test."""

START_SECONDS = 30.0


@contextmanager
def running_proxy(
    command: list[str], port: int, folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a proxy until the end of the context. Waits until it accepts connections."""
    log = folder / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)
    try:
        _wait_until_open(process, port, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@asynccontextmanager
async def client_from(address: str, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose connections come from this loopback address."""
    transport = httpx.AsyncHTTPTransport(local_address=address, verify=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client
