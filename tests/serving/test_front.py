"""The front: every response belongs to its request, and a connection holds a bounded amount of memory."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.serving.admission import SWEEP_SECONDS, ConnectionLimiter
from app.serving.front import READ_BYTES, FrontProtocol
from app.serving.front_host import Answer, Request
from app.serving.outbox import MAX_BUFFERED_BYTES, SOCKET_BUFFER_BYTES
from tests.support.front_server import Connection, connection_limiter, front_server
from tests.support.waiting import eventually

BODY = b'{"a":1}'


class PathApp:
    """Responds as the path says."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.disconnects = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        self.paths.append(path)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
        pieces: list[Message] = [{"type": "http.response.body", "body": BODY}]
        match path:
            case "/forged":
                headers.append((b"x-name", b"a\r\nset-cookie: stolen"))
            case "/too-long":
                headers[1] = (b"content-length", b"%d" % (len(BODY) + 1))
            case "/stream":
                headers.pop()
                pieces = [
                    {"type": "http.response.body", "body": b"one", "more_body": True},
                    {"type": "http.response.body", "body": b"two"},
                ]
            case "/long":
                pieces = [{"type": "http.response.body", "body": b"x" * (MAX_BUFFERED_BYTES * 4)}]
                headers[1] = (b"content-length", b"%d" % (MAX_BUFFERED_BYTES * 4))
            case "/read":
                if (await receive())["type"] == "http.disconnect":
                    self.disconnects += 1
            case "/slow":
                await asyncio.sleep(0.05)
                headers.append((b"x-slow", b"yes"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path == "/breaks":
            raise RuntimeError
        for piece in pieces:
            await send(piece)


class EchoFastPath:
    """Answers every request for one target with its body."""

    target = b"/fast"
    max_body_bytes = 100

    def answer(self, requests: Sequence[Request]) -> list[Answer | None]:
        return [(200, b"content-length: %d\r\n\r\n%b" % (len(request.body), request.body)) for request in requests]


@pytest.fixture
def app() -> PathApp:
    return PathApp()


@pytest.fixture
async def port(app: PathApp) -> AsyncIterator[int]:
    limiter = connection_limiter()
    limiter.fast_path = EchoFastPath()
    async with front_server(app, limiter) as port:
        yield port


CLOSE = "connection: close\r\n"


async def exchange(port: int, text: bytes) -> bytes:
    """Everything that is received until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    async with asyncio.timeout(20):
        heard = await reader.read()
    writer.close()
    return heard


def ask(path: str, method: str = "GET", more: str = "", body: str = "") -> bytes:
    length = f"content-length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{length}{more}\r\n{body}".encode()


async def test_response_is_complete_and_the_connection_stays_open(port: int) -> None:
    connection = await Connection.to(port)

    head, body = await connection.ask(ask("/"))

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 7" in head
    assert b"connection: close" not in head
    assert body == BODY
    assert (await connection.ask(ask("/")))[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    requests = ask("/slow") + ask("/fast", "POST", body="quick") + ask("/stream") + ask("/fast", "POST", body="last")
    heard = await exchange(port, requests + ask("/", more=CLOSE))

    assert heard.count(b"HTTP/1.1 200 OK") == 5
    places = [heard.index(part) for part in (b"x-slow", b"quick", b"one", b"last")]
    assert places == sorted(places)
    assert heard.endswith(BODY)


MIXED = [ask("/fast", "POST", body="first"), ask("/read", "POST", body="abc"), ask("/fast", "POST", body="second")]


@pytest.mark.parametrize("size", [1, 2, 7, 40])
async def test_requests_are_answered_however_their_bytes_arrive(port: int, app: PathApp, size: int) -> None:
    raw = b"".join(MIXED)
    connection = await Connection.to(port)
    for at in range(0, len(raw), size):
        connection.writer.write(raw[at : at + size])
        await asyncio.sleep(0.0005)

    assert [(await connection.answer())[1] for _ in MIXED] == [b"first", BODY, b"second"]
    assert app.paths == ["/read"]


async def test_request_split_at_every_byte_is_answered_once(port: int) -> None:
    raw = MIXED[0]
    connection = await Connection.to(port)
    for at in range(1, len(raw)):
        connection.writer.write(raw[:at])
        await asyncio.sleep(0.0005)
        connection.writer.write(raw[at:])
        assert (await connection.answer())[1] == b"first"


async def test_connection_close_is_confirmed_and_the_connection_ends(port: int) -> None:
    connection = await Connection.to(port)

    head, body = await connection.ask(ask("/", more="connection: close\r\n"))

    assert b"connection: close" in head
    assert body == BODY
    assert await connection.is_over()


async def test_http_1_0_connection_ends_after_the_response(port: int) -> None:
    connection = await Connection.to(port)

    head, body = await connection.ask(b"GET / HTTP/1.0\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == BODY
    assert await connection.is_over()


async def test_line_break_in_a_header_value_does_not_inject_a_header(port: int) -> None:
    assert b"set-cookie" not in await exchange(port, ask("/forged", more=CLOSE))


async def test_head_response_has_no_body(port: int) -> None:
    heard = await exchange(port, ask("/", "HEAD") + ask("/", more=CLOSE))

    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(BODY) == 1


async def test_wrong_content_length_closes_the_connection(port: int) -> None:
    """Otherwise, the next response would be read as the missing byte."""
    heard = await exchange(port, ask("/too-long") + ask("/"))

    assert heard.count(b"HTTP/1.1") == 1


async def test_error_before_the_body_is_a_500(port: int) -> None:
    heard = await exchange(port, ask("/breaks"))

    assert heard.count(b"HTTP/1.1") == 1


async def test_long_response_is_complete(port: int) -> None:
    heard = await exchange(port, ask("/long", more=CLOSE))

    assert heard.count(b"x") >= MAX_BUFFERED_BYTES * 4


async def test_expect_100_continue_is_answered_before_the_body_arrives(port: int) -> None:
    connection = await Connection.to(port)

    head, _ = await connection.ask(ask("/read", "POST", "expect: 100-continue\r\ncontent-length: 2\r\n"))

    assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await connection.ask(b"ok"))[1] == BODY


async def test_client_that_disconnects_early_does_not_delay_others(port: int, app: PathApp) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/slow"))
        await writer.drain()
        writer.transport.abort()

    heard = await asyncio.gather(*(exchange(port, ask("/", more=CLOSE)) for _ in range(5)))

    assert all(one.endswith(BODY) for one in heard)


async def test_framing_error_in_a_streamed_body_disconnects_the_app(port: int, app: PathApp) -> None:
    connection = await Connection.to(port)
    connection.writer.write(ask("/read", "POST", "transfer-encoding: chunked\r\n"))
    await eventually(lambda: app.paths)

    head, _ = await connection.ask(b"xyz\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert await connection.is_over()
    await eventually(lambda: app.disconnects == 1)


class FailingFastPath(EchoFastPath):
    def answer(self, requests: Sequence[Request]) -> list[Answer | None]:
        raise RuntimeError


async def test_failing_fast_path_falls_back_to_the_app(app: PathApp) -> None:
    limiter = connection_limiter()
    limiter.fast_path = FailingFastPath()
    async with front_server(app, limiter) as port:
        connection = await Connection.to(port)
        assert (await connection.ask(ask("/fast")))[1] == BODY


@pytest.mark.parametrize("path", ["/fast", "/"])
async def test_idle_connection_is_closed_after_the_keep_alive_timeout(app: PathApp, path: str) -> None:
    limiter = connection_limiter()
    limiter.fast_path = EchoFastPath()
    async with front_server(app, limiter, keep_alive_seconds=60) as port:
        connection = await Connection.to(port)
        for _ in range(3):
            await connection.ask(ask(path))
            _age(limiter, 40)
            await asyncio.sleep(SWEEP_SECONDS + 0.1)
        _age(limiter, 40)
        assert await connection.is_over()


async def test_keep_alive_timeout_does_not_cut_a_request_that_has_begun(app: PathApp) -> None:
    limiter = connection_limiter(request_seconds=300)
    async with front_server(app, limiter, keep_alive_seconds=60) as port:
        connection = await Connection.to(port)
        await connection.ask(ask("/"))
        connection.writer.write(ask("/")[:9])
        await eventually(lambda: limiter.connections[0].is_receiving)
        _age(limiter, 100)
        await asyncio.sleep(SWEEP_SECONDS + 0.1)
        assert (await connection.ask(ask("/")[9:]))[1] == BODY


def _age(limiter: ConnectionLimiter, seconds: float) -> None:
    """Let time pass for the connections. To wait for it, a test would need a timeout that a busy machine exceeds."""
    for front in limiter.connections:
        front.since -= seconds


async def test_head_that_is_too_long_is_rejected_while_it_arrives(port: int) -> None:
    connection = await Connection.to(port)
    connection.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    answer = asyncio.create_task(connection.answer())
    for _ in range(100):
        if answer.done():
            break
        connection.writer.write(b"x" * 1024)
        await asyncio.sleep(0.001)

    head, _ = await answer
    assert head.startswith(b"HTTP/1.1 431 ")


async def test_target_that_is_too_long_is_rejected_while_it_arrives(port: int) -> None:
    connection = await Connection.to(port)

    head, _ = await connection.ask(b"GET /" + b"x" * 20_000)

    assert head.startswith(b"HTTP/1.1 414 ")


async def test_client_that_does_not_read_stops_being_read(port: int, app: PathApp) -> None:
    """Pipelined requests fill the client's socket, and not the server's memory."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setblocking(False)
        pipelined = memoryview(ask("/long") * 400_000)
        sent, served = client.send(pipelined), -1
        while served != len(app.paths) and len(app.paths) < 100:
            served = len(app.paths)
            for _ in range(20):
                await asyncio.sleep(0.05)
                with suppress(BlockingIOError):
                    sent += client.send(pipelined[sent:])

        assert len(app.paths) == served < 100
        assert sent < len(pipelined)


async def test_shutdown_answers_the_request_that_has_begun_to_arrive(app: PathApp) -> None:
    limiter = connection_limiter()
    async with front_server(app, limiter) as port:
        idle, begun = await Connection.to(port), await Connection.to(port)
        await idle.ask(ask("/"))
        begun.writer.write(ask("/")[:20])
        await eventually(lambda: any(front.is_receiving for front in limiter.connections))
        for front in limiter.connections:
            front.shutdown()

        assert await idle.is_over()
        assert (await begun.ask(ask("/")[20:]))[1] == BODY
        assert await begun.is_over()


async def test_shutdown_ends_a_connection_that_has_sent_an_empty_line(app: PathApp) -> None:
    """Old clients send one after a body (RFC 9112 section 2.2). No request follows it."""
    limiter = connection_limiter()
    async with front_server(app, limiter) as port:
        connection = await Connection.to(port)
        await connection.ask(ask("/"))
        [front] = limiter.connections
        _receive(front, b"\r\n")
        front.shutdown()

        assert await connection.is_over()


def _receive(front: FrontProtocol, data: bytes) -> None:
    """Deliver bytes as the event loop does."""
    front.get_buffer(len(data))[: len(data)] = data
    front.buffer_updated(len(data))


@pytest.mark.parametrize("request_", [ask("/fast", "POST", body="quick"), ask("/slow")], ids=["fast path", "app"])
async def test_pipelined_requests_wait_in_the_clients_socket(app: PathApp, request_: bytes) -> None:
    """However fast a client reads its responses, and although requests are served one at a time."""
    limiter = connection_limiter()
    limiter.fast_path = EchoFastPath()
    held: list[int] = []
    async with front_server(app, limiter) as port:
        connection = await Connection.to(port)
        connection.writer.write(request_ * 20_000)
        for _ in range(50):
            with suppress(TimeoutError):
                await asyncio.wait_for(connection.reader.read(100_000), 0.01)
            held += [front.held_bytes for front in limiter.connections]
        connection.writer.transport.abort()

    assert max(held) <= READ_BYTES + len(request_)


async def test_client_that_does_not_read_is_disconnected_for_others(app: PathApp) -> None:
    limiter = connection_limiter(max_requests=2, max_unread_responses=2)
    async with front_server(app, limiter) as port:
        unread = [await Connection.to(port) for _ in range(6)]
        for connection in unread:
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            connection.writer.write(ask("/long") * 200)
            await asyncio.sleep(0.1)

        assert (await (await Connection.to(port)).ask(ask("/")))[1] == BODY
        for connection in unread:
            connection.writer.transport.abort()


async def test_response_before_the_body_is_received_although_the_connection_closes(port: int) -> None:
    connection = await Connection.to(port)
    connection.writer.write(ask("/", "POST", "connection: close\r\ncontent-length: 400000\r\n"))
    connection.writer.write(b"x" * 200_000)

    assert (await connection.answer())[1] == BODY
    assert await connection.is_over()


async def test_rest_of_an_answered_body_is_discarded_before_the_next_request(port: int, app: PathApp) -> None:
    connection = await Connection.to(port)
    connection.writer.write(ask("/", "POST", "content-length: 100000\r\n"))
    assert (await connection.answer())[1] == BODY
    connection.writer.write(b"x" * 100_000)

    assert (await connection.ask(ask("/slow")))[1] == BODY
    assert app.paths == ["/", "/slow"]


async def test_request_of_a_client_that_has_reset_the_connection_has_its_address() -> None:
    clients: list[object] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        if scope["type"] == "http":
            clients.append(scope["client"])

    async with front_server(app) as port:
        for number in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                await asyncio.sleep(0.005 * (number % 2))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(ask("/"))
        await asyncio.sleep(0.1)

    assert None not in clients


async def test_socket_buffers_of_a_connection_are_limited(app: PathApp) -> None:
    limiter = connection_limiter()
    async with front_server(app, limiter) as port:
        await (await Connection.to(port)).ask(ask("/"))
        transport = limiter.connections[0].transport
        assert transport is not None
        own = transport.get_extra_info("socket")

        # Linux reserves twice of what is set.
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SOCKET_BUFFER_BYTES
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * SOCKET_BUFFER_BYTES
