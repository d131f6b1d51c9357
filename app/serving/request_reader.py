"""Reads the requests of one connection, one at a time, from bytes that arrive in any pieces."""

from app.api import problems
from app.serving.framing import (
    CRLF,
    END_OF_HEAD,
    LAST_CHUNK,
    MAX_HEAD_BYTES,
    MAX_TARGET_LINE_BYTES,
    ChunkedBody,
    FramingError,
    RequestHead,
    chunk,
    parse_head,
)

MAX_EMPTY_LINES = 8
"""Empty lines before a request, which old clients send after a body (RFC 9112 section 2.2)."""


class RequestReader:
    """Holds the bytes that were not used yet, and the part of the current request that has arrived."""

    __slots__ = ("_body_left", "_chunks", "_empty_lines", "body", "head", "is_complete", "unread")

    def __init__(self) -> None:
        self.unread = b""
        """Bytes that were received and not read: a part of the current request, or requests behind it."""
        self.next_request()

    def next_request(self) -> None:
        """Forget the current request."""
        self.head: RequestHead | None = None
        self.body = b""
        """The part of the body that was read and not taken, decoded."""
        self.is_complete = False
        """The body has been read to its end."""
        self._body_left = 0
        self._chunks: ChunkedBody | None = None
        self._empty_lines = 0

    @property
    def is_reading(self) -> bool:
        """A part of a request has arrived."""
        return self.head is not None or bool(self.unread)

    def read(self) -> RequestHead | None:
        """Read on. Returns the head once it is whole; the body may be incomplete. Raises FramingError."""
        if self.head is None:
            self.head = self._read_head()
        if self.head is not None and not self.is_complete:
            self._read_body()
        return self.head

    def take_body(self) -> bytes:
        """The part of the body that was read, framed for the next parser. Afterwards it is no longer held."""
        body, self.body = self.body, b""
        if self._chunks is None:
            return body
        return (chunk(body) if body else b"") + (LAST_CHUNK if self.is_complete else b"")

    def _read_head(self) -> RequestHead | None:
        unread = self.unread
        while unread.startswith(CRLF):
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                raise FramingError(problems.MALFORMED)
            unread = self.unread = unread[len(CRLF) :]
        if unread in (b"", b"\r"):
            return None
        end = unread.find(END_OF_HEAD, 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(unread) > MAX_TARGET_LINE_BYTES and CRLF not in unread[:MAX_TARGET_LINE_BYTES]:
                raise FramingError(problems.URI_TOO_LONG)
            if len(unread) >= MAX_HEAD_BYTES:
                raise FramingError(problems.HEADERS_TOO_LARGE)
            if unread[:1] > b"Z" or unread[:1] < b"A" or unread.count(b"\n") != unread.count(CRLF):
                raise FramingError(problems.MALFORMED)  # not HTTP, or line ends without CR: no need to wait for more
            return None
        end += len(END_OF_HEAD)
        head = parse_head(unread[:end])
        self.unread = unread[end:]
        if head.content_length is None:
            self._chunks = ChunkedBody()
        else:
            self._body_left = head.content_length
        return head

    def _read_body(self) -> None:
        if self._chunks is not None:
            decoded, self.unread = self._chunks.feed(self.unread)
            self.body += decoded
            self.is_complete = self._chunks.is_complete
            return
        piece = self.unread[: self._body_left]
        self.unread = self.unread[self._body_left :]
        self.body = self.body + piece if self.body else piece
        self._body_left -= len(piece)
        self.is_complete = self._body_left == 0
