"""Responses are complete, in order, and correctly framed."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.serving.admission import ConnectionLimiter
from app.serving.outbox import MAX_BUFFERED_BYTES, BufferedTransport, Outbox
from benchmarks.floors import live
from tests.support.http_server import serve

BODY = b'{"a":1}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds as the path says."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    pieces: list[Message] = [{"type": "http.response.body", "body": BODY}]
    match scope["path"]:
        case "/forged":
            headers.append((b"x-name", b"a\r\nset-cookie: stolen"))
        case "/too-long":
            headers[1] = (b"content-length", b"%d" % (len(BODY) + 1))
        case "/stream":
            headers.pop()
            pieces = [{"type": "http.response.body", "body": b"one", "more_body": True}, {**pieces[0], "body": b"two"}]
        case "/long":
            pieces = [{"type": "http.response.body", "body": b"x" * (MAX_BUFFERED_BYTES * 4)}]
            headers[1] = (b"content-length", b"%d" % (MAX_BUFFERED_BYTES * 4))
        case "/read":
            await receive()
        case "/slow":
            await asyncio.sleep(0.05)
            headers.append((b"x-slow", b"yes"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/breaks":
        raise RuntimeError
    for piece in pieces:
        await send(piece)


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    async with serve(app, http=ConnectionLimiter(lambda: 0)) as url:
        yield "127.0.0.1", int(url.rsplit(":", 1)[1])


async def exchange(address: tuple[str, int], text: str, seconds: float = 0.5) -> bytes:
    """Everything that is received until the connection ends or `seconds` have passed."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text.encode())
    heard = b""
    try:
        async with asyncio.timeout(seconds):
            while part := await reader.read(65_536):
                heard += part
    except TimeoutError:
        pass
    writer.close()
    return heard


def ask(path: str, method: str = "GET", more: str = "") -> str:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n"


async def test_response_is_complete_and_the_connection_stays_open(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/"))

    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 7" in head
    assert b"connection: close" not in head
    assert body == BODY


async def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/slow") + ask("/stream") + ask("/"))

    assert heard.count(b"HTTP/1.1 200 OK") == 3
    assert heard.index(b"x-slow") < heard.index(b"one") < heard.rindex(BODY)


async def test_connection_close_is_confirmed_and_the_connection_ends(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/", more="connection: close\r\n"), seconds=5)

    head, _, body = heard.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert body == BODY


async def test_line_break_in_a_header_value_does_not_inject_a_header(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/forged"))

    assert b"set-cookie" not in heard


async def test_head_response_has_no_body(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/", "HEAD") + ask("/"))

    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(BODY) == 1


async def test_wrong_content_length_closes_the_connection(address: tuple[str, int]) -> None:
    began = time.monotonic()
    heard = await exchange(address, ask("/too-long") + ask("/"), seconds=10)

    assert time.monotonic() - began < 8, "the connection ends, or the next response would be read as the missing byte"
    assert heard.count(b"HTTP/1.1") == 1


async def test_error_before_the_body_is_a_500(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/breaks"), seconds=5)

    assert heard.startswith(b"HTTP/1.1 500 ")
    assert heard.count(b"HTTP/1.1") == 1


async def test_long_response_is_complete(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/long"), seconds=2)

    assert heard.count(b"x") >= MAX_BUFFERED_BYTES * 4


async def test_expect_100_continue_is_answered(address: tuple[str, int]) -> None:
    heard = await exchange(address, ask("/read", "POST", "expect: 100-continue\r\ncontent-length: 2\r\n"))

    assert heard == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_all_responses_that_finish_together_are_sent() -> None:
    outbox, lines = Outbox(), [FakeTransport(is_gone=False) for _ in range(100)]
    for line in lines:
        BufferedTransport(line, outbox).write(BODY)
    await asyncio.sleep(0)

    assert [line.heard for line in lines] == [[BODY]] * len(lines)


async def test_client_that_disconnects_early_does_not_delay_others(address: tuple[str, int]) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection(*address)
        writer.write(ask("/slow").encode())
        await writer.drain()
        writer.transport.abort()

    heard = await asyncio.gather(*(exchange(address, ask("/")) for _ in range(5)))

    assert all(one.endswith(BODY) for one in heard)


class FakeTransport(asyncio.Transport):
    """A transport that can be closed."""

    def __init__(self, *, is_gone: bool) -> None:
        super().__init__()
        self.heard: list[bytes | bytearray | memoryview] = []
        self._is_gone = is_gone

    def is_closing(self) -> bool:
        return self._is_gone

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_gone:
            raise RuntimeError("the handler is closed")
        self.heard.append(data)


async def test_closed_connection_does_not_hold_back_other_responses() -> None:
    outbox, gone, there = Outbox(), FakeTransport(is_gone=True), FakeTransport(is_gone=False)
    for line in (gone, there):
        BufferedTransport(line, outbox).write(BODY)

    outbox.done()

    assert there.heard == [BODY]
