"""The audit trail: each decision becomes an event, a log line, a figure, and a row in the ledger.

Rows are written in batches behind the decision. What happens when that stops or fails is a setting: without
`audit.required` the service goes on, keeps events for a while and counts those it had to drop; with it, a decision that
cannot be written down is not given away (503 `audit_unavailable`). Refusals never wait for a row.
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

from app.observability.logging import clean, line
from app.vending.audit import CIRCUMSTANCES, Action, AuditEvent, Decision, Going, going_to
from app.vending.errors import AuditUnavailable, LedgerUnavailable, RateLimited

MOST_WAITING = 20_000
"""Events kept while the ledger is away: some 20 MB."""

EVENTS_A_BATCH = 500
GATHER_SECONDS = 0.25
"""How long a row may wait for company, where nobody waits for it: a commit costs the same for one as for many."""

RETRY_SECONDS = 1.0

CHEAP_A_SECOND = 10
"""Events for refusals that anybody can cause without end. More are counted only, beside their line in the access log:
no flood fills the ledger, or hides in the log what else goes on."""

LONGEST_USER_AGENT = 200

FOLD_SECONDS = 10.0
"""A device that asks again and again, from one place, gets the same login: within this time that is one event."""

MOST_FOLDED = 20_000

Waiting = tuple[AuditEvent, "asyncio.Future[None] | None"]
"""An event without a row, and who waits for it, if anybody does."""

FORGOTTEN_A_RUN = 5000

_log = structlog.get_logger("dialtone.audit")


class AuditTrail:
    """Hears of decisions, and sees that they are kept."""

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
        self._waiting: deque[Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._reused: dict[Going, Repeats] = {}
        self._ration = Ration(CHEAP_A_SECOND)
        self.dropped = 0
        """Events that have a figure, but no row."""

    @property
    def waiting(self) -> int:
        """Events that have no row yet."""
        return len(self._waiting)

    def note(self, decision: Decision) -> None:
        """Never raises, and never waits."""
        if decision.action is Action.REUSED:
            seen = self._reused.get(going_to(decision.lease_id))
            if seen is not None and seen.times:
                decision, seen.times = decision._replace(details={"folded": seen.times}), 0
        if _is_cheap(decision) and not self._ration.take():
            self._count(decision)
            self.dropped += 1
            return
        event = self._told(decision)
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
        else:
            self._keep(event, None)

    async def record(self, decision: Decision) -> None:
        """Raises AuditUnavailable where audit is required and the row cannot be written."""
        if not self._is_required:
            self.note(decision)
            return
        if len(self._waiting) >= MOST_WAITING:
            self._told(decision)
            raise AuditUnavailable
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keep(self._told(decision), written)
        await written

    def is_repeat(self, going: Going, seconds: float) -> bool:
        if self._is_required:
            return False
        now = self._monotonic()
        seen = self._reused.get(going)
        if seen is not None and now < seen.until:
            seen.times += 1
            self._count_repeat(seconds)
            return True
        if seen is not None:
            seen.until = now + FOLD_SECONDS
            return False
        if len(self._reused) >= MOST_FOLDED:
            self._reused = {one: known for one, known in self._reused.items() if now < known.until}
        self._reused[going] = Repeats(now + FOLD_SECONDS)
        return False

    async def tidy(self) -> None:
        """Forget what is older than the retention. Raises LedgerUnavailable."""
        while await self._forget(self._clock() - self._retention, FORGOTTEN_A_RUN) == FORGOTTEN_A_RUN:
            pass

    async def close(self) -> None:
        """Write what waits, with one try: what fails then is counted as dropped."""
        self._closing.set()
        if self._writing is not None:
            await self._writing

    def _told(self, decision: Decision) -> AuditEvent:
        circumstances = CIRCUMSTANCES.get()
        if circumstances.user_agent is not None:
            told = clean(circumstances.user_agent[:LONGEST_USER_AGENT])
            circumstances = circumstances._replace(user_agent=told)
        event = AuditEvent(self._new_id(), self._clock(), decision, circumstances)
        self._count(decision)
        _log_line(event)
        return event

    def _keep(self, event: AuditEvent, written: asyncio.Future[None] | None) -> None:
        self._waiting.append((event, written))
        if self._writing is None:
            # In a context of its own: the batch is not this request's, in no log line and no trace.
            self._writing = asyncio.get_running_loop().create_task(self._write_all(), context=Context())

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                if not self._is_required:
                    await self._pause(GATHER_SECONDS)
                batch = [self._waiting.popleft() for _ in range(min(EVENTS_A_BATCH, len(self._waiting)))]
                try:
                    await self._write([event for event, _ in batch])
                except LedgerUnavailable:
                    await self._failed(batch)
                    continue
                except Exception:
                    # What can never be written must not stand in the way of what can.
                    await self._write_singly(batch)
                    continue
                _tell_written(batch)
        finally:
            self._writing = None

    async def _write_singly(self, batch: list[Waiting]) -> None:
        for one in batch:
            try:
                await self._write([one[0]])
            except LedgerUnavailable:
                await self._failed([one])
            except Exception:
                _log.exception("audit_event_lost")
                self._give_up([one])
            else:
                _tell_written([one])

    async def _failed(self, batch: list[Waiting]) -> None:
        """Whoever waits is told. Every event is tried again as long as the service lives: its decision was made."""
        if self._closing.is_set():
            self._give_up(batch)
            return
        _tell_waiting(batch)
        self._waiting.extendleft((event, None) for event, _ in reversed(batch))
        await self._pause(RETRY_SECONDS)

    def _give_up(self, batch: list[Waiting]) -> None:
        _tell_waiting(batch)
        self.dropped += len(batch)

    async def _pause(self, seconds: float) -> None:
        """So long, or until the service stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


@dataclass(slots=True)
class Repeats:
    """How often a device got the same login since its last event."""

    until: float
    times: int = 0


def _tell_written(batch: list[Waiting]) -> None:
    for _, written in batch:
        if written is not None and not written.done():
            written.set_result(None)


def _tell_waiting(batch: list[Waiting]) -> None:
    for _, written in batch:
        if written is not None and not written.done():
            written.set_exception(AuditUnavailable())


def _is_cheap(decision: Decision) -> bool:
    """A refusal of a stranger, or of somebody over their limit."""
    if not decision.is_refusal:
        return False
    is_stranger = decision.owner is None and CIRCUMSTANCES.get().actor is None
    return is_stranger or decision.reason == RateLimited.__name__


class Ration:
    """So many a second, and as many at once."""

    def __init__(self, a_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._a_second = a_second
        self._monotonic = monotonic
        self._left, self._seen_at = a_second, monotonic()

    def take(self) -> bool:
        now = self._monotonic()
        self._left = min(self._a_second, self._left + (now - self._seen_at) * self._a_second)
        self._seen_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _log_line(event: AuditEvent) -> None:
    """With the request's id and the time as every line has them; what is not known is left out."""
    fields = event.flat()
    del fields["at"]
    action, audit = fields.pop("action"), fields.pop("id")
    line(action, audit=audit, **{name: value for name, value in fields.items() if value})
