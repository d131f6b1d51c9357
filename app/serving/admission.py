"""Admission: limits the connections that are read at a time. Further connections are queued and not read."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from app.serving.fast_path import FastPath, FastPathProtocol
from app.serving.outbox import Outbox

MAX_CONNECTIONS = 1_500
"""Connections that are read at a time, not counting those that wait for a login being created. Each costs 5 KB, and 7
KB with a request."""

IDLE_SECONDS = 1.0
"""While connections are queued, an admitted connection is closed after this time without traffic."""

FIRST_REQUEST_SECONDS = 8.0
"""The same limit for a connection that has not sent a request yet, because its client may be slow or far away."""


class ConnectionLimiter:
    """Limits the connections that are read at a time. A protocol factory in place of uvicorn's protocol class.

    Without it, ten thousand reconnecting devices would each have a parser and a request in memory. The newest
    connection is admitted first, so that a health check does not wait behind thousands of devices.
    """

    def __init__(
        self,
        logins_in_flight: Callable[[], int],
        max_connections: int = MAX_CONNECTIONS,
        first_request_seconds: float = FIRST_REQUEST_SECONDS,
    ) -> None:
        """`logins_in_flight`: logins being created. Their connections only wait, so they do not count."""
        self._first_request_seconds = first_request_seconds
        self._logins_in_flight = logins_in_flight
        self._max_connections = max_connections
        self._admitted: set[FastPathProtocol] = set()
        self._queue: list[QueuedConnection] = []
        self._is_checking = False
        self.outbox = Outbox()
        self.fast_path: FastPath | None = None

    def __call__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        self._admitted = cast("set[FastPathProtocol]", server_state.connections)
        if not self._is_checking:
            self._is_checking = True
            asyncio.get_running_loop().call_later(IDLE_SECONDS / 2, self._close_idle)
        return QueuedConnection(self, config, server_state, app_state)

    @property
    def is_saturated(self) -> bool:
        """True if connections are queued. Admitted connections are then closed after their response."""
        return bool(self._queue)

    @property
    def has_room(self) -> bool:
        return len(self._admitted) - self._logins_in_flight() < self._max_connections

    def enqueue(self, connection: "QueuedConnection") -> None:
        self._queue.append(connection)

    def connection_closed(self) -> None:
        """Admit queued connections up to the limit, newest first."""
        while self._queue and self.has_room:
            self._queue.pop().admit()

    def close(self) -> None:
        """Reject all queued connections."""
        while self._queue:
            self._queue.pop().reject()

    def _close_idle(self) -> None:
        """Close admitted connections that were idle for too long. Runs while there are connections."""
        loop = asyncio.get_running_loop()
        for protocol in list(self._admitted):
            if protocol.is_idle and loop.time() - protocol.idle_since > self._idle_timeout(protocol):
                protocol.transport.close()
        self._is_checking = bool(self._admitted or self._queue)
        if self._is_checking:
            loop.call_later(IDLE_SECONDS / 2, self._close_idle)

    def _idle_timeout(self, protocol: FastPathProtocol) -> float:
        """Seconds that the connection may be silent. Less while others are queued."""
        if self.is_saturated:
            return IDLE_SECONDS if protocol.has_sent_request else self._first_request_seconds
        return math.inf if protocol.is_receiving else protocol.timeout_keep_alive


class QueuedConnection(asyncio.Protocol):
    """The first protocol of a connection: hands it over to HTTP, or keeps it queued, unread."""

    __slots__ = ("_app_state", "_config", "_limiter", "_received", "_server_state", "_transport")

    def __init__(
        self, limiter: ConnectionLimiter, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._limiter = limiter
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transport has the methods, but not the base class
        if self._limiter.has_room:
            self.admit()
        else:
            # uvloop starts to read when this method returns, even if reading was paused before.
            asyncio.get_running_loop().call_soon(self._pause_reading)
            self._limiter.enqueue(self)

    def data_received(self, data: bytes) -> None:
        """Bytes that arrive before reading is paused."""
        self._received += data

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed while queued. `admit` skips it."""
        self._transport = None

    def admit(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None or transport.is_closing():
            return
        protocol = FastPathProtocol(self._limiter, self._config, self._server_state, self._app_state)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._received:
            protocol.data_received(self._received)
        if not transport.is_reading():
            transport.resume_reading()

    def reject(self) -> None:
        if self._transport is not None:
            self._transport.close()
