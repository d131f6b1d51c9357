"""What users see and change of their own devices. Nothing here touches a secret."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import Action, Audit, Decision
from app.vending.errors import Busy, LeaseEnded, LeaseMoved, LeaseNotFound
from app.vending.models import Owner, Principal
from app.vending.policy import Allowance, PolicyInForce
from app.vending.telephony.durations import lifetime
from app.vending.telephony.lease import LIVE, Lease, State
from app.vending.telephony.login_cache import LoginsAtHand
from app.vending.telephony.renew import Expiry

TRIES = 5
"""How often a change is made anew when another writer was first."""


class Ledger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def page(self, owner: Owner, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        """The user's unfinished leases, newest first, from behind `after` = (created_at, id) on."""

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What to change. A flag says whether the label is meant, because None is a label too: none."""

    sets_label: bool = False
    label: str | None = None
    ttl_seconds: int | None = None


class Devices:
    """A user's own leases."""

    def __init__(
        self,
        policy: PolicyInForce,
        ledger: Ledger,
        expiry: Expiry,
        at_hand: LoginsAtHand,
        audit: Audit,
        clock: Callable[[], datetime],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._expiry = expiry
        self._at_hand = at_hand
        self._audit = audit
        self._clock = clock

    async def show(self, principal: Principal, lease_id: str) -> Lease:
        """Raises LeaseNotFound, for another user's lease as for none."""
        self._policy.admit(principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.owner != principal.owner:
            raise LeaseNotFound
        return lease

    async def page(self, principal: Principal, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        self._policy.admit(principal)
        return await self._ledger.page(principal.owner, after, limit)

    async def change(self, principal: Principal, lease_id: str, change: Change) -> Lease:
        """Another label or lifetime. Raises Busy while the login is being made, LeaseEnded where nothing is left."""
        for _ in range(TRIES):
            lease = await self.show(principal, lease_id)
            if lease.state not in LIVE or lease.has_expired(self._clock()):
                raise LeaseEnded
            if lease.state is State.PENDING:
                raise Busy  # its credential is being made; a write now would only get in the way
            try:
                changed = await self._changed(lease, change, self._policy.admit(principal))
            except LeaseMoved:
                continue
            await self._audit.record(Decision.about(changed, Action.RENEWED, "changed_by_user"))
            return changed
        raise LeaseMoved

    async def _changed(self, lease: Lease, change: Change, allowance: Allowance) -> Lease:
        label = change.label if change.sets_label else lease.label
        ttl = lease.ttl_seconds
        if change.ttl_seconds is not None:
            ttl = int(lifetime(allowance.ttl, lease.platform, change.ttl_seconds).total_seconds())
        if (label, ttl) != (lease.label, lease.ttl_seconds):
            changed = lease.changed(
                self._clock(), label=label, platform=lease.platform, ttl_seconds=ttl, session=lease.session
            )
            lease = await self._ledger.advance(lease, changed)
            self._at_hand.forget(lease)
        if change.ttl_seconds is not None and lease.credential_id is not None:
            until = self._clock() + timedelta(seconds=lease.ttl_seconds)
            lease = await self._expiry.set(lease, until.replace(microsecond=0))
        return lease
