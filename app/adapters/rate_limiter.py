"""The limiter: how often a user, an issuer's users together, and strangers from one address may ask.

Counted in memory, each replica for itself, or in Redis for all of them. While Redis is away each replica counts for
itself: a limit that would shut everybody out when its store is gone protects nobody.
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
"""A store that takes longer is as good as away."""

REDIS_PAUSE_SECONDS = 5.0
"""How long a store that failed is left alone."""

TIDY_SECONDS = 30.0
"""How often counters whose window is over are dropped."""

MAX_BLOCKED = 50_000
NETWORK_BITS = 64
"""What one customer of an IPv6 provider has to himself, at least."""

_log = structlog.get_logger("dialtone.limiter")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many in so many seconds."""

    amount: int
    seconds: int
    item: RateLimitItem
    """As the library has it, for what is counted in Redis."""


def parse_rate_limit(text: str) -> RateLimit | None:
    """`300/minute`, `5 per second`; `none` for no limit. Raises ValueError."""
    if text.strip().lower() == "none":
        return None
    item = parse(text)
    return RateLimit(item.amount, item.get_expiry(), item)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits; None: none."""

    user: RateLimit | None
    issuer: RateLimit | None
    failures: RateLimit | None
    """Refused tokens from one address."""


class RateLimiter:
    """Counts, and says no."""

    def __init__(
        self, rates: RateLimits, redis_url: str | None, monotonic: Callable[[], float], key_prefix: str = "dialtone"
    ) -> None:
        self._rates = rates
        self._monotonic = monotonic
        self._own = LocalCounters()
        self._shared = None if redis_url is None else FixedWindowRateLimiter(_redis(redis_url, key_prefix))
        self._away_until = -math.inf
        self._blocked: dict[str, float] = {}
        self.store_failures = 0
        """How often the shared store did not answer."""

    async def is_store_reachable(self) -> bool:
        """Whether the shared store answers; True where there is none to answer."""
        if self._shared is None:
            return True
        try:
            return await self._shared.storage.check()
        except StorageError:
            return False

    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many refused tokens. From memory: it is asked on every request."""
        until = self._blocked.get(_network(address))
        if until is not None and (left := until - self._monotonic()) > 0:
            raise RateLimited(retry_after_seconds=left)

    async def record_failure(self, address: str) -> None:
        """A token from there was refused."""
        if self._rates.failures is None:
            return
        network = _network(address)
        rate_limit, is_over = await self._hit(self._rates.failures, "address", network)
        if is_over:
            now = self._monotonic()
            if len(self._blocked) >= MAX_BLOCKED:
                self._blocked = {name: until for name, until in self._blocked.items() if until > now}
            if len(self._blocked) < MAX_BLOCKED:
                self._blocked[network] = now + rate_limit.reset_seconds

    async def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """How the user stands, if there is a limit. Raises RateLimited."""
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
        """As `admit`, for where each replica counts for itself."""
        rate_limit = None
        issuer, subject = principal.user_key
        if self._rates.issuer is not None:
            rate_limit = _unless_over(*self._own.hit(self._rates.issuer, ("issuer", issuer)))
        if self._rates.user is not None:
            rate_limit = _unless_over(*self._own.hit(self._rates.user, ("user", issuer, subject)))
        return rate_limit

    async def _hit(self, rate: RateLimit, *names: str) -> tuple[RateLimitStatus, bool]:
        if self._shared is not None and self._monotonic() >= self._away_until:
            try:
                return await _counted_together(self._shared, rate.item, names)
            except StorageError:
                self.store_failures += 1
                self._away_until = self._monotonic() + REDIS_PAUSE_SECONDS
                _log.warning("limiter_store_away", note="limits are counted by each replica meanwhile")
        return self._own.hit(rate, names)


def _unless_over(rate_limit: RateLimitStatus, is_over: bool) -> RateLimitStatus:
    if is_over:
        raise RateLimited(retry_after_seconds=rate_limit.reset_seconds, rate_limit=rate_limit)
    return rate_limit


class LocalCounters:
    """Fixed windows in this process's memory. The library's own take ten times as long, and that on every request."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, ...], tuple[int, float]] = {}
        """By what is counted: how many there were, and when the window ends."""
        self._tidied_at = time.time()

    def hit(self, rate: RateLimit, names: tuple[str, ...]) -> tuple[RateLimitStatus, bool]:
        """One more. How they stand, and whether it was one too many."""
        now = time.time()
        count, ends_at = self._windows.get(names, (0, 0.0))
        if ends_at <= now:
            count, ends_at = 0, now + rate.seconds
        count += 1
        self._windows[names] = (count, ends_at)
        if now > self._tidied_at + TIDY_SECONDS:
            self._tidied_at = now
            self._windows = {known: window for known, window in self._windows.items() if window[1] > now}
        return RateLimitStatus(rate.amount, max(0, rate.amount - count), ends_at - now), count > rate.amount


async def _counted_together(
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
    """One key for the names together: no user's begins another's, and nobody reads names in Redis."""
    return hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@functools.lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The address; of IPv6 the network, or else one machine would be as many strangers as it likes."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, NETWORK_BITS), strict=False))
    return address
