"""The server process: uvicorn with a graceful stop on SIGTERM and a configuration reload on SIGHUP."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp

from app.api.readiness import Readiness
from app.observability import logging as logs
from app.serving.admission import MAX_CONNECTIONS, ConnectionLimiter

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

RESERVED_DESCRIPTORS = 256
"""Descriptors that client connections leave free for the ledger, calls to Telnyx and signing keys, and the log."""

FEW_CONNECTIONS = 4_000
"""A connection limit below this is logged. It is enough for one process of most deployments."""

BACKLOG = 2048
"""New connections that the kernel holds until they are accepted."""

ACCEPTS_PER_ROUND = 32
"""Connections that are accepted in one iteration of the event loop. With one, a fresh connection would wait for as many
iterations as there are connections before it. Each descriptor takes 3 us of each new connection."""

SWITCH_INTERVAL_SECONDS = 0.0001
"""How long a thread keeps the interpreter while others wait for it. A login that reaches the ledger waits about a
hundred times. With Python's default of 5 ms, or with 0.5 ms, a busy event loop delays such a login by a second."""

GC_THRESHOLD = 10_000
"""Allocations between two collections of the youngest generation. Requests in flight contain no cycles, but with
Python's default of 700 the collector scans them repeatedly, which takes a seventh of the CPU time."""

Reload = Callable[[], Awaitable[None]]
"""Reads the configuration again and applies it. Logs its own failures."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server listens and stops."""

    host: str
    port: int
    root_path: str
    trusted_proxies: str
    drain_seconds: float
    """Time between "not ready" and the end of listening, so that load balancers notice."""
    keep_alive_seconds: int
    """How long an idle connection stays open. Longer than the proxy's, which must be the one that closes."""
    shutdown_timeout_seconds: int
    """Time for requests in flight, after the listener is closed."""


def run(app: ASGIApp, limiter: ConnectionLimiter, readiness: Readiness, options: ServerOptions, reload: Reload) -> None:
    """Serve until SIGTERM or SIGINT. Raises SystemExit if the port is taken."""
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        root_path=options.root_path,
        http=limiter,  # type: ignore[arg-type]  # uvicorn calls it to create a protocol, as it does a class
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=options.trusted_proxies,
        timeout_keep_alive=options.keep_alive_seconds,
        timeout_graceful_shutdown=options.shutdown_timeout_seconds,
    )
    with logs.non_blocking():
        sockets = listening_sockets(options.host, options.port)
        limiter.limit_connections(_connection_limit())
        GracefulServer(config, readiness, options.drain_seconds, ConfigReloader(reload)).run(sockets)


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of the host. Raises SystemExit if none is available.

    Each socket has ACCEPTS_PER_ROUND descriptors, because libuv accepts one connection per descriptor and iteration.
    """
    log = structlog.get_logger("dialtone")
    listening = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        log.warning("host_not_found", host=host)
        raise SystemExit(1) from None
    for family, _, _, _, address in found:
        try:
            listening.append(socket.create_server(address, family=family, backlog=BACKLOG))
        except OSError as error:
            log.warning("cannot_listen", address=address[0], port=port, reason=os.strerror(error.errno or 0))
    if not listening:
        raise SystemExit(1)
    log.info("listening", addresses=[each.getsockname()[0] for each in listening], port=listening[0].getsockname()[1])
    return [each for one in listening for each in (one, *(one.dup() for _ in range(ACCEPTS_PER_ROUND - 1)))]


def _connection_limit() -> int:
    """The connections that the process may have. Raises the soft limit on open files as far as that is allowed."""
    if resource is None:
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_CONNECTIONS
    limit = max(soft - RESERVED_DESCRIPTORS, soft // 2)
    if limit < FEW_CONNECTIONS:
        structlog.get_logger("dialtone").warning("few_connections", limit=limit, hint="Raise the limit on open files.")
    return limit


class GracefulServer(uvicorn.Server):
    """uvicorn closes its listener at the first signal. This server first reports "not ready" for `drain_seconds`."""

    def __init__(
        self,
        config: uvicorn.Config,
        readiness: Readiness,
        drain_seconds: float,
        reloader: "ConfigReloader",
    ) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._drain_seconds = drain_seconds
        self._reloader = reloader

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Objects that live as long as the process are excluded from garbage collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloader.start)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # uvicorn raises the signal again now, which ends the process at once.
        await logs.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_second = self._readiness.is_draining
        self._readiness.is_draining = True
        if is_second or not self._drain_seconds:
            super().handle_exit(sig, frame)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(self._drain_seconds, super().handle_exit, sig, frame)


class ConfigReloader:
    """Runs reloads one after the other, for a signal handler."""

    def __init__(self, reload: Reload) -> None:
        self._reload = reload
        self._last: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Schedule a reload. Two signals in a row cause two reloads, the second after the first."""
        self._last = asyncio.get_running_loop().create_task(self._run(self._last))

    async def _run(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        try:
            await self._reload()
        except Exception:
            structlog.get_logger("dialtone").exception("reload_failed")
