"""Rate limit counts of all replicas, in Redis or Valkey.

A replica adds its hits and reads the sums every `EXCHANGE_SECONDS`. In between, replicas do not know each other's hits,
so together they may exceed a limit by what arrives in that time. In exchange, no request waits for Redis.
"""

import asyncio
import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from app.adapters.rate_limiter import Window

if TYPE_CHECKING:  # a service without Redis starts without its library, in a tenth less time
    from redis.asyncio import Redis

EXCHANGE_SECONDS = 0.2
"""How often hits are exchanged."""

MAX_EXCHANGED = 1000
"""Counters in one exchange, which takes a few milliseconds."""

REDIS_SECONDS = 0.25
"""Timeout of connecting to Redis, and of each response."""

CALL_SECONDS = 1.0
"""Timeout of an exchange."""

PAUSE_SECONDS = 5.0
"""How long Redis is not called after a failure."""

_log = structlog.get_logger("dialtone.limiter")


class SharedCounts:
    """Exchanges the hits of this replica with those of the others.

    While Redis is unavailable, each replica counts only its own requests: an outage must not block users.
    """

    def __init__(
        self,
        url: str,
        monotonic: Callable[[], float],
        key_prefix: str = "dialtone",
        *,
        redis_seconds: float = REDIS_SECONDS,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._url = url
        self._redis_seconds = redis_seconds
        self._call_seconds = call_seconds
        self._redis = self._connect()
        self._former: list[Redis] = []
        """Clients to close."""
        self._monotonic = monotonic
        self._key_prefix = key_prefix
        self._hits: dict[tuple[str, ...], tuple[Window, int]] = {}
        """Hits that Redis does not have yet."""
        self._paused_until = -math.inf
        self.failures = 0
        """Number of failed exchanges."""

    def add_hit(self, names: tuple[str, ...], window: Window) -> None:
        """Count a hit at the next exchange."""
        known = self._hits.get(names)
        # Hits of an earlier window that were not exchanged no longer matter.
        self._hits[names] = (window, known[1] + 1 if known is not None and known[0] is window else 1)

    def use_login(self, url: str) -> None:
        """Use this address from now on. It differs from the present one in the user or password only."""
        if url != self._url:
            self._former.append(self._redis)
            self._url, self._paused_until = url, -math.inf
            self._redis = self._connect()

    async def exchange(self) -> None:
        """Add this replica's hits in Redis, and set the windows to the sums. Failures are logged and counted."""
        while self._former:
            await self._former.pop().aclose()
        now = self._monotonic()
        while self._hits:
            batch = [(names, *self._hits.pop(names)) for names in list(self._hits)[:MAX_EXCHANGED]]
            if now < self._paused_until:
                continue  # these hits count on this replica only
            try:
                async with asyncio.timeout(self._call_seconds):
                    await self._exchange(
                        [(names, window, hits) for names, window, hits in batch if window.ends_at > now]
                    )
            except _failures() as error:
                self.failures += 1
                self._paused_until = now + PAUSE_SECONDS
                _log.warning(
                    "rate_limit_store_unavailable",
                    error=type(error).__name__,
                    note="each replica counts in memory until Redis responds",
                )

    async def is_reachable(self) -> bool:
        """True if Redis responds."""
        try:
            async with asyncio.timeout(self._call_seconds):
                return bool(await self._redis.ping())
        except _failures():
            return False

    async def close(self) -> None:
        await self._redis.aclose()

    def _connect(self) -> "Redis":
        from redis.asyncio import Redis

        seconds = self._redis_seconds
        return Redis.from_url(self._url, socket_timeout=seconds, socket_connect_timeout=seconds)

    async def _exchange(self, batch: list[tuple[tuple[str, ...], Window, int]]) -> None:
        """Raises the errors of `_failures`."""
        seen = [window.hits for _, window, _ in batch]
        async with self._redis.pipeline(transaction=False) as pipe:
            for names, window, hits in batch:
                key = self._key(names)
                pipe.set(key, 0, ex=window.seconds, nx=True)
                pipe.incrby(key, hits)
                pipe.pttl(key)
            answers = await pipe.execute(raise_on_error=False)
        now = self._monotonic()
        for (_, window, _), before, total, left in zip(batch, seen, answers[1::3], answers[2::3], strict=True):
            if isinstance(total, int) and isinstance(left, int):
                window.hits += max(0, total - before)
                window.ends_at = now + left / 1000 if left > 0 else window.ends_at
        for answer in answers[1::3] + answers[2::3]:
            if not isinstance(answer, int):
                raise answer if isinstance(answer, Exception) else ValueError("not a number")

    def _key(self, names: tuple[str, ...]) -> str:
        """A hash of all names, so that no key is a prefix of another, and Redis holds no names."""
        kind, *what = names
        text = "\0".join(what).encode("utf-8", "surrogatepass")
        return f"{self._key_prefix}:{kind}:{hashlib.blake2b(text, digest_size=16).hexdigest()}"


def _failures() -> tuple[type[Exception], ...]:
    """The errors of an unavailable or defective Redis."""
    from redis.exceptions import RedisError

    return RedisError, OSError, ValueError
