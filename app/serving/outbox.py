"""Answers on their way out: each in one piece, and those that are ready at the same time one after the other.

uvicorn sends head and body by a system call each, and looks at each header of ours three times. At thirty microseconds
a request that is more than all our layers together; what is streamed still goes its way.
"""

import asyncio
from typing import Any, cast

from starlette.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.api.scope import HEALTH_PATHS, path_of

MAX_BUFFERED_BYTES = 64 * 1024
"""Bytes of an answer that are kept back until the event loop's round is over: what is longer leaves at once, so that
the transport can say when it has enough."""


Headers = list[tuple[bytes, bytes]]


class Outbox:
    """Answers that are ready leave when no other is in the making, or when the event loop's round is over.

    Each wakes whoever it is for. Done between requests, that costs the requests more than they do themselves.
    """

    def __init__(self) -> None:
        self.pending = 0
        self._full: list[BufferedTransport] = []
        self._headers: Headers = []
        self._standing = b""

    def standing(self, headers: Headers) -> bytes:
        """The server's own headers as they are written, the same list for a second: uvicorn makes another each time."""
        if headers is not self._headers:
            self._headers, self._standing = headers, b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._standing

    def post(self, gathering: "BufferedTransport") -> None:
        if not self._full:
            asyncio.get_running_loop().call_soon(self._send)
        self._full.append(gathering)

    def done(self) -> None:
        """An answer is complete."""
        self.pending -= 1
        if self.pending <= 0:
            self._send()

    def _send(self) -> None:
        full, self._full = self._full, []
        for gathering in full:
            gathering.flush()


class BufferedTransport:
    """A transport that keeps what is written for the outbox's next turn. In all else it is the transport."""

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
                return  # gone meanwhile: a write would raise, and keep back the answers of those behind it
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class SingleWriteCycle(RequestResponseCycle):
    """uvicorn's exchange of one request and its answer. An answer that is given whole is written as one piece."""

    _head: Message | None = None

    async def send(self, message: Any) -> None:
        if not self.response_started and message["type"] == "http.response.start":
            self._head = message  # of two the later one: the app broke behind the first, and uvicorn says so
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
        """The whole answer; None for what uvicorn must look at: streams, closed or full connections, odd headers."""
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
        # As many lines as headers: a value with a line break in it would begin a header, or a body, of its own.
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
            self.transport.flush()  # type: ignore[attr-defined]  # a Gathering: a probe does not wait for a crowd
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
