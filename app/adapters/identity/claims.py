"""What the claims of a token whose signature is good must say: access tokens here, logout tokens below.

Access tokens after RFC 9068 and RFC 8725, logout tokens after OpenID Connect Back-Channel Logout 1.0 section 2.6.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from app.adapters.identity.key_sets import KeySource
from app.vending.errors import TokenRejected
from app.vending.models import Principal
from app.vending.not_before import LogoutClaims

LAST_MOMENT = 253402300799
"""9999-12-31T23:59:59Z, the last second that a datetime can hold."""

MAX_SUBJECT_LENGTH = 255
"""OpenID Connect Core section 2: `sub` must not exceed 255 characters. Sessions and token ids keep to it too."""

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TYPES = frozenset({"logout+jwt", "jwt"})
"""Back-Channel Logout section 2.4 recommends explicit typing. The type of access tokens is not taken."""

LOGOUT_AGE = timedelta(minutes=10)
"""A logout token older than this is refused: it is sent at once, and an old one was kept for something."""

_FOREIGN_CLAIMS = MappingProxyType(
    {"nonce": "id_token", "at_hash": "id_token", "c_hash": "id_token", "events": "event_token"}
)


@dataclass(frozen=True, slots=True)
class Issuer:
    """What one identity provider's tokens must look like."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    keys: KeySource
    subject_claim: str = "sub"
    scope_claim: str = "scope"
    allows_scope_list: bool = False
    token_types: frozenset[str] = frozenset({"jwt", "at+jwt"})
    """Allowed `typ` headers, in small letters; an absent one is allowed too."""
    leeway: timedelta = timedelta(seconds=30)
    max_age: timedelta | None = None
    logout_audiences: frozenset[str] = frozenset()
    """Client ids that logout tokens may name; empty: the same as `audiences`."""
    kept_claims: frozenset[str] = frozenset()
    """Claims that the policy reads. All others are dropped: they are personal data, and cost memory."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a token is good, in seconds since 1970: from the first moment on, and before the last."""

    since: float
    until: float


def principal_of(claims: dict[str, Any], issuer: Issuer, now: float) -> tuple[Principal, Validity]:
    """Whom an access token proves. Raises TokenRejected."""
    for claim, kind in _FOREIGN_CLAIMS.items():
        if claim in claims:
            raise TokenRejected(kind)
    expires, issued, validity = _times(claims, issuer, now)
    _check_audience(claims, issuer.audiences)
    principal = Principal(
        issuer=issuer.issuer,
        subject=_subject(claims, issuer),
        expires_at=datetime.fromtimestamp(expires, UTC),
        scopes=_scopes(claims.get(issuer.scope_claim), issuer),
        issued_at=None if issued is None else datetime.fromtimestamp(issued, UTC),
        session=_session(claims),
        claims=MappingProxyType({name: claims[name] for name in issuer.kept_claims & claims.keys()}),
    )
    return principal, validity


def logout_of(claims: dict[str, Any], issuer: Issuer, now: float) -> LogoutClaims:
    """What a logout token asks. Raises TokenRejected."""
    _, issued, validity = _times(claims, issuer, now)
    if issued is None:
        raise TokenRejected("no_issue_time")
    if now >= issued + (LOGOUT_AGE + issuer.leeway).total_seconds():
        raise TokenRejected("too_old")
    _check_audience(claims, issuer.logout_audiences or issuer.audiences)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise TokenRejected("no_logout_event")
    if "nonce" in claims:
        raise TokenRejected("id_token")
    if "sub" not in claims and "sid" not in claims:
        raise TokenRejected("no_subject_and_no_session")
    session = _name(claims, "sid", "bad_session") if "sid" in claims else None
    subject = _logout_subject(claims, issuer)
    if subject is None and session is None:
        raise TokenRejected("unknown_subject")
    return LogoutClaims(
        issuer=issuer.issuer,
        token_id=_name(claims, "jti", "bad_token_id"),
        issued_at=datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(min(validity.until, LAST_MOMENT), UTC),
        subject=subject,
        session=session,
    )


def _times(claims: dict[str, Any], issuer: Issuer, now: float) -> tuple[float, float | None, Validity]:
    """`exp`, `iat`, and the time in between, widened by the leeway; `now` must lie in it."""
    leeway = issuer.leeway.total_seconds()
    expires = _moment(claims, "exp")
    issued = _moment(claims, "iat")
    not_before = _moment(claims, "nbf")
    if expires is None:
        raise TokenRejected("no_expiry")
    validity = Validity(max(not_before or 0, issued or 0) - leeway, expires + leeway)
    if now >= validity.until:
        raise TokenRejected("expired")
    if now < validity.since:
        raise TokenRejected("not_yet_valid")
    if issuer.max_age is not None:
        if issued is None:
            raise TokenRejected("no_issue_time")
        validity = Validity(validity.since, min(validity.until, issued + issuer.max_age.total_seconds() + leeway))
        if now >= validity.until:
            raise TokenRejected("too_old")
    return expires, issued, validity


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate: a number, and not a bool or a text that looks like one."""
    value = claims.get(name)
    if name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_MOMENT:
        raise TokenRejected(f"bad_{name}")
    return float(value)


def _check_audience(claims: dict[str, Any], accepted: frozenset[str]) -> None:
    value = claims.get("aud")
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise TokenRejected("no_audience" if value is None else "bad_audience")
    if accepted.isdisjoint(named):
        raise TokenRejected("wrong_audience")


def _subject(claims: dict[str, Any], issuer: Issuer) -> str:
    """`sub` must be there whatever claim names the user."""
    _name(claims, "sub", "bad_subject")
    return _name(claims, issuer.subject_claim, "bad_subject")


def _logout_subject(claims: dict[str, Any], issuer: Issuer) -> str | None:
    """The user as access tokens would name them: `sub` says nothing where another claim names the user."""
    if issuer.subject_claim not in claims:
        return None
    return _name(claims, issuer.subject_claim, "bad_subject")


def _session(claims: dict[str, Any]) -> str | None:
    """`sid` where it is one. RFC 9068 does not know it, so an access token may use the name for something else."""
    try:
        return _name(claims, "sid", "bad_session")
    except TokenRejected:
        return None


def _name(claims: dict[str, Any], claim: str, reason: str) -> str:
    """A short printable text. Control characters end here: it goes to log and ledger."""
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT_LENGTH or not value.isprintable():
        raise TokenRejected(reason)
    return value


def _scopes(value: Any, issuer: Issuer) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(value.split())
    if issuer.allows_scope_list and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise TokenRejected("bad_scope")
