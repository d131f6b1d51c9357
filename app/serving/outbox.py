"""Buffered writing: the responses of one round of the event loop are sent together, each as one write.

uvicorn writes head and body apart, and each write wakes its client. Between requests, that would cost more time than
the requests themselves.
"""

import asyncio
import socket
from typing import Protocol

from app.serving.responses import header_lines, status_line

MAX_BUFFERED_BYTES = 64 * 1024
"""Bytes of a response that are buffered until the round ends. Longer responses are sent at once, so that the transport
can apply back pressure."""

MAX_UNSENT_BYTES = 16 * 1024
"""Bytes of responses that the kernel has not accepted. Above it, no further request of the connection is served, and
the app must wait."""

SOCKET_BUFFER_BYTES = 128 * 1024
"""Size of a connection's buffers in the kernel, one for each direction. By default, Linux buffers up to 4 MB of an
unread response."""

CLOSE = (b"connection", b"close")

Headers = list[tuple[bytes, bytes]]


def limit_buffers(transport: asyncio.Transport) -> None:
    """Bound the memory that a new connection may take."""
    transport.set_write_buffer_limits(MAX_UNSENT_BYTES)
    if (own := transport.get_extra_info("socket")) is not None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            own.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)


class ResponseBuffer:
    """The bytes that one connection has not given to its transport."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self.size += len(part)

    def send(self, transport: asyncio.Transport | None) -> None:
        """Give the bytes to the transport. If it is closing, they are dropped."""
        parts, size = self._parts, self.size
        self._parts, self.size = [], 0
        if not parts or transport is None or transport.is_closing():
            return
        if size > MAX_BUFFERED_BYTES:
            transport.writelines(parts)  # without a copy: many clients may download one file
        else:
            transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class Buffering(Protocol):
    def flush(self) -> None: ...


class Outbox:
    """Flushes connections when the current round of the event loop ends."""

    def __init__(self) -> None:
        self._full: list[Buffering] = []
        self._headers: Headers = []
        self._lines = b""
        self.closes_connections = False
        """The server's own headers of the last `whole` close the connection after the response."""

    def post(self, connection: Buffering) -> None:
        if not self._full:
            asyncio.get_running_loop().call_soon(self.send)
        self._full.append(connection)

    def whole(self, status: int, rest: bytes, headers: Headers) -> bytes:
        """A response with its status line and the server's own headers."""
        if headers is not self._headers:  # uvicorn keeps one list for a second
            self._headers, self._lines = headers, header_lines(headers)
            self.closes_connections = CLOSE in headers
        return b"%b%b%b" % (status_line(status), self._lines, rest)

    def send(self) -> None:
        """Flush all connections now."""
        full, self._full = self._full, []
        for connection in full:
            connection.flush()
