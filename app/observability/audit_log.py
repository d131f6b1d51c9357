"""The audit trail: each decision becomes an event, a log line, a metric, and a row in the ledger.

A background task writes the rows in batches. A setting decides what happens while the ledger is unavailable. Without
DIALTONE_AUDIT_REQUIRED, requests succeed, and events are kept in memory up to a limit; further events are dropped and
counted. With it, a decision that cannot be recorded is not returned (503 `audit_unavailable`). Denials never wait for
their row.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.observability.logging import log_event
from app.observability.redaction import clean_text
from app.vending.audit import REQUEST_CONTEXT, AuditAction, AuditEvent, Decision, RepeatKey, repeat_key
from app.vending.errors import AuditUnavailable, LedgerUnavailable, RateLimited

MAX_QUEUED_EVENTS = 20_000
"""Events kept in memory while the ledger is unavailable: about 20 MB."""

BATCH_SIZE = 1000
BATCH_SECONDS = 0.25
"""How long a row that no request waits for is delayed: a commit costs the same for one row as for many."""

RETRY_SECONDS = 1.0

UNAUTHENTICATED_PER_SECOND = 10
"""Limit of events for refusals that any client can cause without end. Further ones appear in the metrics and in the
access log only: a flood must not fill the ledger or hide other events."""

MAX_USER_AGENT_CHARS = 200

DEDUP_WINDOW_SECONDS = 10.0
"""Repeats of one login to the same address and user agent within this time are one event."""

MAX_DEDUPLICATED = 20_000
"""Logins in one of two tables. When the newer one is full, the older one is dropped, so that no request pays for it."""

QueuedEvent = tuple[AuditEvent, "asyncio.Future[None] | None"]
"""An event without a row, and the future that a request awaits, if audit is required."""

DELETE_BATCH_SIZE = 5000

_log = structlog.get_logger("dialtone.audit")


class AuditLog:
    """Records decisions in the metrics, the log and the ledger."""

    def __init__(
        self,
        *,
        write: Callable[[Sequence[AuditEvent]], Awaitable[None]],
        forget: Callable[[datetime, int], Awaitable[int]],
        count: Callable[[Decision], None],
        count_repeat: Callable[[float], None],
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        monotonic: Callable[[], float],
        is_required: bool,
        retention: timedelta,
    ) -> None:
        self._write = write
        self._forget = forget
        self._count = count
        self._count_repeat = count_repeat
        self._clock = clock
        self._new_id = new_id
        self._monotonic = monotonic
        self._is_required = is_required
        self._retention = retention
        self._queue: deque[QueuedEvent] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._being_written = 0
        self._closing = asyncio.Event()
        self._repeats: dict[RepeatKey, RepeatCounter] = {}
        self._older_repeats: dict[RepeatKey, RepeatCounter] = {}
        self._unauthenticated = TokenBucket(UNAUTHENTICATED_PER_SECOND, monotonic)
        self.dropped = 0
        """Events that were counted in the metrics but have no row."""

    @property
    def queued(self) -> int:
        """Events without a row so far."""
        return len(self._queue) + self._being_written

    def record_nowait(self, decision: Decision) -> None:
        """Never raises, and never waits."""
        if decision.action is AuditAction.REUSED:
            seen = self._find_repeat(repeat_key(decision.lease_id))
            if seen is not None and seen.times:
                decision, seen.times = decision._replace(details={**decision.details, "folded": seen.times}), 0
        if _is_unbounded(decision) and not self._unauthenticated.take():
            self._count(decision)
            self.dropped += 1
            return
        event = self._log(decision)
        if len(self._queue) >= MAX_QUEUED_EVENTS:
            self.dropped += 1
        else:
            self._enqueue(event, None)

    async def record(self, decision: Decision) -> None:
        """Raises AuditUnavailable if audit is required and the row cannot be written."""
        if not self._is_required:
            self.record_nowait(decision)
            return
        if len(self._queue) >= MAX_QUEUED_EVENTS:
            self._log(decision)
            raise AuditUnavailable
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue(self._log(decision), written)
        await written

    def is_repeat(self, going: RepeatKey, seconds: float) -> bool:
        if self._is_required:
            return False
        now = self._monotonic()
        seen = self._find_repeat(going)
        if seen is not None and now < seen.until:
            seen.times += 1
            self._count_repeat(seconds)
            return True
        if seen is not None:
            seen.until = now + DEDUP_WINDOW_SECONDS
            return False
        if len(self._repeats) >= MAX_DEDUPLICATED:
            self._repeats, self._older_repeats = {}, self._repeats
        self._repeats[going] = RepeatCounter(now + DEDUP_WINDOW_SECONDS)
        return False

    def _find_repeat(self, key: RepeatKey) -> "RepeatCounter | None":
        seen = self._repeats.get(key)
        if seen is None and (seen := self._older_repeats.pop(key, None)) is not None:
            self._repeats[key] = seen
        return seen

    async def delete_expired(self) -> None:
        """Delete events that are older than the retention. Raises LedgerUnavailable."""
        while await self._forget(self._clock() - self._retention, DELETE_BATCH_SIZE) == DELETE_BATCH_SIZE:
            pass

    async def close(self) -> None:
        """Write the queued events. An event that fails now is counted as dropped."""
        self._closing.set()
        if self._writing is not None:
            await self._writing

    def _log(self, decision: Decision) -> AuditEvent:
        """Count and log the decision."""
        context = REQUEST_CONTEXT.get()
        if context.user_agent is not None:
            user_agent = clean_text(context.user_agent[:MAX_USER_AGENT_CHARS])
            context = context._replace(user_agent=user_agent)
        event = AuditEvent(self._new_id(), self._clock(), decision, context)
        self._count(decision)
        _log_line(event)
        return event

    def _enqueue(self, event: AuditEvent, written: asyncio.Future[None] | None) -> None:
        self._queue.append((event, written))
        if self._writing is None:
            # With an empty context: the batch belongs to no request, in the log and in traces.
            self._writing = asyncio.get_running_loop().create_task(self._write_all(), context=Context())

    async def _write_all(self) -> None:
        try:
            while self._queue:
                if not self._is_required and len(self._queue) < BATCH_SIZE:
                    await self._pause(BATCH_SECONDS)
                batch = [self._queue.popleft() for _ in range(min(BATCH_SIZE, len(self._queue)))]
                self._being_written = len(batch)
                is_available = await self._write_batch(batch)
                self._being_written = 0
                if not is_available:
                    await self._pause(RETRY_SECONDS)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[QueuedEvent]) -> bool:
        """Returns whether the ledger was available. If not, the events without a row are in the queue again."""
        try:
            await self._write([event for event, _ in batch])
        except LedgerUnavailable:
            self._retry(batch)
            return False
        except Exception:
            # An event that can never be written must not block the others.
            return await self._write_singly(batch)
        _resolve(batch)
        return True

    async def _write_singly(self, batch: list[QueuedEvent]) -> bool:
        for number, one in enumerate(batch):
            try:
                await self._write([one[0]])
            except LedgerUnavailable:
                self._retry(batch[number:])
                return False
            except Exception:
                _log.exception("audit_event_dropped")
                self._give_up([one])
            else:
                _resolve([one])
        return True

    def _retry(self, batch: list[QueuedEvent]) -> None:
        """Requests that wait for a row fail. Their events are retried anyway, because the decisions were made."""
        if self._closing.is_set():
            self._give_up(batch)
            return
        _reject(batch)
        self._queue.extendleft((event, None) for event, _ in reversed(batch))

    def _give_up(self, batch: list[QueuedEvent]) -> None:
        _reject(batch)
        self.dropped += len(batch)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but end early if the service stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


@dataclass(slots=True)
class RepeatCounter:
    """How often the same login was returned since its last event."""

    until: float
    times: int = 0


def _resolve(batch: list[QueuedEvent]) -> None:
    for _, written in batch:
        if written is not None and not written.done():
            written.set_result(None)


def _reject(batch: list[QueuedEvent]) -> None:
    for _, written in batch:
        if written is not None and not written.done():
            written.set_exception(AuditUnavailable())


def _is_unbounded(decision: Decision) -> bool:
    """A refusal of an unauthenticated or rate-limited request."""
    if not decision.is_denial:
        return False
    is_unauthenticated = decision.user_key is None and REQUEST_CONTEXT.get().actor is None
    return is_unauthenticated or decision.reason == RateLimited.__name__


class TokenBucket:
    """A rate limit whose burst is one second's worth."""

    def __init__(self, per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._left, self._seen_at = per_second, monotonic()

    def take(self) -> bool:
        now = self._monotonic()
        self._left = min(self._per_second, self._left + (now - self._seen_at) * self._per_second)
        self._seen_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _log_line(event: AuditEvent) -> None:
    """Fields without a value are left out."""
    fields = event.flat()
    del fields["at"]
    action, audit = fields.pop("action"), fields.pop("id")
    log_event(action, {"audit": audit} | {name: value for name, value in fields.items() if value})
