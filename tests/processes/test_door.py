"""The door: so many connections are read from at once, the others wait outside and lose nothing by it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from app.serving.admission import Door
from app.serving.login_response_cache import Asked
from tests.stage import eventually, serving

MOST_INSIDE = 3


class Counter:
    """An app that knows how many requests are in it at once, and takes a moment for each."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.now = self.most = self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.now += 1
        self.most = max(self.most, self.now)
        body = (await receive())["body"]
        await asyncio.sleep(self.seconds)
        self.now -= 1
        self.served += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def behind_a_door(app: Counter, under_way: int = 0) -> AsyncIterator[tuple[Door, int]]:
    door = Door(lambda: under_way, MOST_INSIDE, first_word_seconds=1.0)
    async with serving(app, door) as url:
        yield door, int(url.rsplit(":", 1)[1])


async def knock(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def ask(port: int, body: bytes, *, keeps: bool = False) -> bytes:
    """One request over a connection of its own; what came back as its body."""
    reader, writer = await knock(port)
    close = b"" if keeps else b"Connection: close\r\n"
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s" % (close, len(body), body))
    await reader.readuntil(b"\r\n\r\n")
    answer = await reader.readexactly(len(body))
    if not keeps:
        writer.close()
    return answer


async def test_a_crowd_is_let_in_part_by_part_and_everybody_is_answered() -> None:
    app = Counter()
    async with behind_a_door(app) as (door, port):
        bodies = [b"request %d" % number for number in range(60)]
        answers = await asyncio.gather(*(ask(port, body) for body in bodies))

    assert answers == bodies
    assert app.most <= MOST_INSIDE
    assert not door.is_crowded


async def test_who_waits_for_a_login_does_not_stand_in_the_way() -> None:
    app = Counter(seconds=0.1)
    async with behind_a_door(app, under_way=4) as (_, port):
        await asyncio.gather(*(ask(port, b"x") for _ in range(20)))

    assert MOST_INSIDE < app.most <= MOST_INSIDE + 4


async def test_an_idle_connection_makes_room() -> None:
    async with behind_a_door(Counter()) as (_, port):
        for _ in range(MOST_INSIDE):
            await ask(port, b"idle", keeps=True)
        await asyncio.sleep(1.1)
        began = time.monotonic()
        assert await ask(port, b"new") == b"new"

    assert time.monotonic() - began < 1


@pytest.mark.parametrize("said", [b"", b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: "], ids=["silence", "drips"])
async def test_who_says_nothing_keeps_nobody_outside(said: bytes) -> None:
    async with behind_a_door(Counter()) as (_, port):
        silent = [await knock(port) for _ in range(2 * MOST_INSIDE)]
        for _, writer in silent:
            writer.write(said)

        assert await asyncio.wait_for(ask(port, b"new"), 4) == b"new"


async def test_the_newest_is_let_in_first() -> None:
    app = Counter(seconds=0.05)
    answered: list[bytes] = []

    async def one(port: int, body: bytes) -> None:
        answered.append(await ask(port, body))

    async with behind_a_door(app) as (door, port):
        crowd = [asyncio.create_task(one(port, b"crowd")) for _ in range(30)]
        await eventually(lambda: door.is_crowded)
        await asyncio.sleep(0.02)
        await one(port, b"probe")
        place = answered.index(b"probe")
        await asyncio.gather(*crowd)

    assert place <= 3 * MOST_INSIDE


class Shortcut:
    """Has one answer to everything under one address."""

    target = b"/at-hand"

    def answer(self, asked: Asked) -> bytes | None:
        return b"content-length: 2\r\n\r\nok"


@pytest.mark.parametrize("path", ["/at-hand", "/"])
async def test_a_connection_ends_when_it_was_silent_for_long_whoever_answered(path: str) -> None:
    door = Door(lambda: 0)
    door.shortcut = Shortcut()
    async with serving(Counter(seconds=0), door, keep_alive_seconds=1) as url:
        reader, writer = await knock(int(url.rsplit(":", 1)[1]))
        for _ in range(3):
            writer.write(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok" % path.encode())
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.6)
        async with asyncio.timeout(2):
            assert await reader.read() == b""


class Broken(Shortcut):
    def answer(self, asked: Asked) -> bytes | None:
        raise RuntimeError


async def test_a_shortcut_that_breaks_leaves_the_request_to_the_layers() -> None:
    door = Door(lambda: 0)
    door.shortcut = Broken()
    async with serving(Counter(seconds=0), door) as url:
        reader, writer = await knock(int(url.rsplit(":", 1)[1]))
        writer.write(b"POST /at-hand HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nlayers!")
        assert (await reader.readuntil(b"layers!")).startswith(b"HTTP/1.1 200 ")


async def test_who_has_begun_to_speak_is_heard_out() -> None:
    door = Door(lambda: 0)
    door.shortcut = Shortcut()
    async with serving(Counter(seconds=0), door, keep_alive_seconds=1) as url:
        reader, writer = await knock(int(url.rsplit(":", 1)[1]))
        writer.write(b"POST /at-hand HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        writer.write(b"POST /at-hand HT")
        await asyncio.sleep(2)
        writer.write(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\ndate: ")


async def test_who_hangs_up_outside_is_skipped() -> None:
    app = Counter(seconds=0.3)
    async with behind_a_door(app) as (door, port):
        inside = [asyncio.create_task(ask(port, b"inside")) for _ in range(MOST_INSIDE)]
        await asyncio.sleep(0.05)
        gone = [await knock(port) for _ in range(5)]
        await eventually(lambda: door.is_crowded)
        for _, writer in gone:
            writer.transport.abort()
        await asyncio.gather(*inside)
        assert await ask(port, b"after") == b"after"

    assert app.served == MOST_INSIDE + 1


async def test_when_the_service_ends_nobody_is_left_waiting_outside() -> None:
    app = Counter(seconds=0.2)
    async with behind_a_door(app) as (door, port):
        inside = [asyncio.create_task(ask(port, b"inside")) for _ in range(MOST_INSIDE)]
        await asyncio.sleep(0.05)
        reader, _ = await knock(port)
        await eventually(lambda: door.is_crowded)
        door.close()
        assert await reader.read() == b""
        await asyncio.gather(*inside)


pytestmark = pytest.mark.timeout(30)
