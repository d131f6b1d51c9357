"""The client's address is the one that uvicorn's middleware finds, however the proxies send it."""

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.serving.client_address import ClientAddresses
from app.serving.framing import RequestHead, parse_head

TRUSTED = "127.0.0.1,10.0.0.0/8"


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "203.0.113.1", "::1", None])
@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["203.0.113.7"],
        ["203.0.113.7, 10.0.0.1"],
        ["203.0.113.7", "10.0.0.1"],
        ["198.51.100.2", "203.0.113.7", "10.0.0.1, 10.0.0.2"],
        ["[2001:db8::1]:443"],
        [""],
        ["", ""],
        ["10.0.0.1", "10.0.0.2"],
    ],
)
async def test_address_is_the_one_that_the_app_sees(peer: str | None, lines: list[str]) -> None:
    raw = "".join(f"X-Forwarded-For: {line}\r\n" for line in lines)
    head = parse_head(f"GET / HTTP/1.1\r\nHost: a\r\n{raw}\r\n".encode())
    seen: list[str | None] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope["client"] and scope["client"][0])

    scope = {"type": "http", "client": peer and (peer, 1), "scheme": "http", "headers": head.headers}
    await ProxyHeadersMiddleware(app, TRUSTED)(scope, None, None)  # type: ignore[arg-type]

    assert [ClientAddresses(TRUSTED).of(peer, head)] == seen


def head_of(client: str) -> RequestHead:
    return parse_head(f"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n".encode())


@pytest.mark.parametrize("peer", ["172.17.0.1", "192.168.1.2", "fd00::2", "169.254.1.1", "unix"])
def test_untrusted_proxy_of_a_private_network_is_logged_once(peer: str) -> None:
    addresses = ClientAddresses(TRUSTED)

    with capture_logs() as logged:
        seen = {addresses.of(peer, head_of(f"203.0.113.{number}")) for number in range(3)}

    assert seen == {peer}
    assert [(event["event"], event["peer"], event["setting"]) for event in logged] == [
        ("forwarded_address_ignored", peer, "DIALTONE_TRUSTED_PROXIES")
    ]


@pytest.mark.parametrize("client", ["203.0.113.7", "127.0.0.1", "10.1.2.3", "", "x" * 300])
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3"])
def test_trusted_proxy_is_not_logged(peer: str, client: str) -> None:
    with capture_logs() as logged:
        ClientAddresses(TRUSTED).of(peer, head_of(client))

    assert logged == []


def test_client_on_the_internet_that_sends_the_header_is_not_logged() -> None:
    with capture_logs() as logged:
        ClientAddresses(TRUSTED).of("8.8.8.8", head_of("203.0.113.7"))

    assert logged == []


def test_request_without_the_header_is_not_logged() -> None:
    with capture_logs() as logged:
        ClientAddresses(TRUSTED).of("172.17.0.1", parse_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))

    assert logged == []
