"""How long things live and when they are renewed, as pure functions: no clock of their own."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from app.vending.models import Platform
from app.vending.telephony.lease import Lease

MIN_TTL = timedelta(seconds=60)
"""Below this, three attempts at a refresh do not fit into a credential's life."""

MAX_TTL = timedelta(days=90)
"""No policy lets a credential live longer without a renewal."""

RENEWAL_SHARE = 0.8
"""A credential with less than this share of its lifetime left is extended when its device asks."""

REFRESH_SHARE = (0.70, 0.80)
"""A device is asked back after a part of its login's life between these, spread so that devices do not come in step.

A fifth of the life is left for further attempts: a minute's retry fits in three times even at the shortest lifetime
that browsers are given by default (a day), and in 12 s steps at MIN_TTL.
"""

MIN_FALLBACK_LIFETIME = timedelta(seconds=30)
"""While Telnyx is away a login is handed out again only if it has at least this long to live."""


def lifetime(allowed: Mapping[Platform, timedelta], platform: Platform, wanted_seconds: int | None) -> timedelta:
    """A caller's wish, held between MIN_TTL and what the platform is allowed."""
    longest = allowed[platform]
    if wanted_seconds is None:
        return longest
    return max(min(timedelta(seconds=wanted_seconds), longest), min(MIN_TTL, longest))


def is_due_for_renewal(lease: Lease, ttl: timedelta, now: datetime) -> bool:
    """Whether the credential should be extended before a token is minted on it."""
    return lease.expires_at - now < ttl * RENEWAL_SHARE


def refresh_time(issued_at: datetime, expires_at: datetime, jitter: float) -> datetime:
    """When the device should ask again. `jitter` is drawn from [0, 1) once a login."""
    earliest, latest = REFRESH_SHARE
    return issued_at + (expires_at - issued_at) * (earliest + (latest - earliest) * jitter)
