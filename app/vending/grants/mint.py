"""Minting grants: a backend vouches for a user or a guest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.errors import AccessDenied
from app.vending.grants.models import ORIGIN_CLAIM, AccessGrant, GrantKind
from app.vending.models import Principal
from app.vending.policy import ActivePolicy


class GrantRequest(NamedTuple):
    """A backend's request for a grant. `None` leaves the choice to Dialtone."""

    kind: GrantKind
    subject: str | None = None
    """Required for users. A guest without a subject gets a new one."""
    origin: str | None = None
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class MintedGrant:
    """A grant with its token. A bearer secret: never logged, never stored."""

    grant: AccessGrant
    token: str = field(repr=False)


class MintLedger(Protocol):
    async def add(self, grant: AccessGrant) -> None:
        """Raises LedgerUnavailable."""


class GrantSigner(Protocol):
    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims and the audience of this deployment. Raises AccessDenied if there is no key."""


class GrantLimiter(Protocol):
    def check_grant(self, backend: Principal, kind: GrantKind) -> None:
        """Count a grant of the backend. Raises RateLimited."""


class GrantMinter:
    """Mints grants for backends."""

    def __init__(
        self,
        policy: ActivePolicy,
        ledger: MintLedger,
        signer: GrantSigner,
        limiter: GrantLimiter,
        audit: Audit,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        max_ttl: timedelta,
    ) -> None:
        """`max_ttl` is the default lifetime too."""
        self._policy = policy
        self._ledger = ledger
        self._signer = signer
        self._limiter = limiter
        self._audit = audit
        self._clock = clock
        self._new_id = new_id
        self._max_ttl = max_ttl

    async def mint(self, backend: Principal, wanted: GrantRequest) -> MintedGrant:
        """A grant for the user or guest. It is in the ledger before it is returned.

        Raises AccessDenied, RateLimited, LedgerUnavailable or AuditUnavailable.
        """
        self._policy.authorize_grants(backend, wanted.kind)
        grant = self._grant(backend, wanted)
        claims = _claims(grant)
        if self._policy.policy.enforced(grant.principal(claims)).allowance is None:
            raise AccessDenied  # no rule applies to grants of this kind
        self._limiter.check_grant(backend, wanted.kind)
        token = self._signer.sign(claims)
        await self._ledger.add(grant)
        details = {"grant_id": grant.id, "kind": grant.kind.value, "expires_at": grant.expires_at.isoformat()}
        await self._audit.record(Decision(AuditAction.GRANT_MINTED, user_key=grant.user_key, details=details))
        return MintedGrant(grant, token)

    def _grant(self, backend: Principal, wanted: GrantRequest) -> AccessGrant:
        now = self._clock().replace(microsecond=0)
        own = self._max_ttl if wanted.ttl_seconds is None else timedelta(seconds=wanted.ttl_seconds)
        return AccessGrant(
            id=self._new_id(),
            kind=wanted.kind,
            subject=wanted.subject or self._new_id(),
            backend=backend.user_key,
            origin=wanted.origin,
            created_at=now,
            expires_at=now + min(own, self._max_ttl),
        )


def _claims(grant: AccessGrant) -> dict[str, Any]:
    claims = {
        "iss": grant.kind.issuer,
        "sub": grant.subject,
        "sid": grant.id,
        "iat": int(grant.created_at.timestamp()),
        "exp": int(grant.expires_at.timestamp()),
    }
    return claims if grant.origin is None else claims | {ORIGIN_CLAIM: grant.origin}
