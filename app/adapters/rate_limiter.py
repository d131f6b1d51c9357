"""Rate limits for a user or a guest, for all users of an issuer, for grants of a backend, and for rejected tokens.

Each replica counts in memory, so that a request waits for no store. With Redis, `SharedCounts` adds the counts of the
replicas several times a second.
"""

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from limits import parse_many

from app.vending.errors import RateLimited
from app.vending.grants.models import GrantKind
from app.vending.models import Principal, RateLimitStatus

TIDY_SECONDS = 30.0
"""How often counters of past windows are deleted."""

NETWORK_BITS = 64
"""Prefix length of the IPv6 network that is counted as one address: providers assign at least a /64 to a customer."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of requests in a number of seconds."""

    amount: int
    seconds: int


def parse_rate_limit(text: str) -> RateLimit | None:
    """Parse one rate, such as `300/minute` or `5 per second`; `none` means no limit. Raises ValueError."""
    if text.strip().lower() == "none":
        return None
    item, *others = parse_many(text)
    if others or item.amount < 1:
        raise ValueError("not one rate of at least one request")
    return RateLimit(item.amount, item.get_expiry())


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The configured limits. None means no limit."""

    user: RateLimit | None
    issuer: RateLimit | None
    failures: RateLimit | None
    """Rejected tokens from one address."""
    guest: RateLimit | None = None
    """Requests of one guest, instead of `user`."""
    guest_grants: RateLimit | None = None
    """Grants for guests that one backend mints."""
    user_grants: RateLimit | None = None
    """Grants for users that one backend mints."""


@dataclass(slots=True)
class Window:
    """The hits of one user, issuer or address until a time."""

    seconds: int
    ends_at: float
    hits: int = 0
    """Own hits, and those of other replicas as far as they are known."""


class CountListener(Protocol):
    """Is notified of each hit that other replicas have to count."""

    def add_hit(self, names: tuple[str, ...], window: Window) -> None: ...


class RateLimiter:
    """Counts requests in fixed windows, and raises RateLimited above a limit."""

    def __init__(
        self, rates: RateLimits, monotonic: Callable[[], float], count_listener: CountListener | None = None
    ) -> None:
        self._rates = rates
        self._monotonic = monotonic
        self._count_listener = count_listener
        self._windows: dict[tuple[str, ...], Window] = {}
        self._tidied_at = monotonic()

    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many rejected tokens."""
        window = self._windows.get(("address", _network(address)))
        if window is not None and self._rates.failures is not None and window.hits > self._rates.failures.amount:
            left = window.ends_at - self._monotonic()
            if left > 0:
                raise RateLimited(retry_after_seconds=left)

    def record_failure(self, address: str) -> None:
        """Count a rejected token from this address."""
        if self._rates.failures is not None:
            self._hit(self._rates.failures, ("address", _network(address)))

    def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user. Returns None if there is no limit. Raises RateLimited."""
        status = None
        issuer, subject = principal.user_key
        own = self._rates.guest if issuer == GrantKind.GUEST.issuer else self._rates.user
        if own is not None:
            status = self._check(own, ("user", issuer, subject))
        if self._rates.issuer is not None:
            # After the user's own limit: requests above it must not use up the limit that the others share.
            of_issuer = self._check(self._rates.issuer, ("issuer", issuer))
            status = of_issuer if status is None else status
        return status

    def check_grant(self, backend: Principal, kind: GrantKind) -> None:
        """Count a grant that the backend mints. Each kind has its own limit. Raises RateLimited."""
        rate = self._rates.guest_grants if kind is GrantKind.GUEST else self._rates.user_grants
        if rate is not None:
            self._check(rate, (f"{kind.value}_grants", *backend.user_key))

    def _check(self, rate: RateLimit, names: tuple[str, ...]) -> RateLimitStatus:
        window = self._hit(rate, names)
        left = window.ends_at - self._monotonic()
        status = RateLimitStatus(rate.amount, max(0, rate.amount - window.hits), left)
        if window.hits > rate.amount:
            raise RateLimited(retry_after_seconds=left, rate_limit=status)
        return status

    def _hit(self, rate: RateLimit, names: tuple[str, ...]) -> Window:
        now = self._monotonic()
        window = self._windows.get(names)
        if window is None or window.ends_at <= now:
            window = self._windows[names] = Window(rate.seconds, now + rate.seconds)
        window.hits += 1
        if self._count_listener is not None and window.hits <= rate.amount + 1:
            self._count_listener.add_hit(names, window)
        if now > self._tidied_at + TIDY_SECONDS:
            self._tidied_at = now
            self._windows = {known: window for known, window in self._windows.items() if window.ends_at > now}
        return window


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
