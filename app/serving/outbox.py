"""Buffered writing of responses: each response is one write, and responses that are ready together are sent together.

uvicorn sends headers and body in one system call each, and examines each header three times. This takes thirty
microseconds per request, more than all middleware together. Streamed responses still use uvicorn's way.
"""

import asyncio
from typing import Any, cast

from starlette.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.api.request_scope import HEALTH_PATHS, path_of

MAX_BUFFERED_BYTES = 64 * 1024
"""Bytes of a response that are buffered until the current iteration of the event loop ends. Longer responses are sent
at once, so that the transport can apply back pressure."""


Headers = list[tuple[bytes, bytes]]


class Outbox:
    """Sends buffered responses when no other request is pending, or when the event loop's iteration ends.

    Each write wakes its client. Between requests, that would cost more time than the requests themselves.
    """

    def __init__(self) -> None:
        self.pending = 0
        self._full: list[BufferedTransport] = []
        self._headers: Headers = []
        self._standing = b""

    def standing(self, headers: Headers) -> bytes:
        """The server's own headers, serialized. uvicorn keeps the same list for a second, so the result is cached."""
        if headers is not self._headers:
            self._headers, self._standing = headers, b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._standing

    def post(self, transport: "BufferedTransport") -> None:
        if not self._full:
            asyncio.get_running_loop().call_soon(self._send)
        self._full.append(transport)

    def done(self) -> None:
        """Record that a response is complete."""
        self.pending -= 1
        if self.pending <= 0:
            self._send()

    def _send(self) -> None:
        full, self._full = self._full, []
        for transport in full:
            transport.flush()


class BufferedTransport:
    """A transport that buffers writes until the outbox flushes it. All other attributes are the transport's."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._parts: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if len(self._parts) == 1:
            self._outbox.post(self)
        if self._size > MAX_BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            if self.is_closing():
                return  # closed meanwhile: a write would raise and block the responses of other transports
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class SingleWriteCycle(RequestResponseCycle):
    """uvicorn's request-response cycle, but a response that is not streamed is written at once."""

    _head: Message | None = None

    async def send(self, message: Any) -> None:
        if not self.response_started and message["type"] == "http.response.start":
            self._head = message  # of two, the later: after the app failed, uvicorn sends its own
            return
        head, self._head = self._head, None
        if head is not None:
            whole = self._as_one_piece(head, message)
            if whole is not None:
                self._finish(whole)
                return
            await super().send(head)  # type: ignore[arg-type]
        await super().send(message)

    def _as_one_piece(self, head: Message, message: Message) -> bytes | None:
        """The serialized response; None if uvicorn must send it: streams, closed or full connections, odd headers."""
        body: bytes = message.get("body", b"")
        if message.get("more_body") or self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD":
            return None
        pieces, length = [STATUS_LINE[head["status"]]], None
        for name, value in (*self.default_headers, *head["headers"]):
            if name == b"content-length":
                length = value
            elif name in (b"connection", b"transfer-encoding"):
                return None
            pieces += (name, b": ", value, b"\r\n")
        pieces.append(b"\r\n")
        text = b"".join(pieces)
        # Compare the number of lines: a header value with a line break would inject a header or a body.
        lines = len(pieces) // 4 + 2
        if length != b"%d" % len(body) or text.count(b"\n") != lines or text.count(b"\r") != lines or b"\0" in text:
            return None
        return text + body

    def _finish(self, whole: bytes) -> None:
        if not self.keep_alive:
            whole = whole.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(whole)
        if path_of(cast("Scope", self.scope)) in HEALTH_PATHS:
            self.transport.flush()  # type: ignore[attr-defined]  # a BufferedTransport; health checks are not buffered
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
