"""The connection limiter: it reads from a bounded number of connections and queues the others without loss."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from app.serving.admission import ConnectionLimiter
from app.serving.login_response_cache import RawRequest
from tests.support.http_server import serve
from tests.support.waiting import eventually

LIMIT = 3


class CountingApp:
    """An app that counts concurrent requests and delays each response."""

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
async def limited_server(app: CountingApp, in_flight: int = 0) -> AsyncIterator[tuple[ConnectionLimiter, int]]:
    limiter = ConnectionLimiter(lambda: in_flight, LIMIT, first_request_seconds=1.0)
    async with serve(app, limiter) as url:
        yield limiter, int(url.rsplit(":", 1)[1])


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def ask(port: int, body: bytes, *, keeps: bool = False) -> bytes:
    """Send one request over a new connection and return the response body."""
    reader, writer = await connect(port)
    close = b"" if keeps else b"Connection: close\r\n"
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s" % (close, len(body), body))
    await reader.readuntil(b"\r\n\r\n")
    answer = await reader.readexactly(len(body))
    if not keeps:
        writer.close()
    return answer


async def test_connections_above_the_limit_are_queued_and_all_are_answered() -> None:
    app = CountingApp()
    async with limited_server(app) as (limiter, port):
        bodies = [b"request %d" % number for number in range(60)]
        answers = await asyncio.gather(*(ask(port, body) for body in bodies))

    assert answers == bodies
    assert app.most <= LIMIT
    assert not limiter.is_saturated


async def test_connections_that_wait_for_telnyx_do_not_count() -> None:
    app = CountingApp(seconds=0.1)
    async with limited_server(app, in_flight=4) as (_, port):
        await asyncio.gather(*(ask(port, b"x") for _ in range(20)))

    assert LIMIT < app.most <= LIMIT + 4


async def test_idle_connection_frees_its_place() -> None:
    async with limited_server(CountingApp()) as (_, port):
        for _ in range(LIMIT):
            await ask(port, b"idle", keeps=True)
        await asyncio.sleep(1.1)
        began = time.monotonic()
        assert await ask(port, b"new") == b"new"

    assert time.monotonic() - began < 1


@pytest.mark.parametrize("said", [b"", b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: "], ids=["silence", "drips"])
async def test_silent_or_slow_clients_do_not_block_the_queue(said: bytes) -> None:
    async with limited_server(CountingApp()) as (_, port):
        silent = [await connect(port) for _ in range(2 * LIMIT)]
        for _, writer in silent:
            writer.write(said)

        assert await asyncio.wait_for(ask(port, b"new"), 4) == b"new"


async def test_newest_connection_is_admitted_first() -> None:
    app = CountingApp(seconds=0.05)
    answered: list[bytes] = []

    async def one(port: int, body: bytes) -> None:
        answered.append(await ask(port, body))

    async with limited_server(app) as (limiter, port):
        requests = [asyncio.create_task(one(port, b"requests")) for _ in range(30)]
        await eventually(lambda: limiter.is_saturated)
        await asyncio.sleep(0.02)
        await one(port, b"probe")
        place = answered.index(b"probe")
        await asyncio.gather(*requests)

    assert place <= 3 * LIMIT


class StubFastPath:
    """Answers every request for one target."""

    target = b"/at-hand"

    def answer(self, asked: RawRequest) -> bytes | None:
        return b"content-length: 2\r\n\r\nok"


@pytest.mark.parametrize("path", ["/at-hand", "/"])
async def test_idle_connection_is_closed_after_the_keep_alive_timeout(path: str) -> None:
    limiter = ConnectionLimiter(lambda: 0)
    limiter.fast_path = StubFastPath()
    async with serve(CountingApp(seconds=0), limiter, keep_alive_seconds=1) as url:
        reader, writer = await connect(int(url.rsplit(":", 1)[1]))
        for _ in range(3):
            writer.write(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok" % path.encode())
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.6)
        async with asyncio.timeout(2):
            assert await reader.read() == b""


class FailingFastPath(StubFastPath):
    def answer(self, asked: RawRequest) -> bytes | None:
        raise RuntimeError


async def test_failing_fast_path_falls_back_to_the_app() -> None:
    limiter = ConnectionLimiter(lambda: 0)
    limiter.fast_path = FailingFastPath()
    async with serve(CountingApp(seconds=0), limiter) as url:
        reader, writer = await connect(int(url.rsplit(":", 1)[1]))
        writer.write(b"POST /at-hand HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nlayers!")
        assert (await reader.readuntil(b"layers!")).startswith(b"HTTP/1.1 200 ")


async def test_started_request_is_read_to_its_end() -> None:
    limiter = ConnectionLimiter(lambda: 0)
    limiter.fast_path = StubFastPath()
    async with serve(CountingApp(seconds=0), limiter, keep_alive_seconds=1) as url:
        reader, writer = await connect(int(url.rsplit(":", 1)[1]))
        writer.write(b"POST /at-hand HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        writer.write(b"POST /at-hand HT")
        await asyncio.sleep(2)
        writer.write(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\ndate: ")


async def test_closed_connections_in_the_queue_are_skipped() -> None:
    app = CountingApp(seconds=0.3)
    async with limited_server(app) as (limiter, port):
        inside = [asyncio.create_task(ask(port, b"inside")) for _ in range(LIMIT)]
        await asyncio.sleep(0.05)
        gone = [await connect(port) for _ in range(5)]
        await eventually(lambda: limiter.is_saturated)
        for _, writer in gone:
            writer.transport.abort()
        await asyncio.gather(*inside)
        assert await ask(port, b"after") == b"after"

    assert app.served == LIMIT + 1


async def test_shutdown_closes_queued_connections() -> None:
    app = CountingApp(seconds=0.2)
    async with limited_server(app) as (limiter, port):
        inside = [asyncio.create_task(ask(port, b"inside")) for _ in range(LIMIT)]
        await asyncio.sleep(0.05)
        reader, _ = await connect(port)
        await eventually(lambda: limiter.is_saturated)
        limiter.close()
        assert await reader.read() == b""
        await asyncio.gather(*inside)


pytestmark = pytest.mark.timeout(30)
