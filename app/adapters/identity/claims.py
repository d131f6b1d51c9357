"""Checks of the claims of tokens whose signature is valid.

Access tokens follow RFC 9068 and RFC 8725, logout tokens OpenID Connect Back-Channel Logout 1.0 section 2.6.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from app.adapters.identity.compact_jws import MAX_TOKEN_LENGTH
from app.adapters.identity.key_sets import KeySource
from app.adapters.identity.tenants import IssuerTemplate, Tenants
from app.vending.claim_conditions import ClaimCondition, ClaimPath, claim_path, value_at
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

ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
_FOREIGN_CLAIMS = MappingProxyType(dict.fromkeys(ID_TOKEN_CLAIMS, "id_token") | {"events": "event_token"})

MAX_INTEGER_SUBJECT = 2**63 - 1
"""The largest id of a row in a SQL database."""

_NO_CLAIMS: MappingProxyType[str, Any] = MappingProxyType({})
_ABSENT = object()


class SubjectType(StrEnum):
    """The JSON type of the claim that names the user. An issuer has one type: `1` and `"1"` are not one user."""

    TEXT = "text"
    INTEGER = "integer"


@dataclass(frozen=True, slots=True)
class Issuer:
    """How the tokens of one identity provider are verified. Claims are named as in `claim_path`."""

    issuer: str
    """The `iss` of its tokens, or with `tenants` a template (`IssuerTemplate`)."""
    audiences: frozenset[str]
    """Accepted audiences. Empty: tokens must have none, or null. It requires `required_claims`."""
    algorithms: frozenset[str]
    keys: KeySource
    audience_claims: tuple[str, ...] = ("aud",)
    """Claims with the audience. The first that the token has must match."""
    required_claims: tuple[ClaimCondition, ...] = ()
    """Conditions that every access token must meet."""
    subject_claim: str = "sub"
    subject_type: SubjectType = SubjectType.TEXT
    scope_claim: str = "scope"
    token_types: frozenset[str] = frozenset({"jwt", "at+jwt"})
    """Allowed `typ` headers in lower case. A token without `typ` is allowed too."""
    allowed_foreign_claims: frozenset[str] = frozenset()
    """Those of ID_TOKEN_CLAIMS that its tokens may have."""
    tenants: Tenants | None = None
    takes_tokens_without_iss: bool = False
    """Whether a token without the member `iss` is a token of this issuer. At most one issuer may do so."""
    max_token_length: int = MAX_TOKEN_LENGTH
    leeway: timedelta = timedelta(seconds=30)
    max_age: timedelta | None = None
    logout_audiences: frozenset[str] = frozenset()
    """Client ids that logout tokens may name. Empty means `audiences`."""
    kept_claims: frozenset[str] = frozenset()
    """Claims that the policy reads. All others are dropped, because they are personal data and take memory."""
    header: str | None = None
    """The only request header with its tokens, in lower case; None means `Authorization`."""
    signer: str | None = None
    """The ARN of the AWS load balancer that signs its tokens; None for other issuers (`load_balancer`)."""
    # Computed once, because every verification needs these values:
    template: IssuerTemplate | None = field(init=False, repr=False)
    audience_paths: tuple[ClaimPath, ...] = field(init=False, repr=False)
    subject_path: ClaimPath = field(init=False, repr=False)
    scope_path: ClaimPath = field(init=False, repr=False)
    refused_claims: frozenset[str] = field(init=False, repr=False)
    leeway_seconds: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        computed = {
            "template": None if self.tenants is None else IssuerTemplate.parse(self.issuer),
            "audience_paths": tuple(claim_path(name) for name in self.audience_claims),
            "subject_path": claim_path(self.subject_claim),
            "scope_path": claim_path(self.scope_claim),
            "refused_claims": frozenset(_FOREIGN_CLAIMS) - (self.allowed_foreign_claims & ID_TOKEN_CLAIMS),
            "leeway_seconds": self.leeway.total_seconds(),
        }
        for name, value in computed.items():
            object.__setattr__(self, name, value)


class Validity(NamedTuple):
    """When a token is valid, in seconds since 1970: `since` is inclusive, `until` exclusive."""

    since: float
    until: float
    checked_at: float


def principal_of(claims: dict[str, Any], issuer: Issuer, iss: str, now: float) -> tuple[Principal, Validity]:
    """The principal of an access token, and how long the token is valid. Raises TokenRejected.

    `iss` names the user's issuer: the template of `issuer` filled, or `issuer.issuer`.
    """
    check_kind(claims, issuer)
    expires, issued, validity = _times(claims, issuer, now)
    check_access_audience(claims, issuer)
    for condition in issuer.required_claims:
        check_required_claim(claims, condition)
    return principal_with(claims, issuer, iss, expires, issued), validity


def principal_with(claims: dict[str, Any], issuer: Issuer, iss: str, expires: float, issued: float | None) -> Principal:
    """The principal of claims, of which only the subject and the scopes are checked. Raises TokenRejected."""
    return Principal(
        iss,
        subject_of(claims, issuer),
        datetime.fromtimestamp(expires, UTC),
        scopes_of(claims, issuer),
        None if issued is None else datetime.fromtimestamp(issued, UTC),
        _session(claims) if "sid" in claims else None,
        _kept(claims, issuer) if issuer.kept_claims else _NO_CLAIMS,
        None if issuer.template is None else issuer.issuer,
    )


def check_kind(claims: dict[str, Any], issuer: Issuer) -> None:
    """Raises TokenRejected for ID tokens and event tokens."""
    if not issuer.refused_claims.isdisjoint(claims):
        refused = issuer.refused_claims & claims.keys()
        raise TokenRejected(next(kind for claim, kind in _FOREIGN_CLAIMS.items() if claim in refused))


def check_required_claim(claims: dict[str, Any], condition: ClaimCondition) -> None:
    if condition.why_not(claims) is not None:
        raise TokenRejected("required_claim")


def _kept(claims: dict[str, Any], issuer: Issuer) -> MappingProxyType[str, Any]:
    """The claims that the policy reads."""
    return MappingProxyType({name: claims[name] for name in issuer.kept_claims & claims.keys()})


def logout_of(claims: dict[str, Any], issuer: Issuer, iss: str, now: float) -> LogoutClaims:
    """The claims of a logout token of the issuer `iss`. Raises TokenRejected."""
    _, issued, validity = _times(claims, issuer, now)
    if issued is None:
        raise TokenRejected("no_issue_time")
    if now >= issued + (LOGOUT_AGE + issuer.leeway).total_seconds():
        raise TokenRejected("too_old")
    _check_audience(claims.get("aud"), issuer.logout_audiences or issuer.audiences)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise TokenRejected("no_logout_event")
    if "nonce" in claims:
        raise TokenRejected("id_token")
    if "sub" not in claims and "sid" not in claims:
        raise TokenRejected("no_subject_and_no_session")
    session = _name(claims["sid"], "bad_session") if "sid" in claims else None
    subject = _logout_subject(claims, issuer)
    if subject is None and session is None:
        raise TokenRejected("unknown_subject")
    return LogoutClaims(
        issuer=iss,
        token_id=_name(claims.get("jti"), "bad_token_id"),
        issued_at=datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(min(validity.until, LAST_MOMENT), UTC),
        subject=subject,
        session=session,
    )


def _times(claims: dict[str, Any], issuer: Issuer, now: float) -> tuple[float, float | None, Validity]:
    """`exp`, `iat` and the validity, extended by the leeway. Raises TokenRejected if `now` is outside it."""
    expires, issued, validity = times_without_age(claims, issuer, now)
    if issuer.max_age is None:
        return expires, issued, validity
    until = min(validity.until, end_of_age(issued, issuer.max_age, issuer, now))
    return expires, issued, validity._replace(until=until)


def times_without_age(claims: dict[str, Any], issuer: Issuer, now: float) -> tuple[float, float | None, Validity]:
    """As `_times`, for an issuer without a maximum age."""
    expires = numeric_date(claims["exp"], "bad_exp") if "exp" in claims else None
    issued = numeric_date(claims["iat"], "bad_iat") if "iat" in claims else None
    since = issued or 0.0
    if "nbf" in claims:
        since = max(since, numeric_date(claims["nbf"], "bad_nbf"))
    if expires is None:
        raise TokenRejected("no_expiry")
    leeway = issuer.leeway_seconds
    validity = Validity(since - leeway, expires + leeway, now)
    if now >= validity.until:
        raise TokenRejected("expired")
    if now < validity.since:
        raise TokenRejected("not_yet_valid")
    return expires, issued, validity


def end_of_age(issued: float | None, max_age: timedelta, issuer: Issuer, now: float) -> float:
    """When a token reaches the maximum age, in seconds since 1970. Raises TokenRejected if it has."""
    if issued is None:
        raise TokenRejected("no_issue_time")
    until = issued + max_age.total_seconds() + issuer.leeway_seconds
    if now >= until:
        raise TokenRejected("too_old")
    return until


def numeric_date(value: Any, reason: str) -> float:
    """A NumericDate. Rejects booleans and strings."""
    if type(value) not in (int, float) or not 0 <= value <= LAST_MOMENT:  # a bool is an int, but not a time
        raise TokenRejected(reason)
    return float(value)


def check_access_audience(claims: dict[str, Any], issuer: Issuer) -> None:
    for path in issuer.audience_paths:
        value = value_at(claims, path, _ABSENT)
        is_absent = value is _ABSENT or (value is None and not issuer.audiences)  # devise-jwt writes null for none
        if not is_absent:
            _check_audience(value, issuer.audiences)
            return
    if issuer.audiences:
        raise TokenRejected("no_audience")


def _check_audience(value: Any, accepted: frozenset[str]) -> None:
    if isinstance(value, str) and value in accepted:
        return
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise TokenRejected("no_audience" if value is None else "bad_audience")
    if accepted.isdisjoint(named):
        raise TokenRejected("wrong_audience")


def subject_of(claims: dict[str, Any], issuer: Issuer) -> str:
    """The user, as the issuer's subject claim names them. Raises TokenRejected."""
    value = value_at(claims, issuer.subject_path)
    if issuer.subject_type is SubjectType.TEXT:
        return _name(value, "bad_subject")
    if type(value) is not int or not 0 <= value <= MAX_INTEGER_SUBJECT:  # a bool is an int, but not an id
        raise TokenRejected("bad_subject")
    return str(value)


def _logout_subject(claims: dict[str, Any], issuer: Issuer) -> str | None:
    """The user as named in access tokens. `sub` is not used if another claim names the user."""
    return None if value_at(claims, issuer.subject_path, _ABSENT) is _ABSENT else subject_of(claims, issuer)


def _session(claims: dict[str, Any]) -> str | None:
    """`sid` if it is valid, otherwise None. RFC 9068 does not define `sid`, so access tokens may use it differently."""
    try:
        return _name(claims["sid"], "bad_session")
    except TokenRejected:
        return None


def _name(value: Any, reason: str) -> str:
    """A short string without control characters, because it goes into the log and the ledger."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT_LENGTH or not value.isprintable():
        raise TokenRejected(reason)
    return value


@lru_cache(maxsize=1024)
def _scopes_in(text: str) -> frozenset[str]:
    """Cached, because an issuer's tokens have few combinations, which thousands of principals can share.

    Only the space separates scopes (RFC 6749 section 3.3). To a provider, `a\u00a0dialtone:admin` is one scope.
    """
    return frozenset(filter(None, text.split(" ")))


@lru_cache(maxsize=1024)
def _scopes_among(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(words)


def scopes_of(claims: dict[str, Any], issuer: Issuer) -> frozenset[str]:
    """The scopes: text with spaces (RFC 8693 section 4.2), or a list. Raises TokenRejected."""
    value = value_at(claims, issuer.scope_path)
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return _scopes_in(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return _scopes_among(tuple(value))
    raise TokenRejected("bad_scope")
