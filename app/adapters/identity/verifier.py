"""The token verifier: turns an unverified token into a Principal or an error. Read `TokenVerifier.verify` first.

python-jose checks the signature. This package checks everything else, in the order of RFC 8725 and RFC 9068: syntax
(`compact_jws`), issuer and header (`unverified_tokens`), key and signature (`keys`), claims (`claims`), not-before.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from app.adapters.identity.claims import LOGOUT_TYPES, Issuer, Validity, logout_of, principal_of
from app.adapters.identity.issuers import Issuers
from app.adapters.identity.keys import KeySet, SignatureKey, UnknownKey, check_signature
from app.adapters.identity.unverified_tokens import UnverifiedToken, check_with_keys, key_of, read
from app.vending.errors import DialtoneError, IdentityUnavailable, LogoutTokenRejected, TokenRejected
from app.vending.models import Principal, UserKey
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


class _Signed(NamedTuple):
    """A token, and the key that its header names."""

    unverified: UnverifiedToken
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
        """`not_before` checks not-before entries. None skips the check, for commands that check them separately."""
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
        found = [self._result_of(self._read_with_key, header, token) for token in unverified_tokens]
        signed = [self._result_of(_check_signature, one) for one in found]
        return [self._result_of(self._finish, token, one) for token, one in zip(unverified_tokens, signed, strict=True)]

    async def verify_logout(self, unverified_token: str) -> LogoutClaims:
        """The claims of a logout token. Raises LogoutTokenRejected or IdentityUnavailable.

        Does not detect reuse: the ledger records used logout tokens.
        """
        unverified = None
        try:
            unverified = read(unverified_token, self._issuers, self._headers, LOGOUT_TYPES)
            await check_with_keys(unverified, self._logout_claims)
            return self._logout_claims(unverified)
        except TokenRejected as refusal:
            self._issuers.describe(refusal, unverified and unverified.issuer, is_logout_token=True)
            raise LogoutTokenRejected(refusal.reason, refusal.expected) from None
        except DialtoneError:
            raise
        except Exception as error:
            raise LogoutTokenRejected("unexpected") from error

    @property
    def configured_issuers(self) -> Issuers:
        """The issuers whose tokens are accepted now."""
        return self._issuers

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
            try:
                self._not_before.check_remembered(known.principal)
            except TokenRejected as refusal:
                self._issuers.describe(refusal, known.issuer)
                raise
        self._verdicts.move_to_end(fingerprint)
        return known.principal

    def users(self) -> set[UserKey]:
        """The users of cached results."""
        return {verdict.principal.user_key for verdict in self._verdicts.values()}

    def forget(self, users: Collection[UserKey]) -> None:
        """Remove the cached results of these users. Their tokens are verified again when they are used."""
        for fingerprint in [key for key, one in self._verdicts.items() if one.principal.user_key in users]:
            del self._verdicts[fingerprint]

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
        unverified = read(unverified_token, self._issuers, self._headers, None, header)
        try:
            keys = await check_with_keys(unverified, self._access_claims)
            principal, validity = self._access_claims(unverified)
            if self._not_before is not None:
                await self._not_before.check(principal)
        except TokenRejected as refusal:
            self._issuers.describe(refusal, unverified.issuer)
            raise
        self._cache(unverified_token, principal, validity, keys, unverified)
        return principal

    def _access_claims(self, unverified: UnverifiedToken) -> tuple[Principal, Validity]:
        return principal_of(unverified.claims, unverified.issuer, unverified.iss, self._clock().timestamp())

    def _logout_claims(self, unverified: UnverifiedToken) -> LogoutClaims:
        return logout_of(unverified.claims, unverified.issuer, unverified.iss, self._clock().timestamp())

    def _read_with_key(self, header: str | None, unverified_token: str) -> _Signed | None:
        unverified = read(unverified_token, self._issuers, self._headers, None, header)
        keys = unverified.issuer.keys.cached()
        if keys is None:
            return None
        try:
            key = key_of(unverified, keys)
        except UnknownKey:
            return None
        except TokenRejected as refusal:
            self._issuers.describe(refusal, unverified.issuer)
            raise
        return _Signed(unverified, keys, key)

    def _finish(self, unverified_token: str, signed: _Signed | None) -> Principal | None:
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
        self, unverified_token: str, principal: Principal, validity: Validity, keys: KeySet, verified: UnverifiedToken
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

    def _result_of(self, step: Callable[..., R], *values: Any) -> R | DialtoneError:
        """The step's result, or its error. An error of the step before is passed on."""
        last = values[-1]
        if isinstance(last, DialtoneError):
            return last
        try:
            return step(*values)
        except TokenRejected as refusal:
            self._issuers.describe(refusal, last.unverified.issuer if isinstance(last, _Signed) else None)
            return refusal
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
