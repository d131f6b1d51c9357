"""The sweeper: ends expired and abandoned leases, deletes the credentials of ended ones, and purges old rows.

Every replica runs it. Rows are taken in one short transaction that skips rows which another replica is taking and sets
when they may be taken next. So two sweepers never do the same work, and a killed sweeper delays only its own rows.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.grants.models import MAX_GRANT_TTL
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.revoke import DELETE_CONCURRENCY, DeletionOutcome, Revoker, next_try

STALE_PENDING = timedelta(minutes=10)
"""A PENDING row that no caller has resumed for this long is ended, and any credential it left is deleted."""

SWEEP_BATCH_SIZE = 500
"""Maximum number of rows per run, oldest first."""

EXPIRE_BATCH_SIZE = 200
"""Maximum number of leases that one run marks as expired, in one transaction."""

PURGE_BATCH_SIZE = 1000

IRREVOCABLE_ATTEMPTS = 8
"""Deletion attempts after which a lease counts as irrevocable. They take about ten minutes."""


EXPIRED_GRANT_AGE = timedelta(minutes=15)
"""Rows and not-before entries of grants are kept this long after the expiry, because clocks differ."""


class GrantSweepLedger(Protocol):
    async def delete_expired(self, expired_before: datetime, limit: int) -> int:
        """Delete grants that expired before that moment, unless a live lease was made with them."""

    async def delete_not_before(self, set_before: datetime, limit: int) -> int:
        """Delete not-before entries for users, sessions and issuers of grants that are earlier than `set_before`."""


class SweepLedger(Protocol):
    async def due(self, now: datetime, stale_before: datetime, limit: int) -> list[Lease]:
        """Leases to work on: AWAITING_DELETION ones that are due, ACTIVE ones past their expiry, stale PENDING ones."""

    async def expire(self, now: datetime, limit: int) -> list[Lease]:
        """Mark ACTIVE leases that are past their expiry as EXPIRED, except those that another replica is changing."""

    async def take_due(
        self, now: datetime, stale_before: datetime, limit: int, take: Callable[[Lease], Lease]
    ) -> list[Lease]:
        """Apply `take` to leases that are due, except those that another replica is taking."""

    async def backlog(self, min_attempts: int) -> "Backlog": ...

    async def irrevocable(self, min_attempts: int, limit: int) -> list[Lease]:
        """Ended leases with at least `min_attempts` deletion attempts, the longest waiting first."""

    async def delete_ended(self, ended_before: datetime, limit: int) -> int:
        """Delete rows of leases that ended before that moment and are gone at Telnyx. Returns their number."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Outcome of one run."""

    taken: int = 0
    deleted: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Ended leases whose deletion Telnyx has not confirmed yet."""

    waiting: int = 0
    irrevocable: int = 0
    """Number of leases with at least IRREVOCABLE_ATTEMPTS deletion attempts."""
    oldest: datetime | None = None
    """Creation time of the oldest one."""


class Sweeper:
    """Deletes credentials at Telnyx that no device may use any longer."""

    def __init__(
        self,
        ledger: SweepLedger,
        grants: GrantSweepLedger,
        revoker: Revoker,
        login_cache: LoginCache,
        audit: Audit,
        clock: Callable[[], datetime],
        retention: timedelta,
    ) -> None:
        self._ledger = ledger
        self._grants = grants
        self._revoker = revoker
        self._login_cache = login_cache
        self._audit = audit
        self._clock = clock
        self._retention = retention
        self._lock = asyncio.Lock()
        self.backlog = Backlog()
        """As of the last run."""

    async def due(self) -> list[Lease]:
        """The leases that a run would process now."""
        now = self._clock()
        return await self._ledger.due(now, now - STALE_PENDING, SWEEP_BATCH_SIZE)

    async def irrevocable(self) -> list[Lease]:
        """Leases whose deletion keeps failing, for an operator to inspect."""
        return await self._ledger.irrevocable(IRREVOCABLE_ATTEMPTS, SWEEP_BATCH_SIZE)

    async def sweep(self) -> SweepResult:
        """One run, in small batches. Raises LedgerUnavailable; a Telnyx error only postpones rows.

        Waits for a run in progress: the report of an operator's sweep would call its rows neither deleted nor due.
        """
        async with self._lock:
            return await self._sweep()

    async def _sweep(self) -> SweepResult:
        outcomes: Counter[DeletionOutcome] = Counter()
        taken = 0
        await self._expire()
        while taken < SWEEP_BATCH_SIZE and not outcomes[DeletionOutcome.NOT_TRIED]:
            batch = await self._take(min(DELETE_CONCURRENCY, SWEEP_BATCH_SIZE - taken))
            taken += len(batch)
            outcomes.update(await self._delete_all(batch))
            if len(batch) < DELETE_CONCURRENCY:
                break
        purged = await self._ledger.delete_ended(self._clock() - self._retention, PURGE_BATCH_SIZE)
        expired_before = self._clock() - EXPIRED_GRANT_AGE
        await self._grants.delete_expired(expired_before, PURGE_BATCH_SIZE)
        # A grant that was issued before an entry expires at most MAX_GRANT_TTL after it.
        await self._grants.delete_not_before(expired_before - MAX_GRANT_TTL, PURGE_BATCH_SIZE)
        self.backlog = await self._ledger.backlog(IRREVOCABLE_ATTEMPTS)
        return SweepResult(taken, outcomes[DeletionOutcome.CONFIRMED], purged)

    async def _expire(self) -> None:
        """Before any deletion: while Telnyx is unavailable, the deletions that are due would use up each run."""
        now = self._clock()
        for lease in await self._ledger.expire(now, EXPIRE_BATCH_SIZE):
            self._login_cache.update(lease, now)

    async def _take(self, limit: int) -> list[Lease]:
        now = self._clock()
        taken = await self._ledger.take_due(now, now - STALE_PENDING, limit, partial(_taken, now=now))
        for lease in taken:
            self._login_cache.update(lease, now)
        return taken

    async def _delete_all(self, batch: list[Lease]) -> list[DeletionOutcome]:
        """Delete a batch. All deletions finish, and are recorded, before an error of one of them is raised."""
        outcomes = await asyncio.gather(*map(self._revoker.delete_credential, batch), return_exceptions=True)
        for lease, outcome in zip(batch, outcomes, strict=True):
            if outcome is DeletionOutcome.CONFIRMED:
                self._audit.record_nowait(Decision.about_lease(lease, AuditAction.SWEPT, lease.state.value))
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, DeletionOutcome)]


def _taken(lease: Lease, now: datetime) -> Lease:
    """The ended lease with the time of its next attempt. No other sweeper takes it before then."""
    if lease.state is LeaseState.ACTIVE:
        lease = lease.mark_expired(now)
    elif lease.state is LeaseState.PENDING:
        lease = lease.start_revoking(now)
    return lease.schedule_retry(now, next_try(lease, now))
