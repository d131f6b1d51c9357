"""A user's own devices: reading them, and changing label or lifetime. Nothing here handles a secret."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.errors import IssueInProgress, LeaseConflict, LeaseEnded, LeaseNotFound
from app.vending.grants.binding import DeviceBinding
from app.vending.models import Principal, UserKey
from app.vending.policy import ActivePolicy, Allowance
from app.vending.telephony.durations import lifetime, replacement_time
from app.vending.telephony.lease import LIVE, Lease, LeaseState
from app.vending.telephony.renew import LeaseRenewer

MAX_ATTEMPTS = 5
"""How often a change is attempted if another writer changes the row first."""


class DeviceLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def page(self, user_key: UserKey, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        """The user's unfinished leases, newest first, starting after `after` = (created_at, id)."""


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """The fields to change. `has_label` distinguishes removing the label (None) from leaving it unchanged."""

    has_label: bool = False
    label: str | None = None
    ttl_seconds: int | None = None


class Devices:
    """A user's own leases."""

    def __init__(
        self,
        policy: ActivePolicy,
        ledger: DeviceLedger,
        renewer: LeaseRenewer,
        binding: DeviceBinding,
        audit: Audit,
        clock: Callable[[], datetime],
        ensure_outbound: Callable[[Allowance], Awaitable[None]],
    ) -> None:
        """`ensure_outbound` checks the connection before an extension, as `OutboundGuard.ensure_met` describes."""
        self._policy = policy
        self._ledger = ledger
        self._renewer = renewer
        self._binding = binding
        self._audit = audit
        self._clock = clock
        self._ensure_outbound = ensure_outbound

    async def get(self, principal: Principal, lease_id: str) -> Lease:
        """Raises LeaseNotFound, also for another user's lease."""
        self._policy.authorize(principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.user_key != principal.user_key:
            raise LeaseNotFound
        await self._binding.check(principal, lease.device_id)
        return lease

    async def list(self, principal: Principal, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        self._policy.authorize_all_devices(principal)
        return await self._ledger.page(principal.user_key, after, limit)

    async def update(self, principal: Principal, lease_id: str, change: LeaseChange) -> Lease:
        """Change label or lifetime. A later expiry requires what a login requires.

        Raises IssueInProgress during a create, LeaseEnded if the lease has ended, and what `ensure_outbound` raises.
        """
        for _ in range(MAX_ATTEMPTS):
            lease = await self.get(principal, lease_id)
            if lease.state not in LIVE or lease.has_expired(self._clock()):
                raise LeaseEnded
            if lease.state is LeaseState.PENDING:
                raise IssueInProgress  # its credential is being created; a write would conflict with that
            try:
                changed = await self._changed(lease, change, self._policy.authorize(principal))
            except LeaseConflict:
                continue
            await self._audit.record(Decision.about_lease(changed, AuditAction.RENEWED, "changed_by_user"))
            return changed
        raise LeaseConflict

    async def _changed(self, lease: Lease, change: LeaseChange, allowance: Allowance) -> Lease:
        label = change.label if change.has_label else lease.label
        ttl, until = lease.ttl_seconds, None
        if change.ttl_seconds is not None:
            ttl = int(lifetime(allowance.ttl, lease.platform, change.ttl_seconds).total_seconds())
            until = self._expiry(lease, ttl, allowance)
        if until is not None and until > lease.expires_at:
            await self._ensure_outbound(allowance)
        if (label, ttl) != (lease.label, lease.ttl_seconds):
            changed = lease.change(
                self._clock(), label=label, platform=lease.platform, ttl_seconds=ttl, session=lease.session
            )
            lease = await self._renewer.change(lease, changed)
        if until is not None:
            lease = await self._renewer.set_expiry(lease, until)
        return lease

    def _expiry(self, lease: Lease, ttl_seconds: int, allowance: Allowance) -> datetime | None:
        """The expiry for this lifetime. None if it would extend a credential that the next login replaces."""
        now = self._clock()
        until = (now + timedelta(seconds=ttl_seconds)).replace(microsecond=0)
        is_former = lease.connection_id != allowance.connection_id
        is_replaced = is_former or now >= replacement_time(lease, allowance.max_lease_age)
        return None if is_replaced and until > lease.expires_at else until
