"""Admission: how many connections are read at a time; the rest are queued, unread."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from app.serving.fast_path import Guest, Shortcut
from app.serving.outbox import Outbox

MOST_INSIDE = 1_500
"""Connections that are read from at once, beside those that wait for a login in the making. Each costs 5 KB, and 7 with
a request."""


IDLE_SECONDS = 1.0
"""While others wait outside, a connection that nothing more came over for so long is closed."""


FIRST_WORD_SECONDS = 8.0
"""The same for one over which nothing ever came: its caller may be as busy as we are, or far away."""


class Door:
    """Where connections come in: a factory of their first protocol, in place of uvicorn's own.

    Ten thousand phones that reconnect would otherwise each have a parser and a request in memory. The newest are let in
    first: a probe need not wait for a crowd, and a crowd is gone within seconds.
    """

    def __init__(
        self,
        under_way: Callable[[], int],
        most_inside: int = MOST_INSIDE,
        first_word_seconds: float = FIRST_WORD_SECONDS,
    ) -> None:
        """`under_way` tells how many logins are being made: who waits for one does not stand in the way."""
        self._first_word_seconds = first_word_seconds
        self._under_way = under_way
        self._most_inside = most_inside
        self._inside: set[Guest] = set()
        self._outside: list[Doorman] = []
        self._is_looking = False
        self.outbox = Outbox()
        self.shortcut: Shortcut | None = None

    def __call__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        self._inside = cast("set[Guest]", server_state.connections)
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(IDLE_SECONDS / 2, self._look)
        return Doorman(self, config, server_state, app_state)

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits outside: who is answered meanwhile should leave."""
        return bool(self._outside)

    @property
    def has_room(self) -> bool:
        return len(self._inside) - self._under_way() < self._most_inside

    def wait(self, doorman: "Doorman") -> None:
        self._outside.append(doorman)

    def left(self) -> None:
        """Somebody left: who came last comes in."""
        while self._outside and self.has_room:
            self._outside.pop().let_in()

    def close(self) -> None:
        """Nobody is let in any more."""
        while self._outside:
            self._outside.pop().turn_away()

    def _look(self) -> None:
        """As long as anybody is here: whoever has nothing under way and is silent for too long goes."""
        loop = asyncio.get_running_loop()
        for guest in list(self._inside):
            if guest.is_idle and loop.time() - guest.idle_since > self._patience_with(guest):
                guest.transport.close()
        self._is_looking = bool(self._inside or self._outside)
        if self._is_looking:
            loop.call_later(IDLE_SECONDS / 2, self._look)

    def _patience_with(self, guest: Guest) -> float:
        """Seconds. While others wait outside, who is slow to say what makes room too."""
        if self.is_crowded:
            return IDLE_SECONDS if guest.has_spoken else self._first_word_seconds
        return math.inf if guest.is_speaking else guest.timeout_keep_alive


class Doorman(asyncio.Protocol):
    """The first protocol of a connection: lets it in to HTTP, or has it wait, unread."""

    __slots__ = ("_app_state", "_config", "_door", "_heard", "_server_state", "_transport")

    def __init__(
        self, door: Door, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._door = door
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._heard = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its ancestry
        if self._door.has_room:
            self.let_in()
        else:
            # uvloop begins to read when this returns, whatever was said before.
            asyncio.get_running_loop().call_soon(self._be_quiet)
            self._door.wait(self)

    def data_received(self, data: bytes) -> None:
        """Came in before reading was paused."""
        self._heard += data

    def _be_quiet(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone from outside. Its place is skipped when its turn comes."""
        self._transport = None

    def let_in(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None or transport.is_closing():
            return
        guest = Guest(self._door, self._config, self._server_state, self._app_state)
        transport.set_protocol(guest)
        guest.connection_made(transport)
        if self._heard:
            guest.data_received(self._heard)
        if not transport.is_reading():
            transport.resume_reading()

    def turn_away(self) -> None:
        if self._transport is not None:
            self._transport.close()
