"""Who may have what, as pure functions over values: no clock of their own, no input or output."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.vending.errors import GrantNotAllowed, InsufficientScope
from app.vending.leases import Lease
from app.vending.nouns import Grant, IssueRequest, Platform, Principal

SHORTEST_TTL = timedelta(seconds=60)
"""Below this, three attempts at a refresh do not fit into a credential's life."""

LONGEST_TTL = timedelta(days=90)
"""No policy lets a credential live longer without a renewal."""

RENEWAL_SHARE = 0.8
"""A credential with less than this share of its lifetime left is extended when its device asks."""

REFRESH_SHARE = (0.70, 0.80)
"""A device is asked back after a part of its login's life between these, spread so that devices do not come in step.

A fifth of the life is left for further attempts: a minute's retry fits in three times even at the shortest lifetime
that browsers are given by default (a day), and in 12 s steps at SHORTEST_TTL.
"""

LAST_USE = timedelta(seconds=30)
"""While Telnyx is away a login is handed out again only if it has at least this long to live."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator allows."""

    connection_id: str
    """The Telnyx credential connection that new credentials belong to."""
    ttl: Mapping[Platform, timedelta]
    """Lifetime of a credential, which is also the longest that a caller may wish for."""
    required_scopes: frozenset[str] = frozenset()
    grants: frozenset[Grant] = frozenset({Grant.LOGIN_TOKEN})
    max_devices: int = 10


@dataclass(frozen=True, slots=True)
class Terms:
    """What one request gets."""

    connection_id: str
    ttl: timedelta
    max_devices: int


def admit(policy: Policy, principal: Principal) -> None:
    """Raises InsufficientScope if the token lacks a scope that every call needs."""
    if not policy.required_scopes <= principal.scopes:
        raise InsufficientScope(policy.required_scopes)


def decide(policy: Policy, principal: Principal, wanted: IssueRequest) -> Terms:
    """The terms on which this device gets its login. Raises InsufficientScope or GrantNotAllowed."""
    admit(policy, principal)
    if wanted.grant not in policy.grants:
        raise GrantNotAllowed
    return Terms(policy.connection_id, lifetime(policy, wanted.platform, wanted.ttl_seconds), policy.max_devices)


def lifetime(policy: Policy, platform: Platform, wanted_seconds: int | None) -> timedelta:
    """A caller's wish, held between SHORTEST_TTL and what the platform is allowed."""
    allowed = policy.ttl[platform]
    if wanted_seconds is None:
        return allowed
    return max(min(timedelta(seconds=wanted_seconds), allowed), min(SHORTEST_TTL, allowed))


def is_due_for_renewal(lease: Lease, ttl: timedelta, now: datetime) -> bool:
    """Whether the credential should be extended before a token is minted on it."""
    return lease.expires_at - now < ttl * RENEWAL_SHARE


def refresh_time(issued_at: datetime, expires_at: datetime, jitter: float) -> datetime:
    """When the device should ask again. `jitter` is drawn from [0, 1) once a login."""
    earliest, latest = REFRESH_SHARE
    return issued_at + (expires_at - issued_at) * (earliest + (latest - earliest) * jitter)
