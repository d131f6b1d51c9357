"""Revoking grants: one, those of a backend, or all. A grant is a session, so this is the logout of a session."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.vending.audit import Audit, AuditAction, AuditOutcome, Decision
from app.vending.errors import GrantNotFound, LogoutTokenRejected
from app.vending.grants.models import AccessGrant
from app.vending.models import Principal, UserKey
from app.vending.not_before import LogoutClaims, NotBeforeRegistry
from app.vending.telephony.revoke import Revoker

REVOKE_BATCH_SIZE = 200
"""Grants revoked in one call: a second's work on SQLite."""


@dataclass(frozen=True, slots=True)
class GrantRevocation:
    """Numbers of revoked grants and of ended leases. If `is_all` is false, the caller repeats the call."""

    grants: int
    leases: int
    is_all: bool = True


class GrantLedger(Protocol):
    async def find(self, grant_id: str) -> AccessGrant | None: ...

    async def unrevoked(self, backend: UserKey | None, limit: int) -> list[AccessGrant]:
        """Grants of a backend or of all backends. Expired ones are included while a lease made with them is live."""

    async def mark_revoked(self, grant_id: str, now: datetime) -> None: ...


class GrantRevoker:
    """Revokes grants, and ends the leases that were made with them."""

    def __init__(
        self,
        ledger: GrantLedger,
        not_before: NotBeforeRegistry,
        revoker: Revoker,
        audit: Audit,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._not_before = not_before
        self._revoker = revoker
        self._audit = audit
        self._clock = clock

    async def revoke_own(self, backend: Principal, grant_id: str) -> None:
        """Revoke a grant of the backend. Idempotent. Raises GrantNotFound, also for another backend's grant."""
        grant = await self._ledger.find(grant_id)
        if grant is None or grant.backend != backend.user_key:
            raise GrantNotFound
        await self._revoke(grant, "asked_by_backend")

    async def revoke(self, grant_id: str) -> GrantRevocation:
        """Revoke one grant for an operator. Idempotent. Raises GrantNotFound."""
        grant = await self._ledger.find(grant_id)
        if grant is None:
            raise GrantNotFound
        return GrantRevocation(1, await self._revoke(grant, "asked_by_operator"))

    async def revoke_all(self, backend: UserKey | None) -> GrantRevocation:
        """Revoke the grants of a backend or of all backends for an operator. Grants minted later are accepted."""
        found = await self._ledger.unrevoked(backend, REVOKE_BATCH_SIZE)
        ended = [await self._revoke(grant, "asked_by_operator") for grant in found]
        return GrantRevocation(len(ended), sum(ended), is_all=len(found) < REVOKE_BATCH_SIZE)

    async def _revoke(self, grant: AccessGrant, reason: str) -> int:
        """Reject the token on every replica, and end the leases of its session. Returns their number."""
        if grant.revoked_at is not None:
            return 0
        now = self._clock()
        # The expiry as the time of the logout: a replica whose clock is ahead may have minted the token "later".
        logout = LogoutClaims(
            issuer=grant.kind.issuer,
            token_id=f"grant {grant.id}",
            issued_at=grant.expires_at,
            expires_at=max(now, grant.expires_at),
            subject=grant.subject,
            session=grant.id,
        )
        try:
            ended = await self._not_before.log_out(logout, now)
        except LogoutTokenRejected:
            ended = []  # another request is revoking it
        self._revoker.on_leases_ended(ended)
        outcome = AuditOutcome.UNCONFIRMED if ended else AuditOutcome.DONE
        details: dict[str, str | int] = {"grant_id": grant.id, "leases": len(ended)}
        await self._audit.record(
            Decision(AuditAction.GRANT_REVOKED, outcome, reason, grant.user_key, grant.device_id, details=details)
        )
        # Last, so that a repeated call records the event if this one could not. The session has ended already.
        await self._ledger.mark_revoked(grant.id, now)
        return len(ended)
