"""Over the wire: what the shortcut says is what all layers say, however the bytes come."""

import asyncio
import json
import re
from functools import cache
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.observability import logging as logs
from tests.stage import Service, Telnyx, service_in_front_of, token

PATH = "/v1/telephony-credentials"
BODY = b'{"device_id": "laptop"}'
OWN_EACH_TIME = re.compile(
    rb'(?mi)^(date|x-request-id|ratelimit-remaining|ratelimit-reset): [^\r]*|"server_time":"[^"]*"'
)


token_of = cache(token)
"""The same all the time, as a page has it: each is another by its `jti` or its second."""


def asking(
    *more: str,
    user: str = "alice",
    body: bytes = BODY,
    method: str = "POST",
    target: str = PATH,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: a", f"Authorization: Bearer {token_of(user)}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, service: Service) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1])))

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the next one."""
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


class Layers:
    """All layers of the service, and how many requests came to them."""

    def __init__(self, service: Service) -> None:
        outermost: Any = service.app
        self.requests = 0
        self._app: ASGIApp = outermost._app
        outermost._app = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += scope["type"] == "http"
        await self._app(scope, receive, send)


def is_known(service: Service) -> bool:
    outermost: Any = service.app
    return bool(outermost._known)


def plain(answer: tuple[bytes, bytes]) -> list[bytes]:
    """All of it, line by line, but what is another each time."""
    return sorted(OWN_EACH_TIME.sub(rb"\1", b"".join(answer)).split(b"\r\n"))


async def known(service: Service, request: bytes) -> tuple[Line, tuple[bytes, bytes]]:
    """A line over which a device became known, and the answer that all layers gave."""
    line = await Line.to(service)
    await line.ask(request)
    by_all_layers = await line.ask(request)
    assert is_known(service)
    return line, by_all_layers


KINDS = {
    "plain": asking(),
    "of a page": asking("Origin: https://app.example.com"),
    "of another page": asking("Origin: https://elsewhere.example.com"),
    "with an id": asking("X-Request-ID: abc-1"),
    "with an id that is none": asking("X-Request-ID: a b"),
    "in a trace": asking("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "that stays": asking("Connection: keep-alive"),
    "with an empty header": asking("X-Empty:"),
}


@pytest.mark.parametrize("request_", KINDS.values(), ids=KINDS)
async def test_the_shortcut_says_what_all_layers_say(service: Service, request_: bytes) -> None:
    layers = Layers(service)
    line, by_all_layers = await known(service, request_)
    assert layers.requests == 2

    by_the_shortcut = await line.ask(request_)

    assert layers.requests == 2
    assert plain(by_the_shortcut) == plain(by_all_layers)
    assert json.loads(by_the_shortcut[1])["login_token"] == json.loads(by_all_layers[1])["login_token"]


async def test_each_answer_has_an_id_of_its_own_or_the_caller_s(service: Service) -> None:
    line, _ = await known(service, asking())
    ids = [re.findall(rb"x-request-id: (\S+)", (await line.ask(asking()))[0]) for _ in range(3)]

    assert len({tuple(one) for one in ids}) == 3
    for own in ("first", "second"):
        head, _ = await line.ask(asking(f"X-Request-ID: {own}"))
        assert f"x-request-id: {own}\r\n".encode() in head


async def test_a_request_that_comes_in_pieces_is_answered_once(service: Service) -> None:
    layers = Layers(service)
    line, _ = await known(service, asking())
    whole = asking()
    for at in (1, 30, len(whole) - len(BODY), len(whole) - 3):
        line.writer.write(whole[:at])
        await asyncio.sleep(0.02)
        head, body = await line.ask(whole[at:])
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body)["device_id"] == "laptop"
    # Whole when its last piece came, but the body alone: by then it had begun.
    assert layers.requests == 2 + 2


async def test_many_at_once_over_one_line_are_answered_in_their_order(service: Service) -> None:
    line, _ = await known(service, asking("X-Request-ID: x"))
    layers = Layers(service)
    line.writer.write(b"".join(asking(f"X-Request-ID: {number}") for number in range(20)))

    heads = [(await line.answer())[0] for _ in range(20)]

    assert [int(re.findall(rb"x-request-id: (\d+)", head)[0]) for head in heads] == list(range(20))
    assert layers.requests == 19, "one a read is answered at once, the others have their turns"


async def test_who_comes_behind_one_that_is_under_way_waits_for_it(service: Service) -> None:
    """A new device takes two calls to Telnyx; the known one behind it is at hand, and must not overtake."""
    line, _ = await known(service, asking("X-Request-ID: second"))
    new = asking("X-Request-ID: first", body=b'{"device_id": "other"}')
    line.writer.write(new)
    await asyncio.sleep(0.001)
    line.writer.write(asking("X-Request-ID: second"))

    assert b"x-request-id: first\r\n" in (await line.answer())[0]
    assert b"x-request-id: second\r\n" in (await line.answer())[0]


async def test_who_says_good_bye_is_told_so(service: Service) -> None:
    for _ in range(3):
        line = await Line.to(service)
        head, _ = await line.ask(asking("Connection: close"))
        assert b"connection: close" in head
        assert await line.is_over()

    assert not is_known(service)


async def test_an_old_client_s_connection_ends_with_the_answer(service: Service) -> None:
    await known(service, asking())

    line = await Line.to(service)
    await line.ask(asking(version="1.0"))

    assert await line.is_over()


async def test_what_waits_to_be_told_to_go_on_is_told(service: Service) -> None:
    whole = asking("Expect: 100-continue")
    for _ in range(3):
        line = await Line.to(service)
        line.writer.write(whole.removesuffix(BODY))
        head, _ = await line.answer()
        assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
        head, _ = await line.ask(BODY)
        assert head.startswith(b"HTTP/1.1 20")


async def test_the_list_under_the_same_address_is_no_login(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even one that is asked for with the body of a login's request, which no GET is read for."""
    line, _ = await known(service, asking())
    capsys.readouterr()

    for body in (b"", BODY):
        for _ in range(3):
            head, told = await line.ask(asking(method="GET", body=body))
            assert head.startswith(b"HTTP/1.1 200 ")
            assert "data" in json.loads(told)

    assert not [text for text in capsys.readouterr().err.splitlines() if '"level":"error"' in text]


async def test_another_address_of_the_same_path_is_another_request(service: Service) -> None:
    line, _ = await known(service, asking())

    head, _ = await line.ask(asking(target=f"{PATH}/"))
    assert head.startswith(b"HTTP/1.1 404")
    head, _ = await line.ask(asking(target=f"{PATH}?a=b"))
    assert head.startswith(b"HTTP/1.1 200")


async def test_what_is_no_http_behind_a_known_request_ends_the_connection(service: Service) -> None:
    line, _ = await known(service, asking())

    line.writer.write(asking() + b"nonsense\r\n\r\n")

    assert (await line.answer())[0].startswith(b"HTTP/1.1 200")
    assert (await line.answer())[0].startswith(b"HTTP/1.1 400")
    assert await line.is_over()


async def test_it_is_logged_like_any_other(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", as_json=True)
    line, _ = await known(service, asking())
    capsys.readouterr()

    await line.ask(asking("X-Request-ID: mine"))  # seen for the first time in these words, and so by all layers
    await line.ask(asking("X-Request-ID: its"))

    told = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    by_all_layers, by_the_shortcut = (one for one in told if one["event"] == "request")
    assert by_the_shortcut["request_id"] == "its"
    for one in (by_all_layers, by_the_shortcut):
        for own in ("timestamp", "request_id", "milliseconds"):
            del one[own]
    assert by_the_shortcut == by_all_layers


async def test_another_end_of_the_line_is_another_request(telnyx: Telnyx, sqlite: str) -> None:
    """Whether somebody's word about whom they speak for is believed goes by who they are."""
    async with service_in_front_of(telnyx, sqlite) as service:
        await known(service, asking("X-Forwarded-For: 203.0.113.7"))
        port = int(service.url.rsplit(":", 1)[1])
        line = Line(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)))
        outermost: Any = service.app
        before = dict(outermost._known)

        await line.ask(asking("X-Forwarded-For: 203.0.113.7"))

        assert len(outermost._known) == len(before) + 1
        assert [one.address for one in outermost._known.values()] == ["203.0.113.7", "127.0.0.2"]
