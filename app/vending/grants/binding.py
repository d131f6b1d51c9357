"""Binding: a grant belongs to the first device that uses it."""

from typing import Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.errors import TokenRejected
from app.vending.grants.models import ORIGIN_CLAIM, AccessGrant, is_granted
from app.vending.models import Principal


class BindingLedger(Protocol):
    async def find(self, grant_id: str) -> AccessGrant | None: ...

    async def bind(self, grant_id: str, device_id: str) -> bool:
        """Bind the grant to the device unless it is bound or revoked. Returns whether this call bound it."""


class DeviceBinding:
    """Rejects grants that another device uses. Every method raises LedgerUnavailable."""

    def __init__(self, ledger: BindingLedger, audit: Audit) -> None:
        self._ledger = ledger
        self._audit = audit

    async def check(self, principal: Principal, device_id: str) -> None:
        """Bind the principal's grant to the device, or raise TokenRejected if it is bound to another one.

        Principals without a grant are not affected.
        """
        if not is_granted(principal):
            return
        grant = await self._find(principal)
        if grant.device_id is None:
            if await self._ledger.bind(grant.id, device_id):
                details = {"grant_id": grant.id}
                used = Decision(AuditAction.GRANT_USED, user_key=grant.user_key, device_id=device_id, details=details)
                await self._audit.record(used)
                return
            grant = await self._find(principal)  # another request was first
        if grant.device_id != device_id:
            raise TokenRejected("grant_of_other_device")

    async def check_known(self, principal: Principal) -> None:
        """Raise TokenRejected if the principal's grant has no row or was revoked. For operations without a device."""
        if is_granted(principal):
            await self._find(principal)

    async def _find(self, principal: Principal) -> AccessGrant:
        grant = None if principal.session is None else await self._ledger.find(principal.session)
        if grant is None or grant.revoked_at is not None or not _is_of(grant, principal):
            raise TokenRejected("grant_revoked")
        return grant


def _is_of(grant: AccessGrant, principal: Principal) -> bool:
    """Whether the row has what the token says. An attacker with the signing key could name the row of another grant."""
    return (
        grant.user_key == principal.user_key
        and grant.created_at == principal.issued_at
        and grant.expires_at == principal.expires_at
        and grant.origin == principal.claims.get(ORIGIN_CLAIM)
    )
