"""Admission: how many connections are read at a time; the rest are queued, unread."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from app.serving.fast_path import FastPath, FastPathProtocol
from app.serving.outbox import Outbox

MAX_CONNECTIONS = 1_500
"""Connections that are read from at once, beside those that wait for a login in the making. Each costs 5 KB, and 7 with
a request."""


IDLE_SECONDS = 1.0
"""While others wait outside, a connection that nothing more came over for so long is closed."""


FIRST_REQUEST_SECONDS = 8.0
"""The same for one over which nothing ever came: its caller may be as busy as we are, or far away."""


class ConnectionLimiter:
    """Where connections come in: a factory of their first protocol, in place of uvicorn's own.

    Ten thousand phones that reconnect would otherwise each have a parser and a request in memory. The newest are let in
    first: a probe need not wait for a crowd, and a crowd is gone within seconds.
    """

    def __init__(
        self,
        logins_in_flight: Callable[[], int],
        max_connections: int = MAX_CONNECTIONS,
        first_request_seconds: float = FIRST_REQUEST_SECONDS,
    ) -> None:
        """`under_way` tells how many logins are being made: who waits for one does not stand in the way."""
        self._first_request_seconds = first_request_seconds
        self._logins_in_flight = logins_in_flight
        self._max_connections = max_connections
        self._admitted: set[FastPathProtocol] = set()
        self._queue: list[QueuedConnection] = []
        self._is_looking = False
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
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(IDLE_SECONDS / 2, self._close_idle)
        return QueuedConnection(self, config, server_state, app_state)

    @property
    def is_saturated(self) -> bool:
        """Whether somebody waits outside: who is answered meanwhile should leave."""
        return bool(self._queue)

    @property
    def has_room(self) -> bool:
        return len(self._admitted) - self._logins_in_flight() < self._max_connections

    def enqueue(self, doorman: "QueuedConnection") -> None:
        self._queue.append(doorman)

    def connection_closed(self) -> None:
        """Somebody left: who came last comes in."""
        while self._queue and self.has_room:
            self._queue.pop().admit()

    def close(self) -> None:
        """Nobody is let in any more."""
        while self._queue:
            self._queue.pop().reject()

    def _close_idle(self) -> None:
        """As long as anybody is here: whoever has nothing under way and is silent for too long goes."""
        loop = asyncio.get_running_loop()
        for guest in list(self._admitted):
            if guest.is_idle and loop.time() - guest.idle_since > self._idle_timeout(guest):
                guest.transport.close()
        self._is_looking = bool(self._admitted or self._queue)
        if self._is_looking:
            loop.call_later(IDLE_SECONDS / 2, self._close_idle)

    def _idle_timeout(self, guest: FastPathProtocol) -> float:
        """Seconds. While others wait outside, who is slow to say what makes room too."""
        if self.is_saturated:
            return IDLE_SECONDS if guest.has_sent_request else self._first_request_seconds
        return math.inf if guest.is_receiving else guest.timeout_keep_alive


class QueuedConnection(asyncio.Protocol):
    """The first protocol of a connection: lets it in to HTTP, or has it wait, unread."""

    __slots__ = ("_app_state", "_config", "_limiter", "_received", "_server_state", "_transport")

    def __init__(
        self, door: ConnectionLimiter, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._limiter = door
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its ancestry
        if self._limiter.has_room:
            self.admit()
        else:
            # uvloop begins to read when this returns, whatever was said before.
            asyncio.get_running_loop().call_soon(self._pause_reading)
            self._limiter.enqueue(self)

    def data_received(self, data: bytes) -> None:
        """Came in before reading was paused."""
        self._received += data

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone from outside. Its place is skipped when its turn comes."""
        self._transport = None

    def admit(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None or transport.is_closing():
            return
        guest = FastPathProtocol(self._limiter, self._config, self._server_state, self._app_state)
        transport.set_protocol(guest)
        guest.connection_made(transport)
        if self._received:
            guest.data_received(self._received)
        if not transport.is_reading():
            transport.resume_reading()

    def reject(self) -> None:
        if self._transport is not None:
            self._transport.close()
