"""A connection that was let in: uvicorn's, but that the shortcut sees a request before it begins."""

import asyncio
from typing import Any, Protocol, cast

import structlog
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.scope import RAW_REQUEST
from app.serving.login_response_cache import RawRequest
from app.serving.outbox import BufferedTransport, Outbox, SingleWriteCycle

OK = STATUS_LINE[200]


class FastPath(Protocol):
    """What may have an answer to a request at once."""

    target: bytes

    def answer(self, asked: RawRequest) -> bytes | None:
        """Behind the status and the server's own headers."""


class FastPathHost(Protocol):
    """What a guest knows of where it is."""

    outbox: Outbox
    fast_path: FastPath | None

    @property
    def is_saturated(self) -> bool: ...

    def connection_closed(self) -> None: ...


class FastPathProtocol(HttpToolsProtocol):
    """Says so when it is gone."""

    def __init__(self, house: FastPathHost, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._host = house
        self.idle_since = self.loop.time()
        self.has_sent_request = False
        """Whether a request ever came."""
        self.is_receiving = True
        """Whether more came, or should, since the last answer: no reason to end the connection as an idle one."""
        self._unanswered = 0
        self._body: bytes | None = None
        """Of a request that is not begun yet; None where none is waited for."""
        self._is_first = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", BufferedTransport(transport, self._host.outbox)))

    @property
    def is_idle(self) -> bool:
        """No request is under way. Silence, or headers in drips, must not keep others outside."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self._is_first = self.is_receiving = True
        super().data_received(data)
        if self._body is not None and not self.transport.is_closing():  # closed: what came was no HTTP
            self._begin()

    def on_headers_complete(self) -> None:
        """uvicorn would begin here. Mostly the body is there already, so the shortcut may see both."""
        self.has_sent_request = True
        self._body = b""

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        if self._body is not None:
            if self._is_answered():
                return
            self._begin()
        super().on_message_complete()

    def _is_answered(self) -> bool:
        """By the shortcut, if it has something to say to this. One a read: who sends many at once waits his turn."""
        shortcut = self._host.fast_path
        if shortcut is None or self.url != shortcut.target or not (self._is_first and self._is_ready()):
            return False
        self._is_first = False
        peer = self.client[0] if self.client else None
        asked = RawRequest(peer, self.parser.get_method(), self.url, self.headers, self._body or b"")
        try:
            answer = shortcut.answer(asked)
        except Exception:
            # Out of here it would be taken for a request that is no HTTP. All layers can still be passed.
            structlog.get_logger("dialtone").exception("shortcut_broke")
            answer = None
        if answer is None:
            cast("Scope", self.scope)[RAW_REQUEST] = asked
            return False
        self._body = None
        self.transport.write(OK + self._host.outbox.standing(self.server_state.default_headers) + answer)
        self.on_response_complete()
        return True

    def _is_ready(self) -> bool:
        """Whether an answer may be written now, and the connection goes on behind it."""
        return (
            self.is_idle
            and not self.flow.write_paused
            and not self._host.is_saturated
            and not self.transport.is_closing()
            and self.parser.get_http_version() == "1.1"
        )

    def _begin(self) -> None:
        body, self._body = self._body, None
        self._unanswered += 1
        self._host.outbox.pending += 1
        super().on_headers_complete()
        self.cycle.__class__ = SingleWriteCycle  # uvicorn has no place to say which class it shall make
        if body:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """As uvicorn's, without its timer for each answer: the door looks after those who are silent for long."""
        if self._unanswered:
            self._unanswered -= 1
            self._host.outbox.done()
        self.server_state.total_requests += 1
        self.idle_since = self.loop.time()
        self.is_receiving = False
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._host.outbox.pending -= self._unanswered
        self._unanswered = 0
        self._host.connection_closed()
