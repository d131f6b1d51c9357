"""The client's address behind trusted proxies, as uvicorn's own middleware finds it, so that both always agree."""

from asyncio import BaseTransport
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

from starlette.types import Message, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.serving.framing import RequestHead

UNIX_PEER = "unix"
"""The address of every peer on a Unix socket. As a trusted proxy, it means all of them."""

MAX_CACHED_ADDRESSES = 20_000
"""About 7 MB. Finding an address again costs a tenth of a login."""

MAX_CACHED_HEADER_BYTES = 256
FORWARDED_FOR = b"x-forwarded-for"


def peer_of(transport: BaseTransport) -> tuple[str, int] | None:
    """Address and port of the connection's other end. None if a client has reset its connection already."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return str(peer[0]), int(peer[1])
    return None if isinstance(transport.get_extra_info("sockname"), tuple) else (UNIX_PEER, 0)


class ClientAddresses:
    """Finds the address of the client that sent a request."""

    def __init__(self, trusted_proxies: list[str] | str) -> None:
        self._middleware = ProxyHeadersMiddleware(cast("Any", _answer_nothing), trusted_proxies)
        self._cached = lru_cache(MAX_CACHED_ADDRESSES)(self._find)

    def of(self, peer: str | None, head: RequestHead) -> str | None:
        """`peer` is the connection's other end. Its `X-Forwarded-For` counts only if it is a trusted proxy."""
        forwarded = head.by_name.get(FORWARDED_FOR)
        if forwarded is None or peer is None:
            return peer
        if len(head.by_name) < len(head.headers):
            # uvicorn's releases differ in how they read repeated headers.
            return self._find(peer, *(value for name, value in head.headers if name == FORWARDED_FOR))
        return (self._cached if len(forwarded) <= MAX_CACHED_HEADER_BYTES else self._find)(peer, forwarded)

    def _find(self, peer: str, *forwarded: bytes) -> str | None:
        scope: Scope = {
            "type": "http",
            "client": (peer, 0),
            "scheme": "http",
            "headers": [(FORWARDED_FOR, value) for value in forwarded],
        }
        running = self._middleware(cast("Any", scope), _receive, cast("Any", _send))
        with suppress(StopIteration):
            running.send(None)  # nothing in it waits
        return cast("str", scope["client"][0])


async def _answer_nothing(_scope: Scope, _receive: Any, _send: Any) -> None:
    """An app for the middleware, which only changes the scope."""


async def _receive() -> Any:
    raise AssertionError


async def _send(_: Message) -> None:
    raise AssertionError
