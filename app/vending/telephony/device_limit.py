"""The device limit: how a new device gets a place when the user has reached the maximum number of devices.

PENDING and ACTIVE leases occupy places. The ledger counts them, and evicts leases, in the transaction that opens the
new lease, so concurrent requests do not exceed the limit. This module decides which leases are evicted, and whether a
device that finds no place waits or is rejected.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from app.vending.errors import DeviceLimitReached, IssueInProgress
from app.vending.models import Platform, Principal
from app.vending.policy import Allowance, DeviceLimitAction
from app.vending.telephony.deadlines import POLL_SECONDS
from app.vending.telephony.lease import LIVE, Lease, LeaseState

WAIT_SECONDS = 3.0
"""How long a new device waits for another device's create before it gets IssueInProgress. A create takes a second."""


class OpenedLease(NamedTuple):
    """The device's live lease, and the leases of other devices that were evicted for a new one, now REVOKING."""

    lease: Lease
    is_new: bool
    evicted: list[Lease]


ChooseEvicted = Callable[[list[Lease]], list[Lease]]
"""Chooses from a user's live leases those to evict, or raises a DialtoneError."""


class DeviceLimitLedger(Protocol):
    async def open(self, lease: Lease, max_devices: int, principal: Principal, choose: ChooseEvicted) -> OpenedLease:
        """The device's live lease. If it has none, insert this one, or claim a pooled lease with its credential.

        If the user has `max_devices` live leases, `choose` gets them and returns those to evict. If it raises, nothing
        is written. Raises LeaseExists if another writer has inserted a lease of the device, and TokenRejected if a
        not-before entry (a logout, for instance) has rejected the user's token since it was verified.
        """


class DeviceLimit:
    """Opens leases within the user's device limit."""

    def __init__(
        self,
        ledger: DeviceLimitLedger,
        on_evicted: Callable[[list[Lease]], Awaitable[None]],
        last_use: Callable[[Lease], datetime],
    ) -> None:
        """`last_use` returns when a lease's device last got a login."""
        self._ledger = ledger
        self._on_evicted = on_evicted
        self._last_use = last_use

    async def open(self, intent: Callable[[], Lease], principal: Principal, allowance: Allowance) -> OpenedLease:
        """Find the device's live lease, or open the one that `intent` returns.

        `intent` is called again after a wait, so that the claim starts then.

        Raises DeviceLimitReached, IssueInProgress if creates of other devices occupy places for WAIT_SECONDS, and what
        the ledger raises.
        """
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        pause = POLL_SECONDS
        while True:
            lease = intent()
            choose = partial(
                leases_to_evict,
                platform=lease.platform,
                allowance=allowance,
                now=lease.created_at,
                last_use=self._last_use,
            )
            try:
                opened = await self._ledger.open(lease, allowance.max_devices, principal, choose)
            except IssueInProgress:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            else:
                if opened.evicted:
                    await self._on_evicted(opened.evicted)
                return opened
            await asyncio.sleep(pause)
            pause = min(pause * 2, POLL_SECONDS * 10)


def leases_to_evict(
    leases: Iterable[Lease],
    platform: Platform,
    allowance: Allowance,
    now: datetime,
    last_use: Callable[[Lease], datetime],
) -> list[Lease]:
    """The leases to evict for a new device of this platform: abandoned creates first, then the least recently used.

    An abandoned create is a PENDING lease without a valid claim: no request is working on it. Raises DeviceLimitReached
    if ACTIVE leases that may not be evicted fill the limit, and IssueInProgress if creates in progress do.
    """
    live = [lease for lease in leases if lease.state in LIVE and not lease.has_expired(now)]
    active = [lease for lease in live if lease.state is LeaseState.ACTIVE]
    evictable = [lease for lease in live if lease.state is LeaseState.PENDING and not lease.is_claimed(now)]
    replaceable = [lease for lease in active if _may_replace(platform, lease.platform, allowance)]
    evictable.sort(key=last_use)
    evictable += sorted(replaceable, key=last_use)
    surplus = max(0, len(live) - allowance.max_devices + 1)
    if surplus <= len(evictable):
        return evictable[:surplus]
    if len(active) - len(replaceable) >= allowance.max_devices:
        raise DeviceLimitReached
    raise IssueInProgress(retry_after_seconds=1)


def _may_replace(new: Platform, old: Platform, allowance: Allowance) -> bool:
    """Whether a new device may log out an ACTIVE one. By default, a browser tab replaces browser tabs and no phones."""
    return all(allowance.action_at_limit(each) is DeviceLimitAction.EVICT_OLDEST for each in (new, old))
