"""The client's address is the one that uvicorn's middleware finds, however the proxies send it."""

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.serving.client_address import ClientAddresses
from app.serving.framing import parse_head

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
