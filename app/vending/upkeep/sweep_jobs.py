"""Cleaning up on demand: what an operator's sweep does at once, what it finds, and where its outcome can be read.

The walk over everything at Telnyx may take minutes: it goes on in the background, and its report is in the ledger,
where every replica finds it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from app.vending.audit import Action, Audit, Decision, Outcome
from app.vending.errors import DialtoneError, LedgerUnavailable, SweepNotFound
from app.vending.upkeep.reconciler import Reconciler
from app.vending.upkeep.sweeper import Sweeper

RUN_LIMIT = timedelta(minutes=30)
"""A run takes no longer; one that seems to was lost with its replica."""

MOST_LISTED = 500


class RunState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """Its replica ended first. Nothing is lost by it: start another."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a sweep did, or would do."""

    dry_run: bool
    ended: int
    """Credentials of ended leases that Telnyx confirmed to be gone."""
    due: list[dict[str, Any]]
    """What was still to be done afterwards: credential and state."""
    stuck: list[dict[str, Any]]
    """Deletions that were tried again and again: credential and attempts."""
    walked: int
    foreign: int
    young: int
    orphans: list[dict[str, Any]]
    """Credentials of our naming that no lease stands for, and why."""
    deleted_orphans: int


@dataclass(frozen=True, slots=True)
class Run:
    """One sweep that was asked for."""

    id: str
    state: RunState
    started_at: datetime
    ended_at: datetime | None = None
    reason: str | None = None
    """Why it failed: the name of our error."""
    report: dict[str, Any] | None = field(default=None)


class Ledger(Protocol):
    async def keep_run(self, run: Run) -> None: ...

    async def run(self, run_id: str) -> Run | None: ...


class Cleaner:
    """Sweeps when told to."""

    def __init__(
        self,
        *,
        sweeper: Sweeper,
        sweep_push: Callable[[], Awaitable[object]],
        reconciler: Reconciler,
        ledger: Ledger,
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
        self._under_way: set[asyncio.Task[None]] = set()

    async def clean(self, *, dry_run: bool, is_sure: bool = False) -> Report:
        """Sweep now, and wait for it. Raises LedgerUnavailable, LedgerLooksWrong and CarrierErrors."""
        ended = 0
        if not dry_run:
            ended = (await self._sweeper.sweep()).gone
            await self._sweep_push()
        due, stuck = await self._sweeper.due(), await self._sweeper.stuck()
        found = await self._reconciler.walk(deletes=not dry_run, is_sure=is_sure)
        report = Report(
            dry_run=dry_run,
            ended=ended,
            due=[{"credential": lease.credential_name, "state": lease.state.value} for lease in due[:MOST_LISTED]],
            stuck=[{"credential": lease.credential_name, "attempts": lease.attempts} for lease in stuck[:MOST_LISTED]],
            walked=found.walked,
            foreign=found.foreign,
            young=found.young,
            orphans=[{"credential": orphan.name, "why": orphan.why} for orphan in found.orphans[:MOST_LISTED]],
            deleted_orphans=found.deleted,
        )
        reason = "dry_sweep" if dry_run else "sweep"
        details = {"ended": ended, "orphans": len(found.orphans), "deleted_orphans": found.deleted}
        await self._audit.record(Decision(Action.ADMINISTERED, reason=reason, details=details))
        return report

    async def start(self, *, dry_run: bool, is_sure: bool = False) -> Run:
        """Sweep in the background. Raises LedgerUnavailable."""
        run = Run(self._new_id(), RunState.RUNNING, self._clock())
        await self._ledger.keep_run(run)
        task = asyncio.get_running_loop().create_task(self._see_through(run, dry_run=dry_run, is_sure=is_sure))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return run

    async def show(self, run_id: str) -> Run:
        """Raises SweepNotFound."""
        run = await self._ledger.run(run_id)
        if run is None:
            raise SweepNotFound
        if run.state is RunState.RUNNING and run.started_at < self._clock() - RUN_LIMIT:
            return replace(run, state=RunState.LOST)
        return run

    async def stop(self) -> None:
        """The service ends: what is under way is given up, and says so."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _see_through(self, run: Run, *, dry_run: bool, is_sure: bool) -> None:
        try:
            async with asyncio.timeout(RUN_LIMIT.total_seconds()):
                report = await self.clean(dry_run=dry_run, is_sure=is_sure)
        except (DialtoneError, TimeoutError, asyncio.CancelledError) as error:
            reason = type(error).__name__
            self._audit.note(Decision(Action.ADMINISTERED, Outcome.FAILED, "sweep", details={"error": reason}))
            state = RunState.LOST if isinstance(error, asyncio.CancelledError) else RunState.FAILED
            ended = replace(run, state=state, ended_at=self._clock(), reason=reason)
        else:
            ended = replace(run, state=RunState.DONE, ended_at=self._clock(), report=asdict(report))
        with suppress(LedgerUnavailable):  # the run shows as lost then
            await self._ledger.keep_run(ended)
