"""The token verifier: from an unverified token to a Principal, or one refusal. Read `TokenVerifier.verify` first.

python-jose checks the signature. Everything else that a token can get wrong is checked here, in the order of RFC 8725
and RFC 9068: shape, header, issuer, key, signature, claims.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from app.adapters.identity.compact import Compact
from app.adapters.identity.keys import MAX_KID_LENGTH, KeySet, SignatureKey, UnknownKey, check_signature
from app.adapters.identity.keysets import KeySource
from app.vending.errors import DialtoneError, TokenRefused
from app.vending.nouns import Principal

CACHED_VERDICTS = 10_000
"""Verified tokens remembered; the least recently used goes first."""

LAST_MOMENT = 253402300799
"""9999-12-31T23:59:59Z, the last second that a datetime can hold."""

MAX_SUBJECT_LENGTH = 255
"""OpenID Connect Core section 2: `sub` must not exceed 255 characters."""

_REFUSED_HEADERS = frozenset({"crit", "b64", "zip", "enc"})
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


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A token found good: with which keys, and between which times it stays so."""

    principal: Principal
    keys: KeySet
    issuer: Issuer
    valid_from: float
    valid_until: float


class TokenVerifier:
    """Checks bearer tokens of the configured issuers."""

    def __init__(self, issuers: tuple[Issuer, ...], clock: Callable[[], datetime]) -> None:
        self._issuers: Mapping[str, Issuer] = {issuer.issuer: issuer for issuer in issuers}
        self._clock = clock
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()

    async def verify(self, unverified_token: str) -> Principal:
        """Who the token proves. Raises TokenRefused with a reason code, or IdentityUnavailable while keys are missing.

        Nothing else comes out, whatever the token holds.
        """
        try:
            return await self._verify(unverified_token)
        except DialtoneError:
            raise
        except Exception as error:
            raise TokenRefused("unexpected") from error

    async def check_ready(self) -> None:
        """Raises IdentityUnavailable while an issuer's keys cannot be had."""
        for issuer in self._issuers.values():
            await issuer.keys.current()

    async def _verify(self, unverified_token: str) -> Principal:
        now = self._clock().timestamp()
        # Only a token that passed the canonical check is ever a key here, so another spelling finds nothing.
        fingerprint = hashlib.sha256(unverified_token.encode("utf-8", "surrogatepass")).digest()
        known = self._verdicts.get(fingerprint)
        if known is not None:
            if known.valid_from <= now < known.valid_until and await known.issuer.keys.current() is known.keys:
                self._verdicts.move_to_end(fingerprint)
                return known.principal
            del self._verdicts[fingerprint]

        token = Compact.parse(unverified_token)
        claims = token.claims()
        issuer = self._issuer_of(claims)
        algorithm, kid = _checked_header(token.header, issuer)
        keys, key = await _key_for(issuer, algorithm, kid)
        check_signature(token, key)
        verdict = _judge(claims, issuer, keys, now)
        self._verdicts[fingerprint] = verdict
        if len(self._verdicts) > CACHED_VERDICTS:
            self._verdicts.popitem(last=False)
        return verdict.principal

    def _issuer_of(self, claims: dict[str, Any]) -> Issuer:
        """By exact string from the configuration. Nothing that a token names is ever fetched."""
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenRefused("unknown_issuer")
        return issuer


async def _key_for(issuer: Issuer, algorithm: str, kid: str | None) -> tuple[KeySet, SignatureKey]:
    keys = await issuer.keys.current()
    try:
        return keys, keys.choose(algorithm, kid)
    except UnknownKey:
        keys = await issuer.keys.refetched()
    try:
        return keys, keys.choose(algorithm, kid)
    except UnknownKey:
        raise TokenRefused("unknown_key") from None


def _checked_header(header: dict[str, Any], issuer: Issuer) -> tuple[str, str | None]:
    """`alg` and `kid`. `jku`, `x5u`, `x5c` and `jwk` are never read: a token does not bring its own key."""
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise TokenRefused("algorithm_not_allowed")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise TokenRefused("bad_kid")
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRefused("unsupported_header")
    if typ is not None and not _is_allowed_type(typ, issuer):
        raise TokenRefused("wrong_type")
    return algorithm, kid


def _is_allowed_type(typ: Any, issuer: Issuer) -> bool:
    """Media types compare without regard to case, and `application/` may be left out (RFC 7515 section 4.1.9)."""
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in issuer.token_types


def _judge(claims: dict[str, Any], issuer: Issuer, keys: KeySet, now: float) -> _Verdict:
    """The claims of a token whose signature is good."""
    for claim, kind in _FOREIGN_CLAIMS.items():
        if claim in claims:
            raise TokenRefused(kind)
    leeway = issuer.leeway.total_seconds()
    expires = _moment(claims, "exp")
    issued = _moment(claims, "iat")
    not_before = _moment(claims, "nbf")
    if expires is None:
        raise TokenRefused("no_expiry")
    valid_from = max(not_before or 0, issued or 0) - leeway
    valid_until = expires + leeway
    if now >= valid_until:
        raise TokenRefused("expired")
    if now < valid_from:
        raise TokenRefused("not_yet_valid")
    if issuer.max_age is not None:
        if issued is None:
            raise TokenRefused("no_issue_time")
        valid_until = min(valid_until, issued + issuer.max_age.total_seconds() + leeway)
        if now >= valid_until:
            raise TokenRefused("too_old")
    if issuer.audiences.isdisjoint(_audience(claims.get("aud"))):
        raise TokenRefused("wrong_audience")
    principal = Principal(
        issuer=issuer.issuer,
        subject=_subject(claims, issuer),
        expires_at=datetime.fromtimestamp(expires, UTC),
        scopes=_scopes(claims.get(issuer.scope_claim), issuer),
        claims=MappingProxyType(claims),
    )
    return _Verdict(principal, keys, issuer, valid_from, valid_until)


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate: a number, and not a bool or a text that looks like one."""
    value = claims.get(name)
    if name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_MOMENT:
        raise TokenRefused(f"bad_{name}")
    return float(value)


def _audience(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise TokenRefused("no_audience" if value is None else "bad_audience")


def _subject(claims: dict[str, Any], issuer: Issuer) -> str:
    """`sub` must be there whatever claim names the user. Control characters end here: it goes to log and ledger."""
    for name in ("sub", issuer.subject_claim):
        value = claims.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT_LENGTH or not value.isprintable():
            raise TokenRefused("bad_subject")
    subject: str = claims[issuer.subject_claim]
    return subject


def _scopes(value: Any, issuer: Issuer) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(value.split())
    if issuer.allows_scope_list and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise TokenRefused("bad_scope")
