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

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.revoke import DELETE_CONCURRENCY, DeletionOutcome, Revoker, next_try

STALE_PENDING = timedelta(minutes=10)
"""A pending row that no caller came back for in this time is ended, and what it may have left is deleted."""

SWEEP_BATCH_SIZE = 500
"""At most so many rows are worked on in one run, oldest first."""

PURGE_BATCH_SIZE = 1000

IRREVOCABLE_ATTEMPTS = 8
"""A deletion tried so often marks the lease as irrevocable: about ten minutes have passed."""


class SweepLedger(Protocol):
    async def due(self, now: datetime, stale_before: datetime, limit: int) -> list[Lease]:
        """Leases to work on: LEFTOVER ones whose time has come, ACTIVE past their expiry, stale PENDING ones."""

    async def take_due(
        self, now: datetime, stale_before: datetime, limit: int, take: Callable[[Lease], Lease]
    ) -> list[Lease]:
        """Take that step with leases that are due, but for those that another replica is taking."""

    async def backlog(self, min_attempts: int) -> "Backlog": ...

    async def irrevocable(self, min_attempts: int, limit: int) -> list[Lease]:
        """Ended leases whose deletion was tried so often, the longest waiting first."""

    async def delete_ended(self, ended_before: datetime, limit: int) -> int:
        """Remove rows of leases that ended, and are gone at Telnyx, before that moment. How many there were."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The outcome of one run."""

    taken: int = 0
    deleted: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Ended leases whose credential Telnyx has not yet confirmed to be gone."""

    waiting: int = 0
    irrevocable: int = 0
    """Those of them whose deletion was tried IRREVOCABLE_ATTEMPTS times."""
    oldest: datetime | None = None
    """When the first of them was made."""


class Sweeper:
    """Deletes at Telnyx what no device may use any more."""

    def __init__(
        self,
        ledger: SweepLedger,
        revoker: Revoker,
        login_cache: LoginCache,
        audit: Audit,
        clock: Callable[[], datetime],
        retention: timedelta,
    ) -> None:
        self._ledger = ledger
        self._revoker = revoker
        self._login_cache = login_cache
        self._audit = audit
        self._clock = clock
        self._retention = retention
        self.backlog = Backlog()
        """As it was after the last run."""

    async def due(self) -> list[Lease]:
        """What a run would work on now."""
        now = self._clock()
        return await self._ledger.due(now, now - STALE_PENDING, SWEEP_BATCH_SIZE)

    async def irrevocable(self) -> list[Lease]:
        """Deletions that somebody should look at."""
        return await self._ledger.irrevocable(IRREVOCABLE_ATTEMPTS, SWEEP_BATCH_SIZE)

    async def sweep(self) -> SweepResult:
        """One paced run. Raises LedgerUnavailable; Telnyx's trouble only postpones rows."""
        outcomes: Counter[DeletionOutcome] = Counter()
        taken = 0
        while taken < SWEEP_BATCH_SIZE and not outcomes[DeletionOutcome.NOT_TRIED]:
            batch = await self._take(min(DELETE_CONCURRENCY, SWEEP_BATCH_SIZE - taken))
            taken += len(batch)
            outcomes.update(await self._delete_all(batch))
            if len(batch) < DELETE_CONCURRENCY:
                break
        forgotten = await self._ledger.delete_ended(self._clock() - self._retention, PURGE_BATCH_SIZE)
        self.backlog = await self._ledger.backlog(IRREVOCABLE_ATTEMPTS)
        return SweepResult(taken, outcomes[DeletionOutcome.CONFIRMED], forgotten)

    async def _take(self, limit: int) -> list[Lease]:
        now = self._clock()
        taken = await self._ledger.take_due(now, now - STALE_PENDING, limit, partial(_taken, now=now))
        for lease in taken:
            self._login_cache.invalidate(lease, now)
        return taken

    async def _delete_all(self, batch: list[Lease]) -> list[DeletionOutcome]:
        """All of them come to an end before the ledger's trouble with one is told of."""
        outcomes = await asyncio.gather(*map(self._revoker.delete_credential, batch), return_exceptions=True)
        for lease, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is DeletionOutcome.CONFIRMED:
                self._audit.record_nowait(Decision.about_lease(lease, AuditAction.SWEPT, lease.state.value))
        return [outcome for outcome in outcomes if isinstance(outcome, DeletionOutcome)]


def _taken(lease: Lease, now: datetime) -> Lease:
    """Ended, if it is not yet, and with the time of its next try: nobody else takes it up before that."""
    if lease.state is LeaseState.ACTIVE:
        lease = lease.mark_expired(now)
    elif lease.state is LeaseState.PENDING:
        lease = lease.start_revoking(now)
    return lease.schedule_retry(now, next_try(lease, now))
