"""The server process: uvicorn with a graceful stop on SIGTERM and a configuration reload on SIGHUP."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from app.api.readiness import Readiness
from app.observability import logging as logs
from app.serving.admission import MAX_CONNECTIONS, ConnectionLimiter
from app.serving.listening import BACKLOG, ListeningSockets
from app.serving.outbox import CLOSE
from app.serving.workers import WorkerLink

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

RESERVED_DESCRIPTORS = 256
"""Descriptors that client connections leave free for the ledger, calls to Telnyx and signing keys, and the log."""

FEW_CONNECTIONS = 4_000
"""A connection limit below this is logged. It is enough for one process of most deployments."""

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
    """How the server serves and stops."""

    trusted_proxies: str
    drain_seconds: float
    """Time between "not ready" and the end of listening, so that load balancers notice."""
    keep_alive_seconds: int
    """How long an idle connection stays open. Longer than the proxy's, which must be the one that closes."""
    shutdown_timeout_seconds: int
    """Time for requests in flight, after the listeners are closed."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An app, where it is served, and the limits of its connections."""

    app: ASGIApp
    limiter: ConnectionLimiter
    sockets: ListeningSockets
    root_path: str = ""


def run(
    listeners: Sequence[Listener],
    readiness: Readiness,
    options: ServerOptions,
    reload: Reload,
    worker: WorkerLink | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor stops this worker. The first app has the lifespan."""
    with logs.non_blocking(None if worker is None else worker.log_lock):
        _limit_connections(*(listener.limiter for listener in listeners))
        opened = [OpenListener(_config(each, options), each.limiter, each.sockets) for each in listeners]
        GracefulServer(opened, readiness, options.drain_seconds, ConfigReloader(reload), worker).run()


def _config(listener: Listener, options: ServerOptions) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        root_path=listener.root_path,
        http=listener.limiter,  # type: ignore[arg-type]  # uvicorn calls it to create a protocol, as it does a class
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=options.trusted_proxies,
        timeout_keep_alive=options.keep_alive_seconds,
        timeout_graceful_shutdown=options.shutdown_timeout_seconds,
    )


def _limit_connections(public: ConnectionLimiter, *others: ConnectionLimiter) -> None:
    """Divide the connections that the process may have: the other listeners keep theirs when the public one is full."""
    limit = _connection_limit()
    for other in others:
        other.limit_connections(max(limit // 8, 1))
        limit -= other.max_connections
    public.limit_connections(limit)


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


@dataclass(frozen=True, slots=True)
class OpenListener:
    """A listener with its sockets."""

    config: uvicorn.Config
    limiter: ConnectionLimiter
    sockets: ListeningSockets

    async def serve(self, state: ServerState, app_state: dict[str, Any]) -> list[asyncio.Server]:
        """Accept connections. Returns a server for each descriptor."""
        if not self.config.loaded:
            self.config.load()
        loop = asyncio.get_running_loop()
        create = partial(self.limiter, self.config, state, app_state)
        return [await loop.create_server(create, sock=each, backlog=BACKLOG) for each in self.sockets.descriptors]


class GracefulServer(uvicorn.Server):
    """uvicorn closes its listener at the first signal. This server first reports "not ready" for `drain_seconds`.

    Meanwhile, each response closes its connection, so that clients connect to another replica.
    """

    def __init__(
        self,
        listeners: Sequence[OpenListener],
        readiness: Readiness,
        drain_seconds: float,
        reloader: "ConfigReloader",
        worker: WorkerLink | None = None,
    ) -> None:
        """The first listener's app has the lifespan."""
        super().__init__(listeners[0].config)
        self._listeners = listeners
        self._readiness = readiness
        self._drain_seconds = drain_seconds
        self._reloader = reloader
        self._worker = worker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        for listener in self._listeners:
            self.servers += await listener.serve(self.server_state, self.lifespan.state)
        # Objects that live as long as the process are excluded from garbage collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        if hasattr(signal, "SIGHUP") and self._worker is None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloader.start)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        if self._worker is not None:
            self._worker.attach(partial(self.handle_exit, frame=None), self._reloader.start)
            if self._worker.is_replacement:  # the settings may have changed since the supervisor read them
                self._reloader.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self._listeners:
            listener.sockets.remove_files()
        await super().shutdown([each for listener in self._listeners for each in listener.sockets.descriptors])
        # uvicorn raises the signal again now, which ends the process at once.
        await logs.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._worker is not None and frame is not None:
            return  # a signal to the whole process group, which the supervisor passes on
        is_second = self._readiness.is_draining
        self._readiness.is_draining = True
        if is_second or not self._drain_seconds:
            super().handle_exit(sig, frame)
        else:
            self.config.encoded_headers.append(CLOSE)  # every response has them, within a second
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
