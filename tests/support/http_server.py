"""An ASGI app behind a real socket on the loopback interface."""

import asyncio
import itertools
import math
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

PORTS_PER_WORKER = 1_000

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST_PORT = 15_000 + _WORKER % 16 * PORTS_PER_WORKER
_PORTS = itertools.cycle(random.sample(range(_FIRST_PORT, _FIRST_PORT + PORTS_PER_WORKER), PORTS_PER_WORKER))
"""Below the ephemeral range. Parallel test workers have different ports, and none is chosen twice in a row: a process
takes seconds to listen on the port that was chosen for it."""


def free_port() -> int:
    """A free port for a process that is about to start."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def refusing_port() -> int:
    """A port that refuses connections until the process ends. It is bound, so no other test can listen on it."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    _bound.append(bound)
    port: int = bound.getsockname()[1]
    return port


_bound: list[socket.socket] = []
"""The sockets of `refusing_port`, which stay open."""


def http_client(base_url: str, timeout: float = 30) -> httpx.AsyncClient:
    """A client for HTTP only. By default, httpx reads all CA certificates for each client, which takes 30 ms."""
    no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, verify=no_certificates)


class DeferredApp:
    """An app that is set after its server has started, because its configuration needs the server's URL."""

    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            await self.app(scope, receive, send)


KEEP_ALIVE_SECONDS = 75
"""How long a server keeps an idle connection: longer than a busy machine delays the next request of a test, and longer
than tests wait for the end of a connection that the server has to close for another reason."""


class FastStoppingServer(uvicorn.Server):
    """A uvicorn server that stops within milliseconds; uvicorn checks for a stop every 100 ms."""

    async def main_loop(self) -> None:
        ticked_at = -math.inf
        while not self.should_exit:
            if time.monotonic() - ticked_at >= 1:  # a tick renews the Date header, by which doctor checks the clock
                ticked_at = time.monotonic()
                await self.on_tick(0)
            await asyncio.sleep(0.005)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            _, hanging = await asyncio.wait(self.server_state.tasks, timeout=1)
            for request in hanging:
                request.cancel()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serve(
    app: ASGIApp, http: Any = "httptools", keep_alive_seconds: int = KEEP_ALIVE_SECONDS, *, has_lifespan: bool = True
) -> AsyncIterator[str]:
    """Serve the app on a loopback socket; yields the base URL."""
    # asyncio disables Nagle's algorithm only for sockets that were created with IPPROTO_TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=http,
        lifespan="auto" if has_lifespan else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=1,
    )
    server = FastStoppingServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.001)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()
