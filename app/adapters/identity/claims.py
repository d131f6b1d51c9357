"""Checks of the claims of tokens whose signature is valid.

Access tokens follow RFC 9068 and RFC 8725, logout tokens OpenID Connect Back-Channel Logout 1.0 section 2.6.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from app.adapters.identity.key_sets import KeySource
from app.vending.errors import TokenRejected
from app.vending.models import Principal
from app.vending.not_before import LogoutClaims

LAST_MOMENT = 253402300799
"""9999-12-31T23:59:59Z in seconds since 1970, the last second that a datetime can hold."""

MAX_SUBJECT_LENGTH = 255
"""OpenID Connect Core section 2 limits `sub` to 255 characters. Dialtone limits `sid` and `jti` likewise."""

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TYPES = frozenset({"logout+jwt", "jwt"})
"""Allowed `typ` of logout tokens, without `at+jwt`. Back-Channel Logout section 2.4 recommends explicit typing."""

LOGOUT_AGE = timedelta(minutes=10)
"""Older logout tokens are rejected. Providers send them at once, so an old one may be a replay."""

_FOREIGN_CLAIMS = MappingProxyType(
    {"nonce": "id_token", "at_hash": "id_token", "c_hash": "id_token", "events": "event_token"}
)


_NO_CLAIMS: MappingProxyType[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Issuer:
    """How the tokens of one identity provider are verified."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    keys: KeySource
    subject_claim: str = "sub"
    scope_claim: str = "scope"
    allows_scope_list: bool = False
    token_types: frozenset[str] = frozenset({"jwt", "at+jwt"})
    """Allowed `typ` headers in lower case. A token without `typ` is allowed too."""
    leeway: timedelta = timedelta(seconds=30)
    max_age: timedelta | None = None
    logout_audiences: frozenset[str] = frozenset()
    """Client ids that logout tokens may name. Empty means `audiences`."""
    kept_claims: frozenset[str] = frozenset()
    """Claims that the policy reads. All others are dropped, because they are personal data and take memory."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a token is valid, in seconds since 1970: `since` is inclusive, `until` exclusive."""

    since: float
    until: float


def principal_of(claims: dict[str, Any], issuer: Issuer, now: float) -> tuple[Principal, Validity]:
    """The principal of an access token, and how long the token is valid. Raises TokenRejected."""
    if not _FOREIGN_CLAIMS.keys().isdisjoint(claims):
        raise TokenRejected(next(kind for claim, kind in _FOREIGN_CLAIMS.items() if claim in claims))
    expires, issued, validity = _times(claims, issuer, now)
    _check_audience(claims, issuer.audiences)
    principal = Principal(
        issuer=issuer.issuer,
        subject=_subject(claims, issuer),
        expires_at=datetime.fromtimestamp(expires, UTC),
        scopes=_scopes(claims.get(issuer.scope_claim), issuer),
        issued_at=None if issued is None else datetime.fromtimestamp(issued, UTC),
        session=_session(claims),
        claims=_kept(claims, issuer),
    )
    return principal, validity


def _kept(claims: dict[str, Any], issuer: Issuer) -> MappingProxyType[str, Any]:
    """The claims that the policy reads."""
    if not issuer.kept_claims:
        return _NO_CLAIMS
    return MappingProxyType({name: claims[name] for name in issuer.kept_claims & claims.keys()})


def logout_of(claims: dict[str, Any], issuer: Issuer, now: float) -> LogoutClaims:
    """The claims of a logout token. Raises TokenRejected."""
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
    """`exp`, `iat` and the validity, extended by the leeway. Raises TokenRejected if `now` is outside it."""
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
    """A NumericDate; None if the claim is absent. Rejects booleans and strings."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= LAST_MOMENT:  # a bool is an int, but not a time
        raise TokenRejected(f"bad_{name}")
    return float(value)


def _check_audience(claims: dict[str, Any], accepted: frozenset[str]) -> None:
    value = claims.get("aud")
    if isinstance(value, str) and value in accepted:
        return
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise TokenRejected("no_audience" if value is None else "bad_audience")
    if accepted.isdisjoint(named):
        raise TokenRejected("wrong_audience")


def _subject(claims: dict[str, Any], issuer: Issuer) -> str:
    """The value of the issuer's subject claim. `sub` is required even if another claim names the user."""
    subject = _name(claims, "sub", "bad_subject")
    return subject if issuer.subject_claim == "sub" else _name(claims, issuer.subject_claim, "bad_subject")


def _logout_subject(claims: dict[str, Any], issuer: Issuer) -> str | None:
    """The user as named in access tokens. `sub` is not used if another claim names the user."""
    if issuer.subject_claim not in claims:
        return None
    return _name(claims, issuer.subject_claim, "bad_subject")


def _session(claims: dict[str, Any]) -> str | None:
    """`sid` if it is valid, otherwise None. RFC 9068 does not define `sid`, so access tokens may use it differently."""
    if "sid" not in claims:
        return None
    try:
        return _name(claims, "sid", "bad_session")
    except TokenRejected:
        return None


def _name(claims: dict[str, Any], claim: str, reason: str) -> str:
    """A claim that is a short string without control characters, because it goes into the log and the ledger."""
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT_LENGTH or not value.isprintable():
        raise TokenRejected(reason)
    return value


@lru_cache(maxsize=1024)
def _scopes_in(text: str) -> frozenset[str]:
    """Cached, because an issuer's tokens have few combinations, which thousands of principals can share."""
    return frozenset(text.split())


def _scopes(value: Any, issuer: Issuer) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return _scopes_in(value)
    if issuer.allows_scope_list and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise TokenRejected("bad_scope")
