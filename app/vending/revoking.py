"""Revoking: a device is logged out. Written down first, then deleted at Telnyx until Telnyx confirms."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.at_hand import LoginsAtHand
from app.vending.errors import CarrierError, LeaseMoved, LeaseNotFound
from app.vending.leases import LEFTOVER, LIVE, Lease
from app.vending.nouns import Owner, Principal
from app.vending.policy import Policy, admit
from app.vending.recovery import SETTLING, Recovery

FIRST_RETRY = timedelta(seconds=5)
LAST_RETRY = timedelta(minutes=10)
"""A deletion that Telnyx does not confirm is tried again after FIRST_RETRY, doubling up to LAST_RETRY."""

AT_ONCE = 8
"""Deletions in flight for one "log me out everywhere"."""


class Ledger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def unfinished(self, owner: Owner) -> list[Lease]:
        """The user's leases that a credential may exist for: PENDING, ACTIVE, REVOKING."""

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class Revoker:
    """Ends leases by request, and sees a deletion through as far as Telnyx lets it."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        recovery: Recovery,
        at_hand: LoginsAtHand,
        clock: Callable[[], datetime],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._recovery = recovery
        self._at_hand = at_hand
        self._clock = clock

    async def revoke(self, principal: Principal, lease_id: str) -> bool:
        """Log one device out. Whether Telnyx has confirmed; if not, the sweeper goes on. Revoking twice is no error."""
        admit(self._policy, principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.owner != principal.owner:
            raise LeaseNotFound
        return await self._revoke(lease)

    async def revoke_all(self, principal: Principal) -> bool:
        """Log the user out everywhere. Whether Telnyx has confirmed every one."""
        admit(self._policy, principal)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(lease: Lease) -> bool:
            async with gate:
                return await self._revoke(lease)

        leases = await self._ledger.unfinished(principal.owner)
        return all(await asyncio.gather(*(one(lease) for lease in leases)))

    async def _revoke(self, lease: Lease) -> bool:
        while lease.state in LIVE:
            try:
                lease = await self._ledger.advance(lease, lease.revoking(self._clock()))
            except LeaseMoved:
                moved = await self._ledger.find(lease.id)
                if moved is None:
                    raise LeaseNotFound from None
                lease = moved
        self._at_hand.end(lease, self._clock())
        if lease.state not in LEFTOVER:
            return True
        try:
            return await self.finish(lease)
        except LeaseMoved:
            return False  # a sweeper is at it

    async def finish(self, lease: Lease) -> bool:
        """Delete an ended lease's credential. Whether it is certainly gone; if not, a time for the next try is set.

        The next time is written down before Telnyx is asked: it keeps other replicas from the same work meanwhile.
        Raises LeaseMoved if one of them was first.
        """
        now = self._clock()
        delay = min(FIRST_RETRY * 2 ** min(lease.attempts, 10), LAST_RETRY)
        lease = await self._ledger.advance(lease, lease.postponed(now, now + delay))
        try:
            if lease.credential_id is not None:
                await self._recovery.delete(lease.credential_id)
            for namesake in await self._recovery.all_of(lease) if lease.attempted_at is not None else ():
                await self._recovery.delete(namesake.id)
        except CarrierError:
            return False
        if lease.attempted_at is not None and self._clock() < lease.attempted_at + SETTLING:
            return False  # a create may still be on its way: look again
        await self._ledger.advance(lease, lease.gone(self._clock()))
        return True
