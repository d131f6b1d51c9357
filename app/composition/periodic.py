"""Background tasks, which run at intervals and when an event is set, and finish when the service stops."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from app.adapters.ledger.pg_listener import PgListener
from app.adapters.shared_counts import EXCHANGE_SECONDS, SharedCounts
from app.adapters.telnyx.call_scheduler import PRIORITY, Priority
from app.composition.components import (
    EventComponents,
    IdentityComponents,
    OperatorComponents,
    PushComponents,
    TelephonyComponents,
    TelnyxComponents,
    UpkeepComponents,
    WakeEvents,
)
from app.observability.audit_log import AuditLog
from app.vending.errors import DialtoneError

CHANGE_FEED_SECONDS = 1.0
LISTENER_CHECK_SECONDS = 5.0
SWEEP_SECONDS = 15.0
WARM_POOL_SECONDS = 10.0
RECONCILE_SECONDS = 3600.0
EXPIRY_ALERT_SECONDS = 60.0
LEASE_COUNT_SECONDS = 15.0
SHARED_LOGIN_CACHE_SECONDS = 1.0
LAST_USE_SECONDS = 20.0
"""Interval at which devices' last uses are written, so that they are accurate to a minute."""

OUTBOUND_SECONDS = 60.0
"""Interval at which connections are checked. The guard decides which of them are due."""

AUDIT_RETENTION_SECONDS = 600.0
EVENT_DELIVERY_SECONDS = 1.0
EVENT_UPKEEP_SECONDS = 30.0
KEY_REFRESH_SECONDS = 5.0
"""Interval at which each issuer's key set is checked. The key set decides whether a refresh is due."""

STOP_SECONDS = 5.0
"""Time that a running task has to finish when the service stops."""

_log = structlog.get_logger("dialtone.periodic")


@dataclass(slots=True)
class PeriodicTask:
    """A task that runs at an interval, and when its event is set."""

    run: Callable[[], Awaitable[object]]
    interval_seconds: float
    """The mean interval. It is jittered, so that replicas do not run the task at the same time."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Setting it runs the task immediately."""
    runs_at_start: bool = False
    """Whether the task runs at startup."""


def periodic_tasks(
    wake: WakeEvents,
    listener: PgListener,
    audit: AuditLog,
    identity: IdentityComponents,
    telnyx: TelnyxComponents,
    telephony: TelephonyComponents,
    push: PushComponents,
    events: EventComponents,
    upkeep: UpkeepComponents,
    operators: OperatorComponents,
    shared_counts: SharedCounts | None,
) -> list[PeriodicTask]:
    """All background tasks of the service."""
    sharing = [] if shared_counts is None else [PeriodicTask(shared_counts.exchange, EXCHANGE_SECONDS)]
    if telephony.shared_logins is not None:
        sharing.append(PeriodicTask(telephony.shared_logins.maintain, SHARED_LOGIN_CACHE_SECONDS))
    return [
        *sharing,
        PeriodicTask(upkeep.change_poller.poll, CHANGE_FEED_SECONDS, wake.change_feed, runs_at_start=True),
        PeriodicTask(listener.ensure_listening, LISTENER_CHECK_SECONDS, runs_at_start=True),
        PeriodicTask(upkeep.sweeper.sweep, SWEEP_SECONDS, wake.sweeper, runs_at_start=True),
        PeriodicTask(upkeep.warm_pool.refill, WARM_POOL_SECONDS, wake.warm_pool, runs_at_start=True),
        PeriodicTask(upkeep.reconciler.reconcile, RECONCILE_SECONDS),
        PeriodicTask(identity.verifier.refresh_due_keys, KEY_REFRESH_SECONDS, runs_at_start=True),
        PeriodicTask(telephony.last_uses.flush, LAST_USE_SECONDS),
        PeriodicTask(push.uploads.sweep, SWEEP_SECONDS, wake.push_sweeper),
        PeriodicTask(push.expiry_alerts.check, EXPIRY_ALERT_SECONDS, runs_at_start=True),
        PeriodicTask(events.deliverer.start, EVENT_DELIVERY_SECONDS, runs_at_start=True),
        PeriodicTask(events.deliverer.maintain, EVENT_UPKEEP_SECONDS),
        PeriodicTask(operators.leases.refresh_counts, LEASE_COUNT_SECONDS, runs_at_start=True),
        PeriodicTask(
            telnyx.outbound_guard.check,
            OUTBOUND_SECONDS,
            runs_at_start=bool(identity.policy.policy.outbound_requirements()),
        ),
        PeriodicTask(audit.delete_expired, AUDIT_RETENTION_SECONDS),
    ]


class TaskRunner:
    """Runs tasks inside an asynchronous context."""

    def __init__(self, tasks: Sequence[PeriodicTask]) -> None:
        self._periodic = tasks
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(task)) for task in self._periodic]

    async def __aexit__(self, *exit_details: object) -> None:
        # Running tasks may finish, because a cancelled transaction would leave its connection in an undefined state.
        self._is_stopping = True
        for task in self._periodic:
            task.wake.set()
        _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        for running in late:
            running.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _repeat(self, task: PeriodicTask) -> None:
        """Failures are retried at the next interval. Calls to Telnyx have lower priority than users' logins."""
        PRIORITY.set(Priority.BACKGROUND)
        if not task.runs_at_start:
            await _pause(task)
        while not self._is_stopping:
            task.wake.clear()
            try:
                await task.run()
            except DialtoneError as error:
                _log.warning("background_task_failed", error=type(error).__name__)
            except Exception:
                _log.exception("background_task_crashed")
            if not self._is_stopping:
                await _pause(task)


async def _pause(task: PeriodicTask) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(task.interval_seconds * (0.75 + random.random() / 2)):  # noqa: S311 - pacing
            await task.wake.wait()
