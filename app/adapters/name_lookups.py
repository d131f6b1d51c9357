"""Lookups of host names that cannot delay each other."""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

LOOKUP_SECONDS = 2.0
"""How long a request waits for the addresses of its host."""

MAX_LOOKUPS = 2
"""Lookups of one name in progress."""


class IsolatedResolver(AbstractResolver):
    """Resolves names in threads of its own.

    The event loop's lookups share few threads (two in uvloop), and a lookup cannot be cancelled. Those of a host whose
    name server does not respond would delay every other connection of the service by up to a minute. Hosts come from
    the configuration, so they are few.
    """

    def __init__(
        self, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo, timeout_seconds: float = LOOKUP_SECONDS
    ) -> None:
        self._getaddrinfo = getaddrinfo
        self._timeout_seconds = timeout_seconds
        self._free: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_LOOKUPS))

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises TimeoutError after the timeout, so that the request is known not to have been sent."""
        async with asyncio.timeout(self._timeout_seconds):
            free = self._free[host]
            await free.acquire()
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return [
                ResolveResult(hostname=host, host=address[0], port=address[1], family=family, proto=proto, flags=flags)
                for family, _, proto, _, address in await _look_up(self._getaddrinfo, host, port, family, free)
            ]

    async def close(self) -> None: ...


def _look_up(
    getaddrinfo: Callable[..., list[Any]], host: str, port: int, family: socket.AddressFamily, free: asyncio.Semaphore
) -> "asyncio.Future[list[Any]]":
    """Start the lookup, and release the semaphore at its end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def finish(outcome: Any) -> None:
        free.release()
        if found.done():
            return  # the caller was cancelled or timed out
        if isinstance(outcome, BaseException):
            found.set_exception(outcome)
        else:
            found.set_result(outcome)

    def run() -> None:
        outcome: Any
        # Without a network, ADDRCONFIG hides the addresses of this machine.
        flags = 0 if host == "localhost" else socket.AI_ADDRCONFIG
        try:
            outcome = getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError) as error:
            outcome = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(finish, outcome)

    try:
        # A daemon, so that a lookup does not delay the end of the process.
        Thread(target=run, name="name-lookup", daemon=True).start()
    except RuntimeError as error:
        finish(OSError(str(error)))
    return found
