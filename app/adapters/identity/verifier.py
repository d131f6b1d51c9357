"""The token verifier: turns an unverified token into a Principal or an error. Read `TokenVerifier.verify` first.

python-jose checks the signature. This package checks everything else, in the order of RFC 8725 and RFC 9068: syntax
(`compact_jws`), issuer and header (this module), key and signature (`keys`), claims (`claims`), not-before.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from app.adapters.identity import load_balancer, unverified_claims
from app.adapters.identity.claims import LOGOUT_TYPES, Issuer, Validity, logout_of, principal_of
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.identity.issuers import Issuers
from app.adapters.identity.keys import MAX_KID_LENGTH, KeySet, SignatureKey, UnknownKey, check_signature
from app.vending.errors import DialtoneError, IdentityUnavailable, LogoutTokenRejected, TokenRejected
from app.vending.models import Principal
from app.vending.not_before import MEMORY, LogoutClaims
from app.vending.service_status import KeySetStatus

CACHED_VERDICTS = 10_000
"""Verified tokens that are cached. The least recently used is evicted first."""

MEMORY_SECONDS = MEMORY.total_seconds()
MAX_KNOWN_HEADERS = 256
"""Token headers that are remembered. An issuer's tokens have few: one for each key."""

READY_SECONDS = 2.0
"""How long a readiness check waits for an issuer's first key set."""

R = TypeVar("R")

_REFUSED_HEADERS = frozenset({"crit", "b64", "zip", "enc"})


class NotBeforeChecker(Protocol):
    """Rejects tokens that were issued before a not-before."""

    def check_remembered(self, principal: Principal) -> None:
        """Check against memory only. Raises TokenRejected."""

    def check_now(self, principal: Principal) -> bool:
        """As `check`, without waiting. False if only the ledger can tell. Raises TokenRejected."""

    async def check(self, principal: Principal) -> None:
        """Check against the ledger where memory does not reach back far enough.

        Raises TokenRejected or LedgerUnavailable.
        """


class _Verdict(NamedTuple):
    """A verified token: the keys that verified it, and how long the result is valid."""

    principal: Principal
    keys: KeySet
    issuer: Issuer
    since: float
    until: float


class _Unverified(NamedTuple):
    """A token whose syntax, issuer and header are valid. Its signature and claims were not checked."""

    token: CompactJws
    claims: dict[str, Any]
    iss: str
    issuer: Issuer
    algorithm: str
    kid: str | None


class _Signed(NamedTuple):
    """A token, and the key that its header names."""

    unverified: _Unverified
    keys: KeySet
    key: SignatureKey


class TokenVerifier:
    """Checks bearer tokens and logout tokens of the configured issuers."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        clock: Callable[[], datetime],
        not_before: NotBeforeChecker | None = None,
        max_cached_tokens: int = CACHED_VERDICTS,
    ) -> None:
        """`not_before` checks not-before entries. None skips the check, as `dialtone policy test` does."""
        self._clock = clock
        self._not_before = not_before
        self._max_cached_tokens = max_cached_tokens
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._headers: dict[bytes, tuple[Issuer, str, str | None]] = {}
        """By the header's text: the issuer, `alg` and `kid` of a token whose signature was valid."""
        self.replace(issuers)

    def replace(self, issuers: Iterable[Issuer]) -> None:
        """Replace the issuers. Cached results of a changed issuer become invalid."""
        self._issuers = Issuers(issuers)

    @property
    def token_headers(self) -> frozenset[bytes]:
        """Request headers that contain tokens of one issuer each, in lower case. `Authorization` is not among them."""
        return self._issuers.token_headers

    def accepts_issuer(self, iss: str) -> bool:
        """Whether users may have this issuer: a configured one, or one that a tenant has."""
        return self._issuers.accepts(iss)

    async def verify(self, unverified_token: str, header: str | None = None) -> Principal:
        """The principal that the token proves. Raises TokenRejected with a reason code.

        `header` is the request header that had the token, if it is one of `token_headers`.

        Raises IdentityUnavailable if keys are missing, SigningKeyPending if they may only be fetched later, and
        LedgerUnavailable if not-before must be read from the ledger and cannot be. Raises no other exception, whatever
        the token contains.
        """
        try:
            return await self._verify(unverified_token, header)
        except DialtoneError:
            raise
        except Exception as error:
            raise TokenRejected("unexpected") from error

    def verify_now(
        self, unverified_tokens: list[str], header: str | None = None
    ) -> list[Principal | DialtoneError | None]:
        """For each token what `verify` returns or raises, without waiting. None if something has to be fetched first.

        Each step checks all tokens before the next step begins. Alternating between the steps would take a third more
        CPU time, because each step evicts the others' code and data from the processor's caches.
        """
        read = [_result_of(self._read_with_key, header, token) for token in unverified_tokens]
        signed = [_result_of(_check_signature, found) for found in read]
        return [_result_of(self._finish, token, found) for token, found in zip(unverified_tokens, signed, strict=True)]

    async def verify_logout(self, unverified_token: str) -> LogoutClaims:
        """The claims of a logout token. Raises LogoutTokenRejected or IdentityUnavailable.

        Does not detect reuse: the ledger records used logout tokens.
        """
        try:
            unverified = self._read(unverified_token, LOGOUT_TYPES)
            await _check_with_keys(unverified, self._logout_claims)
            return self._logout_claims(unverified)
        except TokenRejected as refusal:
            raise LogoutTokenRejected(refusal.reason) from None
        except DialtoneError:
            raise
        except Exception as error:
            raise LogoutTokenRejected("unexpected") from error

    def claimed_principal(self, claims: dict[str, Any]) -> Principal:
        """The principal of claims that are not verified, to explain the policy. Raises TokenRejected."""
        return unverified_claims.principal_of(claims, self._issuers)

    def claimed_fault(self, claims: dict[str, Any]) -> str | None:
        """Why tokens with exactly these claims are rejected; None if they are not. Raises TokenRejected as above."""
        return unverified_claims.fault_of(claims, self._issuers, self._clock().timestamp())

    async def missing_keys(self) -> list[str]:
        """Issuers whose keys are unavailable."""

        async def is_missing(issuer: Issuer) -> bool:
            with suppress(IdentityUnavailable, TimeoutError):
                async with asyncio.timeout(READY_SECONDS):
                    await issuer.keys.current()
                return False
            return True

        issuers = list(self._issuers)
        missing = await asyncio.gather(*(is_missing(issuer) for issuer in issuers))
        return [issuer.issuer for issuer, is_so in zip(issuers, missing, strict=True) if is_so]

    async def refresh_due_keys(self) -> None:
        """Refresh the key sets that are due. One issuer's failure does not affect the others."""
        await self.missing_keys()

    def issuers(self) -> list[str]:
        return [issuer.issuer for issuer in self._issuers]

    async def refresh_keys(self, issuer: str) -> bool:
        """Fetch an issuer's keys now. Returns False if the fetch failed or the issuer is unknown."""
        found = self._issuers.get(issuer)
        return found is not None and await found.keys.refresh()

    async def refresh_all_keys(self) -> None:
        await asyncio.gather(*(issuer.keys.refresh() for issuer in list(self._issuers)))

    def key_sets(self) -> list[KeySetStatus]:
        return [issuer.keys.status(issuer.issuer) for issuer in self._issuers]

    def cached_principal(
        self, unverified_token: str, now: datetime | None = None, header: str | None = None
    ) -> Principal | None:
        """The principal of a token that was verified before; None if it must be verified again.

        Raises TokenRejected if a not-before was set since. A given `now` replaces a call of the clock.
        """
        if "." not in unverified_token:
            return None
        fingerprint, now = self.fingerprint(unverified_token), now or self._clock()
        known = self._verdicts.get(fingerprint)
        if known is None or known.issuer.header != header:
            return None
        still_holds = (
            known.since <= now.timestamp() < known.until
            and self._issuers.get(known.issuer.issuer) is known.issuer
            and known.issuer.keys.cached() is known.keys
        )
        if not still_holds:
            del self._verdicts[fingerprint]
            return None
        if self._not_before is not None:
            self._not_before.check_remembered(known.principal)
        self._verdicts.move_to_end(fingerprint)
        return known.principal

    @staticmethod
    def fingerprint(unverified_token: str) -> bytes:
        """The SHA-256 of the token: the cache's key.

        Only tokens with canonical base64url are cached, so another spelling of the same token does not match.
        """
        return hashlib.sha256(unverified_token.encode("utf-8", "surrogatepass")).digest()

    async def _verify(self, unverified_token: str, header: str | None) -> Principal:
        if (known := self.cached_principal(unverified_token, header=header)) is not None:
            return known
        [verified] = self.verify_now([unverified_token], header)
        if isinstance(verified, DialtoneError):
            raise verified
        if verified is not None:
            return verified
        unverified = self._read(unverified_token, None, header)
        keys = await _check_with_keys(unverified, self._access_claims)
        principal, validity = self._access_claims(unverified)
        if self._not_before is not None:
            await self._not_before.check(principal)
        self._cache(unverified_token, principal, validity, keys, unverified)
        return principal

    def _access_claims(self, unverified: "_Unverified") -> tuple[Principal, Validity]:
        return principal_of(unverified.claims, unverified.issuer, unverified.iss, self._clock().timestamp())

    def _logout_claims(self, unverified: "_Unverified") -> LogoutClaims:
        return logout_of(unverified.claims, unverified.issuer, unverified.iss, self._clock().timestamp())

    def _read(
        self, unverified_token: str, types: frozenset[str] | None, request_header: str | None = None
    ) -> "_Unverified":
        """Everything that can be checked without a key. `types`: allowed `typ`; None: the issuer's."""
        own = None if request_header is None else self._issuers.of_header(request_header)
        if own is not None and own.signer is not None:
            return _read_of_load_balancer(unverified_token, own, own.signer)
        token = CompactJws.parse(unverified_token, self._issuers.max_token_length)
        header = self._headers.get(token.encoded_header) if types is None else None
        decoded_header = token.header() if header is None else None
        claims = token.claims()
        iss, issuer = self._issuers.of(claims, is_access_token=types is None)
        if types is None and issuer.header != request_header:
            raise TokenRejected("wrong_header")
        if issuer.signer is not None:
            # A load balancer signs no logout tokens. Another customer's could sign one with the same key.
            raise TokenRejected("wrong_signer")
        if len(unverified_token) > issuer.max_token_length:
            raise TokenRejected("too_long")
        if header is not None and header[0] is issuer:
            return _Unverified(token, claims, iss, issuer, header[1], header[2])
        algorithm, kid = checked_header(decoded_header or token.header(), issuer, types or issuer.token_types)
        return _Unverified(token, claims, iss, issuer, algorithm, kid)

    def _read_with_key(self, header: str | None, unverified_token: str) -> "_Signed | None":
        unverified = self._read(unverified_token, None, header)
        keys = unverified.issuer.keys.cached()
        if keys is None:
            return None
        try:
            key = keys.choose(unverified.algorithm, unverified.kid)
        except UnknownKey:
            return None
        if keys.have_issuers:
            keys.check_issuer(key, unverified.iss)
        return _Signed(unverified, keys, key)

    def _finish(self, unverified_token: str, signed: "_Signed | None") -> Principal | None:
        """Check the claims of a token whose signature is valid."""
        if signed is None:
            return None
        token, keys, _ = signed
        principal, validity = self._access_claims(token)
        if self._not_before is not None and not self._not_before.check_now(principal):
            return None
        self._cache(unverified_token, principal, validity, keys, token)
        return principal

    def _cache(
        self, unverified_token: str, principal: Principal, validity: Validity, keys: KeySet, verified: "_Unverified"
    ) -> None:
        """Keep the result for this token, and what its header says for other tokens with the same header."""
        issuer, until = verified.issuer, validity.until
        if self._not_before is not None:
            # Memory holds every not-before that was set within this time, but not older ones.
            until = min(until, validity.checked_at + MEMORY_SECONDS)
        verdict = _Verdict(principal, keys, issuer, validity.since, until)
        self._verdicts[self.fingerprint(unverified_token)] = verdict
        if len(self._verdicts) > self._max_cached_tokens:
            self._verdicts.popitem(last=False)
        if issuer.signer is None and verified.token.encoded_header not in self._headers:
            if len(self._headers) >= MAX_KNOWN_HEADERS:
                self._headers.clear()
            self._headers[verified.token.encoded_header] = (issuer, verified.algorithm, verified.kid)


def _result_of(step: Callable[..., R], *values: Any) -> R | DialtoneError:
    """The step's result, or its error. An error of the step before is passed on."""
    last = values[-1]
    if isinstance(last, DialtoneError):
        return last
    try:
        return step(*values)
    except DialtoneError as error:
        return error
    except Exception as error:
        rejected = TokenRejected("unexpected")
        rejected.__cause__ = error
        return rejected


def _check_signature(signed: _Signed | None) -> _Signed | None:
    if signed is not None:
        check_signature(signed.unverified.token, signed.key)
    return signed


def _read_of_load_balancer(unverified_token: str, issuer: Issuer, signer: str) -> _Unverified:
    token = load_balancer.parse(unverified_token, issuer.max_token_length)
    header = token.header()
    algorithm, kid = checked_header(header, issuer, issuer.token_types)
    claims = load_balancer.claims_of(token, header, signer)
    if claims.get("iss") != issuer.issuer:
        raise TokenRejected("unknown_issuer")
    return _Unverified(token, claims, issuer.issuer, issuer, algorithm, kid)


async def _check_with_keys(unverified: _Unverified, check_claims: Callable[[_Unverified], object]) -> KeySet:
    """Check the signature, and return the key set that contains the key. Fetches it if necessary.

    If the key is unknown, the claims are checked first: a token that no key could make valid causes no fetch.
    """
    keys = await unverified.issuer.keys.current()
    try:
        key = keys.choose(unverified.algorithm, unverified.kid)
    except UnknownKey:
        check_claims(unverified)
        keys = await unverified.issuer.keys.refresh_for((unverified.algorithm, unverified.kid))
        try:
            key = keys.choose(unverified.algorithm, unverified.kid)
        except UnknownKey:
            raise TokenRejected("unknown_key") from None
    if keys.have_issuers:
        keys.check_issuer(key, unverified.iss)
    check_signature(unverified.token, key)
    return keys


def checked_header(header: dict[str, Any], issuer: Issuer, types: frozenset[str]) -> tuple[str, str | None]:
    """`alg` and `kid`. `jku`, `x5u`, `x5c` and `jwk` are never read: a token must not supply its own key."""
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise TokenRejected("algorithm_not_allowed")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise TokenRejected("bad_kid")
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRejected("unsupported_header")
    if typ is not None and not _is_type(typ, types):
        raise TokenRejected("wrong_type")
    return algorithm, kid


def _is_type(typ: Any, types: frozenset[str]) -> bool:
    """True if `typ` is allowed. Case does not matter, and `application/` may be omitted (RFC 7515 section 4.1.9)."""
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in types
