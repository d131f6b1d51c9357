"""Lifetimes and renewal times, as pure functions without a clock."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from app.vending.models import Platform
from app.vending.telephony.lease import Lease

MIN_TTL = timedelta(seconds=60)
"""A shorter lifetime would leave no time for three refresh attempts."""

MAX_TTL = timedelta(days=90)
"""No policy lets a credential live longer without a renewal."""

NEVER = datetime.max.replace(tzinfo=UTC)
"""The replacement time of a credential whose age is not limited."""

MIN_LEASE_AGE = timedelta(hours=1)
"""The shortest age at which policy may replace credentials: each replacement creates one at Telnyx."""

RENEWAL_SHARE = 0.8
"""A credential with less than this share of its lifetime left is extended when its device requests a login."""

REFRESH_SHARE = (0.70, 0.80)
"""A device refreshes after a share of its login's lifetime between these, jittered so that devices do not synchronize.

A fifth of the lifetime is left for retries. Three retries a minute apart fit even into the shortest default lifetime
of browsers (a day); at MIN_TTL, a fifth is 12 s.
"""

MIN_FALLBACK_LIFETIME = timedelta(seconds=30)
"""While Telnyx is unavailable, a cached login is returned only if it has at least this long to live."""


def lifetime(allowed: Mapping[Platform, timedelta], platform: Platform, wanted_seconds: int | None) -> timedelta:
    """The requested lifetime, limited to between MIN_TTL and the platform's maximum. None requests the maximum."""
    longest = allowed[platform]
    if wanted_seconds is None:
        return longest
    return max(min(timedelta(seconds=wanted_seconds), longest), min(MIN_TTL, longest))


def is_due_for_renewal(lease: Lease, ttl: timedelta, now: datetime) -> bool:
    """Whether the credential should be extended before a token is minted on it."""
    return lease.expires_at - now < ttl * RENEWAL_SHARE


def replacement_time(lease: Lease, max_age: timedelta | None) -> datetime:
    """The time from which a login of the device replaces its credential. `max_age` None: never."""
    return NEVER if max_age is None else lease.created_at + max_age


def refresh_time(issued_at: datetime, expires_at: datetime, jitter: float) -> datetime:
    """When the device should refresh. `jitter` is drawn from [0, 1) once per login."""
    earliest, latest = REFRESH_SHARE
    return issued_at + (expires_at - issued_at) * (earliest + (latest - earliest) * jitter)
