"""The sweeper: what time or a crash left behind is cleaned up.

This form deletes expired and revoking leases, and ends pending rows that nobody came back for. Every replica runs it:
rows are taken by their version, so that two sweepers do not do the same work.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.at_hand import LoginsAtHand
from app.vending.errors import LeaseMoved
from app.vending.leases import Lease, State
from app.vending.revoking import Revoker

STALE_PENDING = timedelta(minutes=10)
"""A pending row that no caller came back for in this time is ended, and what it may have left is deleted."""

ROWS_A_RUN = 100
"""At most so many rows are worked on in one run, oldest first."""


class Ledger(Protocol):
    async def due(self, now: datetime, stale_before: datetime, limit: int) -> list[Lease]:
        """Leases to work on: REVOKING and EXPIRED whose time has come, ACTIVE past their expiry, stale PENDING ones."""

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


@dataclass(frozen=True, slots=True)
class Swept:
    """The outcome of one run."""

    taken: int = 0
    gone: int = 0


class Sweeper:
    """Deletes at Telnyx what no device may use any more."""

    def __init__(self, ledger: Ledger, revoker: Revoker, at_hand: LoginsAtHand, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._revoker = revoker
        self._at_hand = at_hand
        self._clock = clock

    async def due(self) -> list[Lease]:
        """What a run would work on now."""
        now = self._clock()
        return await self._ledger.due(now, now - STALE_PENDING, ROWS_A_RUN)

    async def sweep(self) -> Swept:
        """One paced run. Raises LedgerUnavailable; Telnyx's trouble only postpones a row."""
        taken = gone = 0
        for lease in await self.due():
            with suppress(LeaseMoved):
                taken += 1
                gone += await self._revoker.finish(await self._ended(lease))
        return Swept(taken, gone)

    async def _ended(self, lease: Lease) -> Lease:
        now = self._clock()
        if lease.state is State.ACTIVE:
            lease = await self._ledger.advance(lease, lease.expired(now))
        elif lease.state is State.PENDING:
            lease = await self._ledger.advance(lease, lease.revoking(now))
        self._at_hand.end(lease, now)
        return lease
