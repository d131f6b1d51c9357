"""The fast path over the wire: its responses equal those of the whole app, however the bytes arrive."""

import asyncio
import json
import re
from functools import cache
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.observability import logging as logs
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token

PATH = "/v1/telephony-credentials"
BODY = b'{"device_id": "laptop"}'
VARYING_FIELDS = re.compile(
    rb'(?mi)^(date|x-request-id|ratelimit-remaining|ratelimit-reset): [^\r]*|"server_time":"[^"]*"'
)


cached_token = cache(token)
"""The same token each time, as a page sends it."""


def request_bytes(
    *more: str,
    user: str = "alice",
    body: bytes = BODY,
    method: str = "POST",
    target: str = PATH,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: a", f"Authorization: Bearer {cached_token(user)}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, service: Service) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1])))

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the next response."""
        async with asyncio.timeout(5):
            head = await self._reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?mi)^content-length: (\d+)", head)
            return head, await self._reader.readexactly(int(found[1]) if found else 0)

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        self.writer.write(request)
        return await self.answer()

    async def is_over(self) -> bool:
        try:
            async with asyncio.timeout(1):
                return await self._reader.read(1) == b""
        except TimeoutError:
            return False


class CountingApp:
    """Counts the requests that reach the app behind the fast path."""

    def __init__(self, service: Service) -> None:
        outermost: Any = service.app
        self.requests = 0
        self._app: ASGIApp = outermost.app
        outermost.app = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += scope["type"] == "http"
        await self._app(scope, receive, send)


def is_cached(service: Service) -> bool:
    outermost: Any = service.app
    return bool(outermost.cached_requests)


def comparable(answer: tuple[bytes, bytes]) -> list[bytes]:
    """The lines of a response without the parts that vary."""
    return sorted(VARYING_FIELDS.sub(rb"\1", b"".join(answer)).split(b"\r\n"))


async def connect_with_cached_login(service: Service, request: bytes) -> tuple[Connection, tuple[bytes, bytes]]:
    """A connection of a device whose response is cached, and the last response of the app."""
    connection = await Connection.to(service)
    await connection.ask(request)
    by_the_app = await connection.ask(request)
    assert is_cached(service)
    return connection, by_the_app


REQUESTS = {
    "minimal": request_bytes(),
    "allowed origin": request_bytes("Origin: https://app.example.com"),
    "other origin": request_bytes("Origin: https://elsewhere.example.com"),
    "request id": request_bytes("X-Request-ID: abc-1"),
    "invalid request id": request_bytes("X-Request-ID: a b"),
    "traceparent": request_bytes("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "keep-alive": request_bytes("Connection: keep-alive"),
    "empty header": request_bytes("X-Empty:"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_fast_path_response_equals_the_app_response(service: Service, request_: bytes) -> None:
    app = CountingApp(service)
    connection, by_the_app = await connect_with_cached_login(service, request_)
    assert app.requests == 2

    by_the_fast_path = await connection.ask(request_)

    assert app.requests == 2
    assert comparable(by_the_fast_path) == comparable(by_the_app)
    assert json.loads(by_the_fast_path[1])["login_token"] == json.loads(by_the_app[1])["login_token"]


async def test_each_response_has_its_own_or_the_callers_request_id(service: Service) -> None:
    connection, _ = await connect_with_cached_login(service, request_bytes())
    ids = [re.findall(rb"x-request-id: (\S+)", (await connection.ask(request_bytes()))[0]) for _ in range(3)]

    assert len({tuple(one) for one in ids}) == 3
    for own in ("first", "second"):
        head, _ = await connection.ask(request_bytes(f"X-Request-ID: {own}"))
        assert f"x-request-id: {own}\r\n".encode() in head


async def test_request_in_several_segments_is_answered_once(service: Service) -> None:
    app = CountingApp(service)
    connection, _ = await connect_with_cached_login(service, request_bytes())
    whole = request_bytes()
    for at in (1, 30, len(whole) - len(BODY), len(whole) - 3):
        connection.writer.write(whole[:at])
        await asyncio.sleep(0.02)
        head, body = await connection.ask(whole[at:])
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body)["device_id"] == "laptop"
    # Two of the four requests had reached the app before their last segment arrived.
    assert app.requests == 2 + 2


async def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    connection, _ = await connect_with_cached_login(service, request_bytes("X-Request-ID: x"))
    app = CountingApp(service)
    connection.writer.write(b"".join(request_bytes(f"X-Request-ID: {number}") for number in range(20)))

    heads = [(await connection.answer())[0] for _ in range(20)]

    assert [int(re.findall(rb"x-request-id: (\d+)", head)[0]) for head in heads] == list(range(20))
    assert app.requests == 19, "the fast path answers one request per read"


async def test_cached_response_does_not_overtake_an_earlier_request(service: Service) -> None:
    """A new device takes two calls to Telnyx; the cached response behind it must not overtake."""
    connection, _ = await connect_with_cached_login(service, request_bytes("X-Request-ID: second"))
    new = request_bytes("X-Request-ID: first", body=b'{"device_id": "other"}')
    connection.writer.write(new)
    await asyncio.sleep(0.001)
    connection.writer.write(request_bytes("X-Request-ID: second"))

    assert b"x-request-id: first\r\n" in (await connection.answer())[0]
    assert b"x-request-id: second\r\n" in (await connection.answer())[0]


async def test_connection_close_is_confirmed_and_not_cached(service: Service) -> None:
    for _ in range(3):
        connection = await Connection.to(service)
        head, _ = await connection.ask(request_bytes("Connection: close"))
        assert b"connection: close" in head
        assert await connection.is_over()

    assert not is_cached(service)


async def test_http_1_0_connection_closes_after_the_response(service: Service) -> None:
    await connect_with_cached_login(service, request_bytes())

    connection = await Connection.to(service)
    await connection.ask(request_bytes(version="1.0"))

    assert await connection.is_over()


async def test_expect_100_continue_is_answered(service: Service) -> None:
    whole = request_bytes("Expect: 100-continue")
    for _ in range(3):
        connection = await Connection.to(service)
        connection.writer.write(whole.removesuffix(BODY))
        head, _ = await connection.answer()
        assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
        head, _ = await connection.ask(BODY)
        assert head.startswith(b"HTTP/1.1 20")


async def test_get_on_the_same_path_is_not_a_login(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither without a body nor with the body of a login request."""
    connection, _ = await connect_with_cached_login(service, request_bytes())
    capsys.readouterr()

    for body in (b"", BODY):
        for _ in range(3):
            head, logged = await connection.ask(request_bytes(method="GET", body=body))
            assert head.startswith(b"HTTP/1.1 200 ")
            assert "data" in json.loads(logged)

    assert not [text for text in capsys.readouterr().err.splitlines() if '"level":"error"' in text]


async def test_other_targets_are_not_served_from_the_cache(service: Service) -> None:
    connection, _ = await connect_with_cached_login(service, request_bytes())

    head, _ = await connection.ask(request_bytes(target=f"{PATH}/"))
    assert head.startswith(b"HTTP/1.1 404")
    head, _ = await connection.ask(request_bytes(target=f"{PATH}?a=b"))
    assert head.startswith(b"HTTP/1.1 200")


async def test_invalid_bytes_after_a_cached_request_close_the_connection(service: Service) -> None:
    connection, _ = await connect_with_cached_login(service, request_bytes())

    connection.writer.write(request_bytes() + b"nonsense\r\n\r\n")

    assert (await connection.answer())[0].startswith(b"HTTP/1.1 200")
    assert (await connection.answer())[0].startswith(b"HTTP/1.1 400")
    assert await connection.is_over()


async def test_cached_response_is_logged_like_any_other(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", as_json=True)
    connection, _ = await connect_with_cached_login(service, request_bytes())
    capsys.readouterr()

    await connection.ask(request_bytes("X-Request-ID: mine"))  # not cached yet
    await connection.ask(request_bytes("X-Request-ID: its"))

    logged = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    by_the_app, by_the_fast_path = (one for one in logged if one["event"] == "request")
    assert by_the_fast_path["request_id"] == "its"
    for one in (by_the_app, by_the_fast_path):
        for own in ("timestamp", "request_id", "milliseconds"):
            del one[own]
    assert by_the_fast_path == by_the_app


async def test_request_of_another_peer_address_is_not_served_from_the_cache(telnyx: Telnyx, sqlite: str) -> None:
    """Whether `X-Forwarded-For` is trusted depends on the peer address."""
    async with running_service(telnyx, sqlite) as service:
        await connect_with_cached_login(service, request_bytes("X-Forwarded-For: 203.0.113.7"))
        port = int(service.url.rsplit(":", 1)[1])
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)))
        app = CountingApp(service)

        await connection.ask(request_bytes("X-Forwarded-For: 203.0.113.7"))

        assert app.requests == 1
