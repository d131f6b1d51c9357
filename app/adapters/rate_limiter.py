"""Rate limits for a user, for all users of an issuer, and for rejected tokens from one address.

Each replica counts in memory, or all replicas count in Redis. While Redis is unavailable, each replica counts in
memory, because an outage of the store must not block users.
"""

import functools
import hashlib
import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from app.vending.errors import RateLimited
from app.vending.models import Principal, RateLimitStatus

REDIS_SECONDS = 0.25
"""Timeout of a Redis call. A slower Redis counts as unavailable."""

REDIS_PAUSE_SECONDS = 5.0
"""How long Redis is not called after a failure."""

TIDY_SECONDS = 30.0
"""How often counters of past windows are deleted."""

MAX_BLOCKED = 50_000
NETWORK_BITS = 64
"""Prefix length of the IPv6 network that is counted as one address: providers assign at least a /64 to a customer."""

_log = structlog.get_logger("dialtone.limiter")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of requests in a number of seconds."""

    amount: int
    seconds: int
    item: RateLimitItem
    """The same limit as an object of the `limits` library, which counts in Redis."""


def parse_rate_limit(text: str) -> RateLimit | None:
    """Parse `300/minute` or `5 per second`; `none` means no limit. Raises ValueError."""
    if text.strip().lower() == "none":
        return None
    item = parse(text)
    return RateLimit(item.amount, item.get_expiry(), item)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The configured limits. None means no limit."""

    user: RateLimit | None
    issuer: RateLimit | None
    failures: RateLimit | None
    """Rejected tokens from one address."""


class RateLimiter:
    """Counts requests and raises RateLimited above a limit."""

    def __init__(
        self, rates: RateLimits, redis_url: str | None, monotonic: Callable[[], float], key_prefix: str = "dialtone"
    ) -> None:
        self._rates = rates
        self._monotonic = monotonic
        self._own = LocalCounters(monotonic)
        self._shared = None if redis_url is None else FixedWindowRateLimiter(_redis(redis_url, key_prefix))
        self._unavailable_until = -math.inf
        self._blocked: dict[str, float] = {}
        self.store_failures = 0
        """Number of failed Redis calls."""

    async def is_store_reachable(self) -> bool:
        """True if Redis responds, or if none is configured."""
        if self._shared is None:
            return True
        try:
            return await self._shared.storage.check()
        except StorageError:
            return False

    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many rejected tokens. Reads memory only."""
        until = self._blocked.get(_network(address))
        if until is not None and (left := until - self._monotonic()) > 0:
            raise RateLimited(retry_after_seconds=left)

    async def record_failure(self, address: str) -> None:
        """Count a rejected token from this address."""
        if self._rates.failures is None:
            return
        network = _network(address)
        self._block_if_over(network, *await self._hit(self._rates.failures, "address", network))

    def record_failure_locally(self, address: str) -> None:
        """As `record_failure`, counted in memory only."""
        if self._rates.failures is None:
            return
        network = _network(address)
        self._block_if_over(network, *self._own.hit(self._rates.failures, ("address", network)))

    def _block_if_over(self, network: str, rate_limit: RateLimitStatus, is_over: bool) -> None:
        if is_over:
            now = self._monotonic()
            if len(self._blocked) >= MAX_BLOCKED:
                self._blocked = {name: until for name, until in self._blocked.items() if until > now}
            if len(self._blocked) < MAX_BLOCKED:
                self._blocked[network] = now + rate_limit.reset_seconds

    async def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user. Returns None if there is no limit. Raises RateLimited."""
        if self._shared is None:
            return self.check_user_locally(principal)
        rate_limit = None
        issuer, subject = principal.user_key
        if self._rates.issuer is not None:
            rate_limit = _unless_over(*await self._hit(self._rates.issuer, "issuer", issuer))
        if self._rates.user is not None:
            rate_limit = _unless_over(*await self._hit(self._rates.user, "user", issuer, subject))
        return rate_limit

    def check_user_locally(self, principal: Principal) -> RateLimitStatus | None:
        """As `check_user`, counted in memory only."""
        rate_limit = None
        issuer, subject = principal.user_key
        if self._rates.issuer is not None:
            rate_limit = _unless_over(*self._own.hit(self._rates.issuer, ("issuer", issuer)))
        if self._rates.user is not None:
            rate_limit = _unless_over(*self._own.hit(self._rates.user, ("user", issuer, subject)))
        return rate_limit

    async def _hit(self, rate: RateLimit, *names: str) -> tuple[RateLimitStatus, bool]:
        if self._shared is not None and self._monotonic() >= self._unavailable_until:
            try:
                return await _hit_shared(self._shared, rate.item, names)
            except StorageError:
                self.store_failures += 1
                self._unavailable_until = self._monotonic() + REDIS_PAUSE_SECONDS
                _log.warning("rate_limit_store_unavailable", note="each replica counts in memory until Redis responds")
        return self._own.hit(rate, names)


def _unless_over(rate_limit: RateLimitStatus, is_over: bool) -> RateLimitStatus:
    if is_over:
        raise RateLimited(retry_after_seconds=rate_limit.reset_seconds, rate_limit=rate_limit)
    return rate_limit


class LocalCounters:
    """Fixed windows in memory. The library's own memory storage takes ten times as long, on every request."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._windows: dict[tuple[str, ...], tuple[int, float]] = {}
        """Per counter: the number of hits, and the end of the window."""
        self._tidied_at = monotonic()

    def hit(self, rate: RateLimit, names: tuple[str, ...]) -> tuple[RateLimitStatus, bool]:
        """Count one hit. Returns the state of the limit, and True if this hit exceeds it."""
        now = self._monotonic()
        count, ends_at = self._windows.get(names, (0, -math.inf))
        if ends_at <= now:
            count, ends_at = 0, now + rate.seconds
        count += 1
        self._windows[names] = (count, ends_at)
        if now > self._tidied_at + TIDY_SECONDS:
            self._tidied_at = now
            self._windows = {known: window for known, window in self._windows.items() if window[1] > now}
        return RateLimitStatus(rate.amount, max(0, rate.amount - count), ends_at - now), count > rate.amount


async def _hit_shared(
    limiter: FixedWindowRateLimiter, item: RateLimitItem, names: tuple[str, ...]
) -> tuple[RateLimitStatus, bool]:
    kind, *what = names
    key = _key(*what)
    is_in = await limiter.hit(item, kind, key)
    reset_at, remaining = await limiter.get_window_stats(item, kind, key)
    return RateLimitStatus(item.amount, remaining, max(0.0, reset_at - time.time())), not is_in


def _redis(url: str, key_prefix: str) -> RedisStorage:
    options: dict[str, Any] = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    return RedisStorage(
        f"async+{url}", wrap_exceptions=True, implementation="redispy", key_prefix=key_prefix, **options
    )


def _key(*names: str) -> str:
    """One Redis key for all names. Hashed, so that no key is a prefix of another and Redis holds no names."""
    return hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@functools.lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The IPv4 address or the IPv6 network. Counting IPv6 addresses would let one machine evade the limit."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, NETWORK_BITS), strict=False))
    return address
