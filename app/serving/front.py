"""The front: the protocol of a connection. It frames requests and passes those on that the fast path does not answer.

Stock uvicorn runs behind it, by composition (`uvicorn_protocol.py`), and gets one checked request at a time. A
connection without a request for the app has no uvicorn part.
"""

import asyncio
import time
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from app.api import problems
from app.api.problems import ProblemKind
from app.serving.client_address import peer_of
from app.serving.framing import CONTINUE, FramingError, RequestHead, serialize_head, without_expect
from app.serving.front_host import Answer, FrontHost, Request, may_answer
from app.serving.outbox import MAX_BUFFERED_BYTES, ResponseBuffer, limit_buffers
from app.serving.request_reader import RequestReader
from app.serving.uvicorn_protocol import UvicornProtocol

READ_BYTES = 16 * 1024
"""Bytes of one read. Reading is paused while requests wait behind the current one, so a client that pipelines requests
fills its own socket and not Dialtone's memory."""

MAX_WAITING_BODY_BYTES = 160 * 1024
"""Bytes of a body that are kept before the app gets the request; above the longest body that a route accepts."""

MAX_DISCARDED_BYTES = 256 * 1024
"""Bytes that are discarded after a rejection. To close without reading them would reset the connection."""

_read_buffer = memoryview(bytearray(READ_BYTES))
"""All connections share it: the event loop fills it and calls `buffer_updated` before it reads again."""


class FrontProtocol(asyncio.BufferedProtocol):
    """One connection. Serves one request at a time, in the order in which they arrive."""

    __slots__ = (
        "_app_state",
        "_config",
        "_discarded",
        "_host",
        "_is_app_reading",
        "_is_read_paused",
        "_is_response_complete",
        "_is_response_started",
        "_is_scheduled",
        "_is_stopping",
        "_is_write_paused",
        "_out",
        "_reader",
        "_server_state",
        "_uvicorn",
        "held_bytes",
        "is_in_app",
        "is_lingering",
        "is_queued",
        "peer",
        "peer_name",
        "since",
        "transport",
    )

    def __init__(
        self, host: FrontHost, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._host = host
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self.transport: asyncio.Transport | None = None
        self.peer_name: tuple[str, int] | None = None
        self.peer: str | None = None
        """The address of the connection's other end."""
        self.since = time.monotonic()
        """When the connection became idle, the first byte of the current request arrived, or closing began."""
        self.is_queued = False
        """The request is complete and waits for a place in the app."""
        self.is_in_app = False
        self.is_lingering = False
        """The last response was sent before the request had arrived. The client gets some time to read it."""
        self._reader = RequestReader()
        self._uvicorn: UvicornProtocol | None = None
        self._is_app_reading = True
        self._is_response_started = False
        self._is_response_complete = False
        """The app has answered. The rest of the request's body is read and discarded."""
        self._is_scheduled = False
        """`advance` will be called. Until then, nothing is served."""
        self._is_stopping = False
        self._is_write_paused = False
        self._is_read_paused = False
        self._out = ResponseBuffer()
        self.held_bytes = 0
        """Bytes that have arrived while the app has no request of this connection."""
        self._discarded = 0

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, but not the base class
        limit_buffers(self.transport)
        self.peer_name = peer_of(transport)
        if self.peer_name is None:
            self.transport.abort()  # already reset by the client, whose requests would have no address
        else:
            self.peer = self.peer_name[0]
        self._server_state.connections.add(cast("Any", self))
        self._host.opened(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_lingering:
            self._discarded += nbytes
            if self._discarded > MAX_DISCARDED_BYTES:
                self.close()
            return
        reader = self._reader
        data = bytes(_read_buffer[:nbytes])
        is_first = not (self.is_in_app or reader.is_reading)
        if is_first:
            self.since = time.monotonic()
        reader.unread = reader.unread + data if reader.unread else data
        self._advance_later(is_urgent=is_first and data.startswith(self._host.health_check_starts))

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._host.writing_paused(self)
        if self._uvicorn is not None:
            self._uvicorn.pause_writing()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._host.writing_resumed(self)
        if self._uvicorn is not None:
            self._uvicorn.resume_writing()
        self._advance_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(cast("Any", self))
        self.disconnect_app()
        self._reader = RequestReader()
        self._settle()
        self._host.closed(self)
        self.transport = None

    # Called by the limiter, and by uvicorn's server

    @property
    def is_waiting(self) -> bool:
        """The client's turn: it has sent nothing, or not a whole request."""
        return not (self.is_in_app or self.is_queued or self._is_scheduled)

    @property
    def is_receiving(self) -> bool:
        """A part of a request has arrived, and the app does not have it."""
        return self.is_waiting and self._reader.is_reading

    @property
    def is_closing(self) -> bool:
        return self.transport is None or self.transport.is_closing() or self.is_lingering

    def shutdown(self) -> None:
        """Close now, or after the request that has begun to arrive. uvicorn's server calls it when it stops."""
        self._is_stopping = True
        if self.is_waiting and not self._reader.is_reading:
            self.close()

    def close(self) -> None:
        """Close once the client has received what was written. A client that does not read needs `abort`."""
        self.flush()
        if self.transport is not None and not self.transport.is_closing():
            self.since = time.monotonic()
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def reject(self, kind: ProblemKind) -> None:
        """Answer with a problem, and close. If a response has begun, only close."""
        if self.is_closing or self.transport is None:
            return
        if self._is_response_started:
            self.disconnect_app()
            self.close()
            return
        response = self._host.reject(kind, self.peer, self._reader.head, self.since)
        self.disconnect_app()
        self.write(response)
        self._linger()

    def _linger(self) -> None:
        """Send no more, and discard what the client still sends. Closing now would reset the connection."""
        self.flush()
        self._reader = RequestReader()
        self._settle()
        self.is_lingering = True
        self.since = time.monotonic()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()

    def disconnect_app(self) -> None:
        """Free the connection's uvicorn part. A request that the app has ends as if the client had disconnected."""
        protocol, self._uvicorn = self._uvicorn, None
        if protocol is not None:
            protocol.disconnect()
        if self.is_in_app:
            self.is_in_app = False
            self._host.released(self)

    def start(self) -> bool:
        """Give the current request to the app. False if the client has disconnected."""
        head = self._reader.head
        self.is_queued = False
        if head is None or self.is_closing:
            return False
        self.is_in_app = True
        if self._uvicorn is None:
            self._uvicorn = UvicornProtocol(self, self._config, self._server_state, self._app_state)
            if self._is_write_paused:
                self._uvicorn.pause_writing()
        self._uvicorn.receive(serialize_head(head) + self._take_body())
        self._settle()
        return True

    # Called by uvicorn's protocol and the app

    def app_closed(self) -> None:
        if not self.is_in_app:
            self.shutdown()
        elif self._reader.is_complete or self.is_closing:
            self.close()
        else:
            self._linger()

    def app_reads(self, *, is_reading: bool) -> None:
        if is_reading and not self._is_app_reading:
            self._advance_later()
        self._is_app_reading = is_reading

    def response_complete(self) -> None:
        if not self.is_in_app:
            return  # rejected or disconnected before
        if self._reader.is_complete:
            self._finish()
        else:
            self._is_response_complete = True
            self.disconnect_app()
            self._advance_later()

    def write(self, data: bytes) -> None:
        """Send with all other responses of this round of the event loop."""
        self._is_response_started = self._is_response_started or data != CONTINUE
        if not self._out.size:
            self._host.outbox.post(self)
        self._out.add(data)
        if self._out.size > MAX_BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        self._out.send(self.transport)

    # One request after the other

    def advance(self) -> Request | None:
        """Serve what has arrived, as far as that is possible now. Returns a request that the fast path may answer."""
        self._is_scheduled = False
        request = None
        try:
            if self.is_in_app:
                self._stream_body()
            elif self._is_response_complete:
                self._discard_body()
            elif not (self.is_queued or self._is_write_paused or self.is_closing):
                request = self._serve()
        except FramingError as error:
            self.reject(error.kind)
        if request is not None:
            self._is_scheduled = True
            return request
        self._settle()
        if self._is_stopping and not self.is_closing:
            self.shutdown()  # it came while this was scheduled
        return None

    def _serve(self) -> Request | None:
        reader = self._reader
        head = reader.read()
        if head is None:
            return None
        fast_path = self._host.fast_path
        if fast_path is None or not may_answer(fast_path, head):
            self._serve_by_app(head)
        elif reader.is_complete:
            return Request(self._host.address_of(self.peer, head), head, reader.body)
        return None

    def conclude(self, answer: Answer | None) -> None:
        """Answer the request that `advance` has returned. With None, the app answers it."""
        self._is_scheduled = False
        head = self._reader.head
        if head is None:
            return  # rejected or disconnected meanwhile
        try:
            if answer is None:
                self._serve_by_app(head)
            else:
                self.write(self._host.outbox.whole(*answer, self._server_state.default_headers))
                self._is_stopping = self._is_stopping or self._host.outbox.closes_connections
                self._server_state.total_requests += 1
                self._finish()
        except FramingError as error:
            self.reject(error.kind)
        self._settle()

    def _serve_by_app(self, head: RequestHead) -> None:
        if self._reader.is_complete:
            if self._host.admit(self, head):
                self.start()
            else:
                self.is_queued = True
        elif self._host.admit_unfinished(self):
            self.start()
        elif max(len(self._reader.body), head.content_length or 0) > MAX_WAITING_BODY_BYTES:
            raise FramingError(problems.TOO_LARGE)
        elif head.expects_continue:
            self._reader.head = without_expect(head)
            self.write(CONTINUE)

    def _stream_body(self) -> None:
        """Pass on the part of the body that has arrived since."""
        reader = self._reader
        if reader.is_complete or not self._is_app_reading or self._uvicorn is None:
            return
        reader.read()
        body = self._take_body()
        if body:
            self._uvicorn.receive(body)

    def _discard_body(self) -> None:
        self._reader.read()
        self._reader.take_body()
        if self._reader.is_complete:
            self._finish()

    def _take_body(self) -> bytes:
        if self._reader.is_complete:
            self._host.received(self)
        return self._reader.take_body()

    def _finish(self) -> None:
        """The current request is answered."""
        is_from_app, self.is_in_app = self.is_in_app, False
        self._reader.next_request()
        self._is_response_started = self._is_response_complete = False
        self.since = time.monotonic()
        if self._is_stopping:
            self.close()
        elif self._reader.unread and not self.is_closing:
            self._advance_later()
        self._host.answered(self)
        if is_from_app:
            self._host.released(self)

    def _advance_later(self, *, is_urgent: bool = False) -> None:
        """Continue at the end of this round of the event loop, or in a later one."""
        if self._is_scheduled or self._host.rounds.has_backlog:
            self._settle()
        if not self._is_scheduled:
            self._is_scheduled = True
            self._host.rounds.add(self, is_urgent=is_urgent)

    def _settle(self) -> None:
        """Report the number of held bytes to the host, and pause or resume reading. Called after each step."""
        reader = self._reader
        size = 0 if self.is_in_app else len(reader.unread) + len(reader.body)
        if size != self.held_bytes:
            size, self.held_bytes = size - self.held_bytes, size
            self._host.buffered(size)  # requests that wait behind one in the app are bounded by READ_BYTES
        if reader.unread or self._is_read_paused:
            self._pause_or_resume_reading()

    def _pause_or_resume_reading(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        is_next = self.is_in_app and (self._reader.is_complete or not self._is_app_reading)
        is_blocked = is_next or self.is_queued or self._is_scheduled or self._is_write_paused
        if is_blocked and self._reader.unread:
            if not self._is_read_paused:
                self._is_read_paused = True
                transport.pause_reading()
        elif self._is_read_paused:
            self._is_read_paused = False
            transport.resume_reading()
