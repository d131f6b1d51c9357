"""Redis or Valkey as a store that may fail at any time: every call has a deadline, and failures pause the calls."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog
from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.adapters.login_cache.shared import MAX_ENTRY_BYTES, StoreFailed, StoreUnavailable

CALL_SECONDS = 0.05
"""Deadline of a call that a request waits for. A mint takes longer."""

STEPS = 10
"""Steps of a deadline. Opening a connection takes some rounds of the event loop, and a call takes two or three."""

PROBE_SECONDS = 1.0
"""Deadline of a probe, for which no request waits. It may have to resolve a name and to open a TLS connection."""

PROBE_EXPIRY_SECONDS = 60

MAX_CALLS = 16
"""Calls in flight, each on its own connection. Further calls wait, and their deadline begins after that."""

MAX_FAILURES = 3
"""After this number of timeouts and connection errors in a row, the store counts as unavailable."""

PASSING = frozenset({"timeout", "connection"})
"""Reasons of failures that need not occur again."""

T = TypeVar("T")

_log = structlog.get_logger("dialtone.login_cache")


class RedisStore:
    """Values by name, in one Redis or Valkey server.

    The store is unavailable until `probe` has succeeded. Every method that raises raises StoreFailed.
    """

    def __init__(
        self, url: str, prefix: str, *, call_seconds: float = CALL_SECONDS, probe_seconds: float = PROBE_SECONDS
    ) -> None:
        self._url = url
        self._call_seconds = call_seconds
        self._probe_seconds = probe_seconds
        self._probe_name = f"{prefix}probe-{secrets.token_hex(8)}"
        self._client = self._connect()
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._failures = 0
        self._has_reported = False
        self.is_available = False

    def _connect(self) -> Redis:
        return Redis.from_url(self._url, protocol=2, max_connections=2 * MAX_CALLS, retry=Retry(NoBackoff(), 0))

    def use_login(self, url: str) -> None:
        """Connect with this address at the next `probe`; until then, the store is unavailable.

        The address differs from the present one in the user or the password only.
        """
        if url != self._url:
            self._url = url
            self.is_available = False

    async def get(self, name: str) -> bytes | None:
        """The value, of which at most one byte more than MAX_ENTRY_BYTES is read; None if there is none."""
        found: bytes | str = await self._call(lambda: self._client.getrange(name, 0, MAX_ENTRY_BYTES))
        return found if isinstance(found, bytes) and found else None

    async def put(self, name: str, value: bytes, expires_in_ms: int) -> None:
        await self._call(lambda: self._client.set(name, value, px=expires_in_ms))

    async def delete(self, names: Sequence[str]) -> None:
        await self._call(lambda: self._client.delete(*names))

    async def check(self) -> None:
        """Write and read one value."""
        try:
            await _within(self._probe_seconds, self._write_and_read())
        except Exception as error:  # the library and its transports raise many kinds, and none may reach a request
            raise StoreFailed(_reason_of(error)) from error

    async def probe(self) -> None:
        """Check an unavailable store, on new connections. Never raises."""
        url, old, self._client = self._url, self._client, self._connect()
        with suppress(Exception):
            await _within(self._probe_seconds, old.aclose())
        try:
            await self.check()
        except StoreFailed as error:
            self._report_unavailable(error.reason)
            return
        if url != self._url:
            return  # the next probe uses the new address
        self._failures = 0
        self.is_available = True
        if self._has_reported:
            _log.info("shared_login_cache_available")
        self._has_reported = False

    async def close(self) -> None:
        self.is_available = False
        with suppress(Exception):
            await _within(self._probe_seconds, self._client.aclose())

    async def _write_and_read(self) -> None:
        await self._client.set(self._probe_name, b"1", ex=PROBE_EXPIRY_SECONDS)
        await self._client.getrange(self._probe_name, 0, 0)

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        if not self.is_available:
            raise StoreUnavailable
        async with self._slots:
            if not self.is_available:
                raise StoreUnavailable
            try:
                result = await _within(self._call_seconds, command())
            except Exception as error:  # as in `check`
                raise self._failed(_reason_of(error)) from error
        self._failures = 0
        return result

    def _failed(self, reason: str) -> StoreFailed:
        self._failures += 1
        if self.is_available and reason != "invalid" and (reason not in PASSING or self._failures >= MAX_FAILURES):
            self.is_available = False
            self._report_unavailable(reason)
        return StoreFailed(reason)

    def _report_unavailable(self, reason: str) -> None:
        if not self._has_reported:
            self._has_reported = True
            _log.warning(
                "shared_login_cache_unavailable",
                reason=reason,
                note="each replica mints its own login tokens",
            )


async def _within(seconds: float, call: Awaitable[T]) -> T:
    """The result of a call. Raises TimeoutError and what the call raises.

    The time is waited for in steps, each of which takes at least one round of the event loop. So if the loop is busy, a
    response that has arrived is still read. With one timeout, a busy replica would mistake itself for a slow store.
    """
    task = asyncio.ensure_future(call)
    try:
        for _ in range(STEPS):
            await asyncio.wait({task}, timeout=seconds / STEPS)
            if task.done():
                return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _reason_of(error: Exception) -> str:
    """A word for a metric and for the log. The texts of errors may contain parts of the address."""
    match error:
        case TimeoutError() | redis_errors.TimeoutError():
            return "timeout"
        case redis_errors.AuthenticationError() | redis_errors.AuthorizationError() | redis_errors.NoPermissionError():
            return "authentication"
        case redis_errors.ReadOnlyError():
            return "read_only"
        case redis_errors.AskError() | redis_errors.ClusterError():
            return "cluster"
        case redis_errors.ResponseError():
            return "invalid" if str(error).startswith("WRONGTYPE") else "rejected"
        case redis_errors.ConnectionError() | OSError():
            return "connection"
        case redis_errors.RedisError():
            return "protocol"
        case _:
            return "internal"
