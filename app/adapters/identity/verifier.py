"""The token verifier: from an unverified token to a Principal, or one refusal. Read `TokenVerifier.verify` first.

python-jose checks the signature. Everything else that a token can get wrong is checked in this room, in the order of
RFC 8725 and RFC 9068: shape (`compact`), issuer and header (here), key and signature (`keys`), `claims`, marks.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from app.adapters.identity.claims import LOGOUT_TYPES, Issuer, Validity, logout_of, principal_of
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.identity.keys import MAX_KID_LENGTH, KeySet, SignatureKey, UnknownKey, check_signature
from app.vending.errors import DialtoneError, IdentityUnavailable, LogoutTokenRejected, TokenRejected
from app.vending.models import Principal
from app.vending.not_before import MEMORY, LogoutClaims
from app.vending.operators.service_status import KeySetStatus

CACHED_VERDICTS = 10_000
"""Verified tokens remembered; the least recently used goes first."""

READY_SECONDS = 2.0
"""How long a look at an issuer's readiness waits for a first key set that is on its way."""

_REFUSED_HEADERS = frozenset({"crit", "b64", "zip", "enc"})


class NotBeforeChecker(Protocol):
    """What ends a token before its time. Both raise TokenRejected; the second may raise LedgerUnavailable."""

    def check_remembered(self, principal: Principal) -> None: ...

    async def check(self, principal: Principal) -> None: ...


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A token found good: with which keys, and between which times it stays so."""

    principal: Principal
    keys: KeySet
    issuer: Issuer
    validity: Validity


class TokenVerifier:
    """Checks bearer tokens and logout tokens of the configured issuers."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        clock: Callable[[], datetime],
        marks: NotBeforeChecker | None = None,
        max_cached_tokens: int = CACHED_VERDICTS,
    ) -> None:
        """`marks` is None where a token is only looked at, as by `dialtone policy test`."""
        self._clock = clock
        self._marks = marks
        self._max_cached_tokens = max_cached_tokens
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self.replace(issuers)

    def replace(self, issuers: Iterable[Issuer]) -> None:
        """Other issuers from now on. What was verified under an issuer that changed must be verified again."""
        self._issuers: Mapping[str, Issuer] = {issuer.issuer: issuer for issuer in issuers}

    async def verify(self, unverified_token: str) -> Principal:
        """Who the token proves. Raises TokenRejected with a reason code.

        Raises IdentityUnavailable while keys are missing, and LedgerUnavailable where only the ledger can say whether
        an old token was ended. Nothing else comes out, whatever the token holds.
        """
        try:
            return await self._verify(unverified_token)
        except DialtoneError:
            raise
        except Exception as error:
            raise TokenRejected("unexpected") from error

    async def verify_logout(self, unverified_token: str) -> LogoutClaims:
        """What an identity provider's logout token asks. Raises LogoutTokenRejected or IdentityUnavailable.

        Whether it was used before is the ledger's to say.
        """
        try:
            claims, issuer, _ = await self._authentic(unverified_token, LOGOUT_TYPES)
            return logout_of(claims, issuer, self._clock().timestamp())
        except TokenRejected as refusal:
            raise LogoutTokenRejected(refusal.reason) from None
        except DialtoneError:
            raise
        except Exception as error:
            raise LogoutTokenRejected("unexpected") from error

    async def missing_keys(self) -> list[str]:
        """Issuers whose keys cannot be had at the moment."""

        async def is_missing(issuer: Issuer) -> bool:
            with suppress(IdentityUnavailable, TimeoutError):
                async with asyncio.timeout(READY_SECONDS):
                    await issuer.keys.current()
                return False
            return True

        issuers = list(self._issuers.values())
        missing = await asyncio.gather(*(is_missing(issuer) for issuer in issuers))
        return [issuer.issuer for issuer, is_so in zip(issuers, missing, strict=True) if is_so]

    async def refresh_due_keys(self) -> None:
        """Fetch the key sets whose time has come; trouble with one issuer touches no other."""
        await self.missing_keys()

    def issuers(self) -> list[str]:
        return list(self._issuers)

    async def refresh_keys(self, issuer: str) -> bool:
        """Fetch that issuer's keys now, because an operator asks. Whether that succeeded."""
        found = self._issuers.get(issuer)
        return found is not None and await found.keys.refresh()

    async def refresh_all_keys(self) -> None:
        await asyncio.gather(*(issuer.keys.refresh() for issuer in list(self._issuers.values())))

    def key_sets(self) -> list[KeySetStatus]:
        return [issuer.keys.status(issuer.issuer) for issuer in self._issuers.values()]

    def cached_principal(self, unverified_token: str) -> Principal | None:
        """Who the token proved before, if that still holds. Raises TokenRejected where a mark has ended it since."""
        if "." not in unverified_token:
            return None
        return self.cached_principal_for(self.fingerprint(unverified_token), self._clock())

    def cached_principal_for(self, fingerprint: bytes, now: datetime) -> Principal | None:
        """As `recall`, for a token that was shown before."""
        known = self._verdicts.get(fingerprint)
        if known is None:
            return None
        still_holds = (
            known.validity.since <= now.timestamp() < known.validity.until
            and self._issuers.get(known.issuer.issuer) is known.issuer
            and known.issuer.keys.cached() is known.keys
        )
        if not still_holds:
            del self._verdicts[fingerprint]
            return None
        if self._marks is not None:
            self._marks.check_remembered(known.principal)
        self._verdicts.move_to_end(fingerprint)
        return known.principal

    @staticmethod
    def fingerprint(unverified_token: str) -> bytes:
        """Only a token that passed the canonical check is ever remembered, so another spelling of it finds nothing."""
        return hashlib.sha256(unverified_token.encode("utf-8", "surrogatepass")).digest()

    async def _verify(self, unverified_token: str) -> Principal:
        if (known := self.cached_principal(unverified_token)) is not None:
            return known

        now = self._clock().timestamp()
        claims, issuer, keys = await self._authentic(unverified_token, None)
        principal, validity = principal_of(claims, issuer, now)
        if self._marks is not None:
            await self._marks.check(principal)
            # Beyond that, memory no longer holds every mark that was made since.
            validity = Validity(validity.since, min(validity.until, now + MEMORY.total_seconds()))
        self._verdicts[self.fingerprint(unverified_token)] = _Verdict(principal, keys, issuer, validity)
        if len(self._verdicts) > self._max_cached_tokens:
            self._verdicts.popitem(last=False)
        return principal

    async def _authentic(
        self, unverified_token: str, types: frozenset[str] | None
    ) -> tuple[dict[str, Any], Issuer, KeySet]:
        """The claims of a token that its issuer signed, as yet unjudged. `types`: allowed `typ`, None: the issuer's."""
        token = CompactJws.parse(unverified_token)
        claims = token.claims()
        issuer = self._issuer_of(claims)
        algorithm, kid = checked_header(token.header, issuer, issuer.token_types if types is None else types)
        keys, key = await _key_for(issuer, algorithm, kid)
        check_signature(token, key)
        return claims, issuer, keys

    def _issuer_of(self, claims: dict[str, Any]) -> Issuer:
        """By exact string from the configuration. Nothing that a token names is ever fetched."""
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenRejected("unknown_issuer")
        return issuer


async def _key_for(issuer: Issuer, algorithm: str, kid: str | None) -> tuple[KeySet, SignatureKey]:
    keys = await issuer.keys.current()
    try:
        return keys, keys.choose(algorithm, kid)
    except UnknownKey:
        keys = await issuer.keys.refresh_for_unknown_kid()
    try:
        return keys, keys.choose(algorithm, kid)
    except UnknownKey:
        raise TokenRejected("unknown_key") from None


def checked_header(header: dict[str, Any], issuer: Issuer, types: frozenset[str]) -> tuple[str, str | None]:
    """`alg` and `kid`. `jku`, `x5u`, `x5c` and `jwk` are never read: a token does not bring its own key."""
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
    """Media types compare without regard to case, and `application/` may be left out (RFC 7515 section 4.1.9)."""
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in types
