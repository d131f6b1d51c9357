"""Sweep jobs: sweeps that an operator starts, and their reports.

Listing everything at Telnyx may take minutes. So a job runs in the background, and its report is written to the ledger,
where every replica can read it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from app.vending.audit import Audit, AuditAction, AuditOutcome, Decision
from app.vending.errors import DialtoneError, LedgerUnavailable, SweepNotFound
from app.vending.upkeep.reconciler import Reconciler
from app.vending.upkeep.sweeper import Sweeper

MAX_RUN_TIME = timedelta(minutes=30)
"""Maximum duration of a job. A job that is RUNNING for longer was lost with its replica."""

MAX_LISTED = 500


class SweepJobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """Its replica stopped before it was done. No data is lost; start another job."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """The result of a sweep or of a dry run."""

    dry_run: bool
    ended: int
    """Credentials of ended leases whose deletion Telnyx confirmed."""
    due: list[dict[str, Any]]
    """Leases still due after the sweep: credential and state."""
    irrevocable: list[dict[str, Any]]
    """Leases whose deletion keeps failing: credential and attempts."""
    walked: int
    foreign: int
    young: int
    orphans: list[dict[str, Any]]
    """Credentials of this namespace without a lease, each with the reason."""
    deleted_orphans: int


@dataclass(frozen=True, slots=True)
class SweepJob:
    """One requested sweep."""

    id: str
    state: SweepJobState
    started_at: datetime
    ended_at: datetime | None = None
    reason: str | None = None
    """Why it failed: the class name of the error."""
    report: dict[str, Any] | None = field(default=None)


class SweepJobLedger(Protocol):
    async def save_job(self, run: SweepJob) -> None: ...

    async def find_job(self, run_id: str) -> SweepJob | None: ...


class SweepJobs:
    """Runs sweeps on request."""

    def __init__(
        self,
        *,
        sweeper: Sweeper,
        sweep_push: Callable[[], Awaitable[object]],
        reconciler: Reconciler,
        ledger: SweepJobLedger,
        audit: Audit,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._sweeper = sweeper
        self._sweep_push = sweep_push
        self._reconciler = reconciler
        self._ledger = ledger
        self._audit = audit
        self._clock = clock
        self._new_id = new_id
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, *, dry_run: bool, force: bool = False) -> SweepReport:
        """Sweep and wait for the result. Raises LedgerUnavailable, LedgerMismatch and TelnyxErrors."""
        ended = 0
        if not dry_run:
            ended = (await self._sweeper.sweep()).deleted
            await self._sweep_push()
        due, irrevocable = await self._sweeper.due(), await self._sweeper.irrevocable()
        found = await self._reconciler.reconcile(deletes=not dry_run, force=force)
        report = SweepReport(
            dry_run=dry_run,
            ended=ended,
            due=[{"credential": lease.credential_name, "state": lease.state.value} for lease in due[:MAX_LISTED]],
            irrevocable=[
                {"credential": lease.credential_name, "attempts": lease.attempts} for lease in irrevocable[:MAX_LISTED]
            ],
            walked=found.walked,
            foreign=found.foreign,
            young=found.young,
            orphans=[{"credential": orphan.name, "why": orphan.why} for orphan in found.orphans[:MAX_LISTED]],
            deleted_orphans=found.deleted,
        )
        reason = "dry_sweep" if dry_run else "sweep"
        details = {"ended": ended, "orphans": len(found.orphans), "deleted_orphans": found.deleted}
        await self._audit.record(Decision(AuditAction.ADMIN_ACTION, reason=reason, details=details))
        return report

    async def start(self, *, dry_run: bool, force: bool = False) -> SweepJob:
        """Sweep in the background. Raises LedgerUnavailable."""
        run = SweepJob(self._new_id(), SweepJobState.RUNNING, self._clock())
        await self._ledger.save_job(run)
        task = asyncio.get_running_loop().create_task(self._run_in_background(run, dry_run=dry_run, force=force))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def get(self, run_id: str) -> SweepJob:
        """Raises SweepNotFound."""
        run = await self._ledger.find_job(run_id)
        if run is None:
            raise SweepNotFound
        if run.state is SweepJobState.RUNNING and run.started_at < self._clock() - MAX_RUN_TIME:
            return replace(run, state=SweepJobState.LOST)
        return run

    async def stop(self) -> None:
        """Cancel the running jobs at shutdown, and record them as LOST."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_in_background(self, run: SweepJob, *, dry_run: bool, force: bool) -> None:
        try:
            async with asyncio.timeout(MAX_RUN_TIME.total_seconds()):
                report = await self.run(dry_run=dry_run, force=force)
        except (DialtoneError, TimeoutError, asyncio.CancelledError) as error:
            reason = type(error).__name__
            self._audit.record_nowait(
                Decision(AuditAction.ADMIN_ACTION, AuditOutcome.FAILED, "sweep", details={"error": reason})
            )
            state = SweepJobState.LOST if isinstance(error, asyncio.CancelledError) else SweepJobState.FAILED
            ended = replace(run, state=state, ended_at=self._clock(), reason=reason)
        else:
            ended = replace(run, state=SweepJobState.DONE, ended_at=self._clock(), report=asdict(report))
        with suppress(LedgerUnavailable):  # without this write, the job is reported as LOST
            await self._ledger.save_job(ended)
