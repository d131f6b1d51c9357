"""Framing: splits a connection's bytes into requests, strictly by RFC 9112, before any other parser sees them.

httptools parses the head, as uvicorn does. This module checks everything that decides where a request ends, and
serializes the request again for uvicorn. Two parsers that disagree about a request's end allow request smuggling.
"""

import re
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

import httptools

from app.api import problems
from app.api.problems import ProblemKind

MAX_HEAD_BYTES = 48 * 1024
"""Request line and header block. Above the sum of HeaderLimitsMiddleware's limits, which answer exactly."""

MAX_TARGET_LINE_BYTES = 16 * 1024
"""A request line that is longer has too long a target. Above HeaderLimitsMiddleware's limit, likewise."""

MAX_CHUNK_LINE_BYTES = 256
"""A chunk's size and its extensions, which are ignored."""

MAX_CHUNKED_BYTES = 1024 * 1024
"""A chunked body as sent. Eight times the longest body that a route accepts, because small chunks have overhead."""

MAX_CHUNKS = 2048
"""Chunks of a body. Each costs a microsecond, whatever its length."""

MAX_CACHED_LINE_BYTES = 128

CRLF = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})
"""Dialtone upgrades no connection. A server may ignore these headers (RFC 9110 section 7.8)."""

_REQUEST_LINE = re.compile(rb"(?!CONNECT )([A-Z-]{1,32}) ((?:https?://[^/?#]+)?/[\x21-\x7e]*) HTTP/(1\.[01])\Z")
"""The target is a path, or a whole URL as sent to proxies. `CONNECT` and `OPTIONS *` are not served."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*\Z")
_LENGTH = re.compile(rb"[0-9]{1,15}\Z")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?\Z")

_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""Headers that decide which request this is or where it ends. Repeated, two parsers may pick different ones."""


class FramingError(Exception):
    """The request is not acceptable as it is framed or sent. The connection cannot continue."""

    def __init__(self, kind: ProblemKind) -> None:
        super().__init__(kind.code)
        self.kind = kind


class RequestHead(NamedTuple):
    """The request line and the headers. The framing is valid; nothing else was checked."""

    method: bytes
    target: bytes
    version: bytes
    """`1.0` or `1.1`."""
    headers: list[tuple[bytes, bytes]]
    """In the order sent, with names in lower case."""
    by_name: dict[bytes, bytes]
    """The last value of each header."""
    content_length: int | None
    """None for a chunked body."""
    size: int
    """Bytes as sent."""

    @property
    def expects_continue(self) -> bool:
        return self.version == b"1.1" and self.by_name.get(b"expect", b"").lower() == b"100-continue"

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]


class _Headers:
    """Collects header fields as httptools reports them."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))  # RFC 9110 section 5.5


def parse_head(raw: bytes) -> RequestHead:
    """The head of a request; `raw` ends with its empty line. Raises FramingError."""
    line = raw[: raw.index(CRLF)]
    parse = _parse_request_line if len(line) <= MAX_CACHED_LINE_BYTES else _parse_request_line.__wrapped__
    collected = _Headers()
    try:
        method, target, version = parse(line)
        httptools.HttpRequestParser(collected).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # raised at the end of the head; the request continues as if the client had not asked
    except httptools.HttpParserError:
        raise FramingError(problems.MALFORMED) from None
    headers = collected.fields
    by_name = dict(headers)
    if len(by_name) < len(headers):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in _ONCE):
            raise FramingError(problems.MALFORMED)
    host = by_name.get(b"host")
    if version == b"1.1" if host is None else _HOST.match(host) is None:
        raise FramingError(problems.MALFORMED)
    return RequestHead(method, target, version, headers, by_name, _content_length(by_name, version), len(raw))


@lru_cache(maxsize=256)
def _parse_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Method, target and version. Few lines are frequent. Raises FramingError or HttpParserError."""
    match = _REQUEST_LINE.match(line)
    if match is None:
        raise FramingError(problems.MALFORMED)
    method, target, version = match.groups()
    httptools.parse_url(target)
    return method, target, version


def _content_length(headers: dict[bytes, bytes], version: bytes) -> int | None:
    """The length of the body (RFC 9112 section 6.3); None if it is chunked."""
    length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or version != b"1.1" or coding.lower() != b"chunked":
            raise FramingError(problems.MALFORMED)
        return None
    if length is None:
        return 0
    if _LENGTH.match(length) is None:
        raise FramingError(problems.MALFORMED)
    return int(length)


def without_expect(head: RequestHead) -> RequestHead:
    """The head without `Expect`, after the response to it was sent."""
    headers = [header for header in head.headers if header[0] != b"expect"]
    return head._replace(headers=headers, by_name=dict(headers))


def serialize_head(head: RequestHead) -> bytes:
    """The head for the next parser: the same request, without what Dialtone ignores."""
    is_upgrade = not UPGRADE_HEADERS.isdisjoint(head.by_name)
    parts = [b"%b %b HTTP/%b\r\n" % (head.method, head.target, head.version)]
    for name, value in head.headers:
        if is_upgrade and name in UPGRADE_HEADERS:
            continue
        if name == b"connection":
            value = _without_upgrade(value)
        elif name == b"expect" and head.version == b"1.0":
            continue  # RFC 9110 section 10.1.1
        parts.append(b"%b: %b\r\n" % (name, value))
    parts.append(CRLF)
    return b"".join(parts)


def _without_upgrade(connection: bytes) -> bytes:
    options = [option.strip() for option in connection.split(b",")]
    return b", ".join(option for option in options if option.lower() not in UPGRADE_HEADERS)


class _Expected(Enum):
    """The meaning of the next bytes of a chunked body."""

    SIZE = auto()
    DATA = auto()
    END_OF_DATA = auto()
    END_OF_BODY = auto()


class ChunkedBody:
    """Decodes a chunked body as it arrives. Rejects trailer fields.

    Trailers may not be merged into the header section (RFC 9110 section 6.5.1), and parsers differ in what they do with
    them: a forged `X-Forwarded-For` or `Authorization` could arrive as one.
    """

    __slots__ = ("_chunks", "_expected", "_left", "_raw_bytes", "is_complete")

    def __init__(self) -> None:
        self.is_complete = False
        self._expected = _Expected.SIZE
        self._left = 0
        self._chunks = 0
        self._raw_bytes = 0

    def feed(self, raw: bytes) -> tuple[bytes, bytes]:
        """The decoded part of the body, and the bytes that have to be fed again with those that follow.

        Once the body is complete, those bytes are the beginning of the next request. Raises FramingError.
        """
        at, decoded = 0, []
        while not self.is_complete:
            if self._expected is _Expected.DATA:
                piece = raw[at : at + self._left]
                decoded.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._expected = _Expected.END_OF_DATA
            end = raw.find(CRLF, at, at + MAX_CHUNK_LINE_BYTES)
            if end < 0:
                most = MAX_CHUNK_LINE_BYTES if self._expected is _Expected.SIZE else len(CRLF)
                if b"\n" in raw[at:] or len(raw) - at >= most:
                    raise FramingError(problems.MALFORMED)
                break
            self._end_of_line(raw[at:end])
            at = end + len(CRLF)
        self._raw_bytes += at
        if self._raw_bytes > MAX_CHUNKED_BYTES:
            raise FramingError(problems.TOO_LARGE)
        return b"".join(decoded), raw[at:]

    def _end_of_line(self, line: bytes) -> None:
        if self._expected is not _Expected.SIZE:
            if line:  # bytes after a chunk's data, or a trailer field
                raise FramingError(problems.MALFORMED)
            self.is_complete = self._expected is _Expected.END_OF_BODY
            self._expected = _Expected.SIZE
            return
        size = _CHUNK_LINE.match(line)
        if size is None:
            raise FramingError(problems.MALFORMED)
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise FramingError(problems.TOO_LARGE)
        self._left = int(size[1], 16)
        self._expected = _Expected.DATA if self._left else _Expected.END_OF_BODY


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
