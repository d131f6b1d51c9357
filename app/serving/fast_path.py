"""The protocol of an admitted connection: uvicorn's, with a fast path that may answer a request before the app runs."""

import asyncio
from typing import Any, Protocol, cast

import structlog
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.request_scope import RAW_REQUEST
from app.serving.login_response_cache import RawRequest
from app.serving.outbox import BufferedTransport, Outbox, SingleWriteCycle

OK = STATUS_LINE[200]


class FastPath(Protocol):
    """May answer a request from memory, without running the app."""

    target: bytes

    def answer(self, request: RawRequest) -> bytes | None:
        """The response after the status line and the server's own headers; None if the app must run."""


class FastPathHost(Protocol):
    """The part of ConnectionLimiter that FastPathProtocol uses."""

    outbox: Outbox
    fast_path: FastPath | None

    @property
    def is_saturated(self) -> bool: ...

    def connection_closed(self) -> None: ...


class FastPathProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the fast path. Reports to its host when the connection closes."""

    def __init__(self, host: FastPathHost, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._host = host
        self.idle_since = self.loop.time()
        self.has_sent_request = False
        """True after the first request."""
        self.is_receiving = True
        """True if bytes arrived, or are expected, since the last response. The connection is then not idle."""
        self._unanswered = 0
        self._body: bytes | None = None
        """The body of a request that has not started yet; None if there is none."""
        self._is_first = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", BufferedTransport(transport, self._host.outbox)))

    @property
    def is_idle(self) -> bool:
        """True if no request is in flight. A silent client, or one that drips headers, must not block the queue."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self._is_first = self.is_receiving = True
        super().data_received(data)
        if self._body is not None and not self.transport.is_closing():  # closed: the bytes were not HTTP
            self._begin()

    def on_headers_complete(self) -> None:
        """uvicorn starts the request here. This waits for the body, which has usually arrived, for the fast path."""
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
        """Answer from the fast path if possible: one request per read, so that pipelining does not starve others."""
        fast_path = self._host.fast_path
        if fast_path is None or self.url != fast_path.target or not (self._is_first and self._is_ready()):
            return False
        self._is_first = False
        peer = self.client[0] if self.client else None
        request = RawRequest(peer, self.parser.get_method(), self.url, self.headers, self._body or b"")
        try:
            answer = fast_path.answer(request)
        except Exception:
            # uvicorn would treat the exception as invalid HTTP. The app can still answer the request.
            structlog.get_logger("dialtone").exception("fast_path_failed")
            answer = None
        if answer is None:
            cast("Scope", self.scope)[RAW_REQUEST] = request
            return False
        self._body = None
        self.transport.write(OK + self._host.outbox.standing(self.server_state.default_headers) + answer)
        self.on_response_complete()
        return True

    def _is_ready(self) -> bool:
        """True if a response may be written now, and the connection stays open after it."""
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
        self.cycle.__class__ = SingleWriteCycle  # uvicorn has no setting for the class
        if body:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """As uvicorn's, without its timer per response: ConnectionLimiter closes idle connections."""
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
