"""The cost of a connection's calls to phone numbers, and the requirement of a policy rule for its connection.

A login can call phone numbers if its connection has an outbound voice profile at Telnyx. The limits of the profile
bound the cost of a stolen login.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

MINUTES_PER_DAY = 24 * 60
MAX_NAMED_DESTINATIONS = 5
"""If more countries can be called, only their number is named, so that the sentence stays short."""


class OutboundRequirement(StrEnum):
    """The requirement of a policy rule for its connection."""

    NONE = "none"
    """The connection cannot call phone numbers: it has no enabled outbound voice profile."""
    LIMITED = "limited"
    """The connection cannot call phone numbers, or its profile enforces a daily spend limit."""
    ANY = "any"


@dataclass(frozen=True, slots=True)
class OutboundProfile:
    """The limits of an enabled outbound voice profile. None means that Telnyx reports no limit."""

    daily_limit_usd: Decimal | None
    """Above it, Telnyx disallows new calls. It belongs to the profile, which several connections may share."""
    destinations: tuple[str, ...] = ()
    """Country codes (ISO 3166-1 alpha-2) that can be called. Empty: Telnyx reports none."""
    concurrent_calls: int | None = None
    max_rate_usd: Decimal | None = None
    """The highest price per minute of a destination that can be called."""


def why_unmet(profile: OutboundProfile | None, requirement: OutboundRequirement) -> str | None:
    """Why a connection with this profile does not meet the requirement; None if it does."""
    if profile is None or requirement is OutboundRequirement.ANY:
        return None
    if requirement is OutboundRequirement.NONE:
        return "it can call phone numbers, because it has an enabled outbound voice profile"
    if profile.daily_limit_usd is None:
        return "its outbound voice profile enforces no daily spend limit"
    return None


def exposure(profile: OutboundProfile | None) -> str:
    """The cost of a stolen login, in one sentence. `profile` is None if no calls to phone numbers are possible."""
    if profile is None:
        return "a stolen login cannot call phone numbers, because there is no enabled outbound voice profile"
    terms = [_destinations(profile.destinations)]
    if profile.max_rate_usd is not None:
        terms.append(f"at up to {profile.max_rate_usd:f} USD a minute")
    if profile.concurrent_calls is not None:
        terms.append(f"at most {profile.concurrent_calls} at a time")
    calls = f"calls {', '.join(terms)}"
    if profile.daily_limit_usd is not None:
        return f"a stolen login can spend up to {profile.daily_limit_usd:.2f} USD a day on {calls}"
    if profile.max_rate_usd is not None and profile.concurrent_calls is not None:
        most = profile.max_rate_usd * profile.concurrent_calls * MINUTES_PER_DAY
        return f"a stolen login can spend up to {most:.2f} USD a day on {calls}; no daily spend limit is enforced"
    return f"a stolen login can spend without a limit on {calls}"


def _destinations(countries: tuple[str, ...]) -> str:
    if not countries:
        return "to destinations that Telnyx does not report"
    if len(countries) > MAX_NAMED_DESTINATIONS:
        return f"to {len(countries)} countries"
    return f"to {' and '.join(countries)}"
