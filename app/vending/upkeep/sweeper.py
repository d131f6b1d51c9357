"""The sweeper: what time or a crash left behind is cleaned up, and what has long ended is forgotten.

Every replica runs it. Rows are taken in one short transaction that skips those another replica is taking, and that
writes down when they may be taken next: two sweepers never do the same work, and a killed one delays its rows only.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from app.vending.audit import Action, Audit, Decision
from app.vending.telephony.lease import Lease, State
from app.vending.telephony.login_cache import LoginsAtHand
from app.vending.telephony.revoke import AT_ONCE, Deletion, Revoker, next_try

STALE_PENDING = timedelta(minutes=10)
"""A pending row that no caller came back for in this time is ended, and what it may have left is deleted."""

ROWS_A_RUN = 500
"""At most so many rows are worked on in one run, oldest first."""

FORGOTTEN_A_RUN = 1000

STUCK_ATTEMPTS = 8
"""A deletion tried so often is stuck: about ten minutes have passed, and somebody should look."""


class Ledger(Protocol):
    async def due(self, now: datetime, stale_before: datetime, limit: int) -> list[Lease]:
        """Leases to work on: LEFTOVER ones whose time has come, ACTIVE past their expiry, stale PENDING ones."""

    async def take_due(
        self, now: datetime, stale_before: datetime, limit: int, take: Callable[[Lease], Lease]
    ) -> list[Lease]:
        """Take that step with leases that are due, but for those that another replica is taking."""

    async def backlog(self, stuck_attempts: int) -> "Backlog": ...

    async def stuck(self, stuck_attempts: int, limit: int) -> list[Lease]:
        """Ended leases whose deletion was tried so often, the longest waiting first."""

    async def forget(self, ended_before: datetime, limit: int) -> int:
        """Remove rows of leases that ended, and are gone at Telnyx, before that moment. How many there were."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The outcome of one run."""

    taken: int = 0
    gone: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Ended leases whose credential Telnyx has not yet confirmed to be gone."""

    waiting: int = 0
    stuck: int = 0
    """Those of them whose deletion was tried STUCK_ATTEMPTS times."""
    oldest: datetime | None = None
    """When the first of them was made."""


class Sweeper:
    """Deletes at Telnyx what no device may use any more."""

    def __init__(
        self,
        ledger: Ledger,
        revoker: Revoker,
        at_hand: LoginsAtHand,
        audit: Audit,
        clock: Callable[[], datetime],
        retention: timedelta,
    ) -> None:
        self._ledger = ledger
        self._revoker = revoker
        self._at_hand = at_hand
        self._audit = audit
        self._clock = clock
        self._retention = retention
        self.backlog = Backlog()
        """As it was after the last run."""

    async def due(self) -> list[Lease]:
        """What a run would work on now."""
        now = self._clock()
        return await self._ledger.due(now, now - STALE_PENDING, ROWS_A_RUN)

    async def stuck(self) -> list[Lease]:
        """Deletions that somebody should look at."""
        return await self._ledger.stuck(STUCK_ATTEMPTS, ROWS_A_RUN)

    async def sweep(self) -> Swept:
        """One paced run. Raises LedgerUnavailable; Telnyx's trouble only postpones rows."""
        outcomes: Counter[Deletion] = Counter()
        taken = 0
        while taken < ROWS_A_RUN and not outcomes[Deletion.NOT_TRIED]:
            batch = await self._take(min(AT_ONCE, ROWS_A_RUN - taken))
            taken += len(batch)
            outcomes.update(await self._see_through(batch))
            if len(batch) < AT_ONCE:
                break
        forgotten = await self._ledger.forget(self._clock() - self._retention, FORGOTTEN_A_RUN)
        self.backlog = await self._ledger.backlog(STUCK_ATTEMPTS)
        return Swept(taken, outcomes[Deletion.CONFIRMED], forgotten)

    async def _take(self, limit: int) -> list[Lease]:
        now = self._clock()
        taken = await self._ledger.take_due(now, now - STALE_PENDING, limit, partial(_taken, now=now))
        for lease in taken:
            self._at_hand.end(lease, now)
        return taken

    async def _see_through(self, batch: list[Lease]) -> list[Deletion]:
        """All of them come to an end before the ledger's trouble with one is told of."""
        outcomes = await asyncio.gather(*map(self._revoker.see_through, batch), return_exceptions=True)
        for lease, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is Deletion.CONFIRMED:
                self._audit.note(Decision.about(lease, Action.SWEPT, lease.state.value))
        return [outcome for outcome in outcomes if isinstance(outcome, Deletion)]


def _taken(lease: Lease, now: datetime) -> Lease:
    """Ended, if it is not yet, and with the time of its next try: nobody else takes it up before that."""
    if lease.state is State.ACTIVE:
        lease = lease.expired(now)
    elif lease.state is State.PENDING:
        lease = lease.revoking(now)
    return lease.postponed(now, next_try(lease, now))
