"""Answers leave whole, in order, and never say more than they were meant to."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.serving.admission import Door
from app.serving.outbox import MOST_GATHERED, Gathering, Outbox
from benchmarks.floors import live
from tests.stage import serving

BODY = b'{"a":1}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as its address says."""
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
            pieces = [{"type": "http.response.body", "body": b"x" * (MOST_GATHERED * 4)}]
            headers[1] = (b"content-length", b"%d" % (MOST_GATHERED * 4))
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
    async with serving(app, http=Door(lambda: 0)) as url:
        yield "127.0.0.1", int(url.rsplit(":", 1)[1])


async def say(address: tuple[str, int], text: str, seconds: float = 0.5) -> bytes:
    """Everything that comes back until the connection ends, or for so long."""
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


async def test_an_answer_is_complete_and_the_connection_stays(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/"))

    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 7" in head
    assert b"connection: close" not in head
    assert body == BODY


async def test_requests_on_one_connection_are_answered_in_their_order(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/slow") + ask("/stream") + ask("/"))

    assert heard.count(b"HTTP/1.1 200 OK") == 3
    assert heard.index(b"x-slow") < heard.index(b"one") < heard.rindex(BODY)


async def test_who_asks_for_the_last_time_is_told_so_and_the_connection_ends(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/", more="connection: close\r\n"), seconds=5)

    head, _, body = heard.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert body == BODY


async def test_a_line_break_in_a_header_begins_no_header_of_its_own(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/forged"))

    assert b"set-cookie" not in heard


async def test_head_has_no_body(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/", "HEAD") + ask("/"))

    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(BODY) == 1


async def test_a_length_that_is_wrong_is_never_sent_as_if_it_were_right(address: tuple[str, int]) -> None:
    began = time.monotonic()
    heard = await say(address, ask("/too-long") + ask("/"), seconds=10)

    assert time.monotonic() - began < 8, "the connection ends: what came next would be taken for the missing byte"
    assert heard.count(b"HTTP/1.1") == 1


async def test_an_app_that_breaks_before_the_body_is_an_error_and_no_riddle(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/breaks"), seconds=5)

    assert heard.startswith(b"HTTP/1.1 500 ")
    assert heard.count(b"HTTP/1.1") == 1


async def test_what_is_long_arrives_whole(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/long"), seconds=2)

    assert heard.count(b"x") >= MOST_GATHERED * 4


async def test_who_waits_to_be_told_to_go_on_is_told(address: tuple[str, int]) -> None:
    heard = await say(address, ask("/read", "POST", "expect: 100-continue\r\ncontent-length: 2\r\n"))

    assert heard == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_however_many_are_ready_at_once_each_is_sent() -> None:
    outbox, lines = Outbox(), [Line(is_gone=False) for _ in range(100)]
    for line in lines:
        Gathering(line, outbox).write(BODY)
    await asyncio.sleep(0)

    assert [line.heard for line in lines] == [[BODY]] * len(lines)


async def test_who_leaves_in_the_middle_holds_up_nobody(address: tuple[str, int]) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection(*address)
        writer.write(ask("/slow").encode())
        await writer.drain()
        writer.transport.abort()

    heard = await asyncio.gather(*(say(address, ask("/")) for _ in range(5)))

    assert all(one.endswith(BODY) for one in heard)


class Line(asyncio.Transport):
    """The other side of a connection."""

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


async def test_who_is_gone_before_the_answers_leave_keeps_back_nobodys() -> None:
    outbox, gone, there = Outbox(), Line(is_gone=True), Line(is_gone=False)
    for line in (gone, there):
        Gathering(line, outbox).write(BODY)

    outbox.done()

    assert there.heard == [BODY]
