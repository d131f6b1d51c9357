"""The client's address behind trusted proxies, as uvicorn's own middleware finds it, so that both always agree."""

import ipaddress
from asyncio import BaseTransport
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import structlog
from starlette.types import Message, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.serving.framing import RequestHead

UNIX_PEER = "unix"
"""The address of every peer on a Unix socket. As a trusted proxy, it means all of them."""

MAX_CACHED_ADDRESSES = 20_000
"""About 7 MB. To find an address that is not cached takes a tenth of a login's CPU time."""

MAX_CACHED_HEADER_BYTES = 256
FORWARDED_FOR = b"x-forwarded-for"
_ANY_CLIENT = b"192.0.2.1"


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
        self._is_ignored_proxy = lru_cache(MAX_CACHED_ADDRESSES)(self._may_be_ignored_proxy)
        self._has_warned = False

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
        if not self._has_warned and self._is_ignored_proxy(peer):
            self._has_warned = True
            structlog.get_logger("dialtone").warning(
                "forwarded_address_ignored",
                peer=peer,
                setting="DIALTONE_TRUSTED_PROXIES",
                hint="If this peer is your proxy, add its address. Until then, all its clients count as one address.",
            )
        return self._client_of(peer, *forwarded)

    def _may_be_ignored_proxy(self, peer: str) -> bool:
        """True for an untrusted peer in a private network. Clients on the internet may send the header too."""
        return _is_in_a_private_network(peer) and self._client_of(peer, _ANY_CLIENT) == peer

    def _client_of(self, peer: str, *forwarded: bytes) -> str | None:
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


def _is_in_a_private_network(peer: str) -> bool:
    try:
        return peer == UNIX_PEER or ipaddress.ip_address(peer).is_private
    except ValueError:
        return False


async def _answer_nothing(_scope: Scope, _receive: Any, _send: Any) -> None:
    """An app for the middleware, which only changes the scope."""


async def _receive() -> Any:
    raise AssertionError


async def _send(_: Message) -> None:
    raise AssertionError
