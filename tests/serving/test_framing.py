"""Framing: requests that two parsers could read differently are rejected, however their bytes arrive."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from app.serving.framing import LAST_CHUNK, MAX_CHUNKS, ChunkedBody, FramingError, parse_head, serialize_head
from tests.support.front_server import Connection, front_server

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class EchoApp:
    """Returns what it has received."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.scopes.append(scope)
        body, is_more = b"", True
        while is_more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            is_more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = self.scopes[-1]["headers"]
        return headers


@pytest.fixture
def app() -> EchoApp:
    return EchoApp()


@pytest.fixture
async def port(app: EchoApp) -> AsyncIterator[int]:
    async with front_server(app) as port:
        yield port


AMBIGUOUS = {
    "connect": b"CONNECT /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "url without a path": b"GET http://a?b/c HTTP/1.1\r\nHost: a\r\n\r\n",
    "endless empty lines": b"\r\n" * 100,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two hosts, HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx",
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
    "empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx",
    "length of 30 digits": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"1" * 30 + b"\r\n\r\nx",
    "length and chunked": CHUNKED.replace(b"Host: a", b"Host: a\r\nContent-Length: 1") + LAST_CHUNK,
    "chunked and length": CHUNKED.replace(b"chunked", b"chunked\r\nContent-Length: 1") + LAST_CHUNK,
    "chunked twice": CHUNKED.replace(b"chunked", b"chunked, chunked") + LAST_CHUNK,
    "two transfer codings": CHUNKED.replace(b"chunked", b"gzip, chunked") + LAST_CHUNK,
    "two transfer-encoding headers": CHUNKED.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: identity")
    + LAST_CHUNK,
    "identity": CHUNKED.replace(b"chunked", b"identity") + LAST_CHUNK,
    "xchunked": CHUNKED.replace(b"chunked", b"xchunked") + LAST_CHUNK,
    "quoted chunked": CHUNKED.replace(b"chunked", b'"chunked"') + LAST_CHUNK,
    "chunked, HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + LAST_CHUNK,
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "continuation line": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\r\n\r\n",
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "name with a space": b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "RTSP": b"GET / RTSP/1.0\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "bare LF at every end": b"GET / HTTP/1.1\nHost: a\n\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "target without a slash": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "target beyond ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_ambiguous_request_is_a_problem_on_a_closed_connection(port: int, app: EchoApp, request_: bytes) -> None:
    connection = await Connection.to(port)

    head, body = await connection.ask(request_)

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json\r\n" in head
    assert b"connection: close\r\n" in head
    assert json.loads(body)["code"] == "malformed_request"
    assert await connection.is_over()
    assert app.scopes == []


TRAILERS = [
    "X-Forwarded-For: 203.0.113.9",
    "Authorization: Bearer x",
    "Origin: https://a.example",
    "Host: b",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    "X-Request-ID: forged",
    "Expires: 0",
    "X: y",
    ":",
    " x",
]


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("is_split", [False, True], ids=["one read", "two reads"])
async def test_trailer_is_rejected(port: int, app: EchoApp, trailer: str, is_split: bool) -> None:
    connection = await Connection.to(port)
    connection.writer.write(CHUNKED + b"3\r\nabc\r\n0\r\n")
    if is_split:
        await asyncio.sleep(0.05)

    head, _ = await connection.ask(trailer.encode() + b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert await connection.is_over()
    for scope in app.scopes:
        assert scope["headers"] == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]


CHUNKS = {
    "bare LF": b"3\nabc\n0\n\n",
    "negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "hexadecimal prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
    "leading space": b" 3\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "size of nine digits": b"000000003\r\nabc\r\n0\r\n\r\n",
    "longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "control character in the extension": b"3;a=\0\r\nabc\r\n0\r\n\r\n",
    "CR in the extension": b"3;a=\rb\r\nabc\r\n0\r\n\r\n",
    "endless extension": b"3;" + b"a" * 1_000,
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
async def test_invalid_chunk_is_rejected(port: int, chunks: bytes) -> None:
    connection = await Connection.to(port)

    head, _ = await connection.ask(CHUNKED + chunks)

    assert head.startswith(b"HTTP/1.1 400 ")
    assert await connection.is_over()


async def test_chunked_body_is_decoded_and_its_extensions_are_ignored(port: int, app: EchoApp) -> None:
    connection = await Connection.to(port)

    _, body = await connection.ask(CHUNKED + b'3;name="value"\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n')

    assert body == b"abc0123456789"


async def test_request_after_a_chunked_one_is_served(port: int) -> None:
    connection = await Connection.to(port)

    connection.writer.write(CHUNKED + b"1\r\na\r\n0\r\n\r\n" + CHUNKED + b"1\r\nb\r\n0\r\n\r\n")

    assert (await connection.answer())[1] == b"a"
    assert (await connection.answer())[1] == b"b"


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.3\r\n",
    "upgrade without connection": b"Upgrade: h2c\r\n",
    "keep-alive and upgrade": b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n",
}


@pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES)
async def test_upgrade_is_ignored(port: int, app: EchoApp, headers: bytes) -> None:
    connection = await Connection.to(port)
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + headers + b"\r\nabc"

    for _ in range(2):
        head, body = await connection.ask(request)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b"abc"
    assert {b"upgrade", b"http2-settings"}.isdisjoint(dict(app.headers))


async def test_empty_lines_before_a_request_are_ignored(port: int) -> None:
    connection = await Connection.to(port)

    head, _ = await connection.ask(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")


async def test_expect_is_ignored_for_http_1_0(port: int) -> None:
    connection = await Connection.to(port)

    head, body = await connection.ask(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"x"


HEADS = b"POST /a?b=c HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Twice: 1\r\nx-twice: 2\r\nContent-Length: 5\r\n\r\n"


def test_serialized_head_is_the_same_request() -> None:
    head = parse_head(HEADS)

    assert parse_head(serialize_head(head))[:6] == head[:6]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_chunked_body_is_the_same_however_it_is_split(pieces: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" + b"next"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    decoder, decoded, unread = ChunkedBody(), b"", b""

    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        piece, unread = decoder.feed(unread + raw[start:end])
        decoded += piece

    assert decoder.is_complete
    assert decoded == b"".join(pieces)
    assert unread == b"next"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_framing_errors(raw: bytes) -> None:
    for parse in (lambda: parse_head(raw + b"\r\n\r\n"), lambda: ChunkedBody().feed(raw)):
        with suppress(FramingError):
            parse()


async def test_body_of_too_many_chunks_is_rejected(port: int) -> None:
    connection = await Connection.to(port)

    head, _ = await connection.ask(CHUNKED + b"1\r\n \r\n" * (MAX_CHUNKS + 1))

    assert head.startswith(b"HTTP/1.1 413 ")


async def test_white_space_around_a_header_value_is_ignored(port: int) -> None:
    connection = await Connection.to(port)

    _, body = await connection.ask(b"POST / HTTP/1.1\r\nHost: a \t\r\nContent-Length:  4 \r\n\r\nbody")

    assert body == b"body"
