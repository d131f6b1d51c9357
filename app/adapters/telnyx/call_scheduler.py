"""The scheduler of calls to Telnyx: rate limit, concurrency limit, circuit breaker and priority queue.

Every call of the process needs a slot. The rate follows Telnyx's headers, the concurrency limit adapts, the breaker
opens on repeated failure, and logins are queued before the sweeper's calls. Calls that would miss their deadline are
rejected at once, with a `Retry-After`.
"""

import asyncio
import heapq
import itertools
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from enum import IntEnum

from app.adapters.telnyx.rate_budget import LOGIN_SHARE, SLOW_SECONDS, BestEffortPause, RateBudget, RetryAfterAllocator
from app.vending.errors import TelnyxRateLimited, TelnyxUnreachable
from app.vending.service_status import TelnyxFailure, TelnyxStatus


class Priority(IntEnum):
    """The order of queued calls: lower values first."""

    LOGIN = 0
    BACKGROUND = 1


PRIORITY: ContextVar[Priority] = ContextVar("telnyx_priority", default=Priority.LOGIN)
"""The priority of calls that the current task makes."""

INITIAL_LIMIT, MIN_LIMIT, MAX_LIMIT = 16, 2, 64
"""Bounds of the number of calls in flight."""

FAILURES_TO_OPEN = 8
MIN_OPEN_SECONDS, MAX_OPEN_SECONDS = 1.0, 30.0
"""How long the breaker stays open before a probe. Doubles with each failed probe."""

MAX_QUEUED = 2000
REJECTED_CALLS = (401, 429)
"""Statuses after which other calls are rejected too, because of the API key or the rate. After 403, which may be about
the permission for one kind of object, other calls can succeed."""

CALLS_PER_SECOND_PER_SLOT = 10.0
"""Estimated calls per second and concurrent call, if Telnyx reports no rate."""


class ConcurrencyLimit:
    """The number of calls that may be in flight: plus one per `limit` successes, minus a third per failure."""

    def __init__(self) -> None:
        self.limit = float(INITIAL_LIMIT)

    def increase(self) -> None:
        self.limit = min(self.limit + 1 / self.limit, MAX_LIMIT)

    def decrease(self) -> None:
        self.limit = max(self.limit * 2 / 3, MIN_LIMIT)


class CircuitBreaker:
    """Opens after repeated failures. One probe at a time then tests whether Telnyx is available again."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._failures = 0
        self._open_seconds = MIN_OPEN_SECONDS
        self._opened_until: float | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._opened_until is not None

    def open_seconds(self, now: float) -> float:
        """Seconds without calls; 0: a call may be sent, as the probe if the breaker is open."""
        if self._opened_until is None:
            return 0.0
        if now < self._opened_until:
            return self._opened_until - now
        return 1.0 if self._is_probing else 0.0

    def call_started(self) -> None:
        self._is_probing = self.is_open

    def succeeded(self) -> None:
        self._failures, self._open_seconds, self._opened_until, self._is_probing = 0, MIN_OPEN_SECONDS, None, False

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.is_open and not self._is_probing:
            return  # the call started before the breaker opened
        if self._is_probing or self._failures >= FAILURES_TO_OPEN:
            self._opened_until = now + self._open_seconds * (0.75 + self._jitter() / 2)
            self._open_seconds = min(self._open_seconds * 2, MAX_OPEN_SECONDS)
            self._is_probing = False

    def abandoned(self) -> None:
        """A call was cancelled without an outcome. Allows the next probe."""
        self._is_probing = False


class CallSlot:
    """Permission for one call. The caller records the outcome."""

    def __init__(self, started_at: float) -> None:
        self.left_at = started_at
        self.outcome: bool | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Record a response. 5xx counts as a failure of Telnyx; 429 and other 4xx do not."""
        self.outcome, self.status, self.headers = status < 500, status, headers

    def failed(self) -> None:
        """Record that no response came, or an unreadable one."""
        self.outcome = False


class CallScheduler:
    """Grants slots for calls to Telnyx."""

    def __init__(self, monotonic: Callable[[], float], timeout_seconds: float = 5.0) -> None:
        """`timeout_seconds` is the typical time that callers may spend in the queue. Each call passes its own."""
        self._monotonic = monotonic
        self._timeout_seconds = timeout_seconds
        self._budget = RateBudget()
        self._concurrency = ConcurrencyLimit()
        self._breaker = CircuitBreaker()
        self._in_flight = 0
        self._queue: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._retry_after = RetryAfterAllocator()
        self._has_succeeded = False
        self._best_effort_in_flight = 0
        self._best_effort_pause = BestEffortPause()

    def status(self, last_failure: TelnyxFailure | None = None) -> TelnyxStatus:
        """`last_failure` is known to the caller, which sees responses."""
        return TelnyxStatus(
            is_breaker_open=self._breaker.is_open,
            calls_in_flight=self._in_flight + self._best_effort_in_flight,
            calls_queued=sum(not future.done() for _, _, future in self._queue),
            concurrency_limit=self._concurrency.limit,
            rate_limit=self._budget.limit,
            rate_remaining=self._budget.remaining,
            last_failure=last_failure,
        )

    def admit(self, in_flight: int) -> None:
        """Check before work that needs a call. Raises TelnyxRateLimited if too many operations are in flight.

        Rejecting here is cheaper than in the queue, after a ledger read.
        """
        if in_flight >= self._queue_capacity(self._timeout_seconds):
            raise self._rate_limited()

    def is_available(self) -> bool:
        """Whether the last call succeeded and the next one would not wait. False before the first call.

        For work that can be postponed, and that must not fail halfway.
        """
        return self._has_succeeded and not self._is_busy()

    @asynccontextmanager
    async def slot(self, timeout_seconds: float) -> AsyncIterator[CallSlot]:
        """Wait at most `timeout_seconds` for a slot.

        Raises TelnyxRateLimited or, with an open breaker, TelnyxUnreachable. No call was sent then.
        """
        await self._admitted(timeout_seconds)
        slot = CallSlot(self._monotonic())
        try:
            yield slot
        finally:
            self._in_flight -= 1
            self._record_outcome(slot)
            self._dispatch()

    @asynccontextmanager
    async def best_effort_slot(self) -> AsyncIterator[CallSlot]:
        """A slot for a call that must not affect logins. It is never queued.

        Raises TelnyxRateLimited at once if logins may need the capacity. The outcome changes neither the rate nor the
        breaker of other calls, because the resource may have a limit and faults of its own.
        """
        now = self._monotonic()
        if self._is_busy() or self._best_effort_pause.is_active(now):
            raise TelnyxRateLimited
        slot = CallSlot(now)
        self._best_effort_in_flight += 1
        try:
            yield slot
        finally:
            self._best_effort_in_flight -= 1
            ended_at = self._monotonic()
            if slot.outcome is not None or ended_at - slot.left_at >= SLOW_SECONDS:
                self._best_effort_pause.response_received(slot.status, slot.headers, ended_at)

    def _is_busy(self) -> bool:
        """Whether further calls could delay others: the breaker is open, or capacity or rate are in demand."""
        in_flight = self._in_flight + self._best_effort_in_flight
        return (
            self._breaker.is_open
            or bool(self._queue)
            or in_flight >= self._concurrency.limit * LOGIN_SHARE
            or self._wait_seconds() > 0
        )

    async def _admitted(self, timeout_seconds: float) -> None:
        refusal = self._breaker.open_seconds(self._monotonic())
        if refusal:
            raise TelnyxUnreachable(may_have_happened=False, retry_after_seconds=refusal)
        if not self._queue and self._wait_seconds() == 0:
            self._start_call()
            return
        if len(self._queue) >= self._queue_capacity(timeout_seconds):
            raise self._rate_limited()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (PRIORITY.get(), next(self._numbers), future))
        self._dispatch()
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._in_flight -= 1  # the slot was granted at the moment when its caller gave up
                self._breaker.abandoned()
                self._dispatch()
            if isinstance(error, TimeoutError):
                raise self._rate_limited() from None
            raise

    def _wait_seconds(self) -> float:
        """Seconds until the rate allows a call; infinity if a call in flight must return first."""
        if self._in_flight >= int(self._concurrency.limit) or self._breaker.open_seconds(self._monotonic()):
            return math.inf
        return self._budget.wait_seconds(self._monotonic(), self._in_flight)

    def _start_call(self) -> None:
        self._in_flight += 1
        self._budget.call_started(self._monotonic())
        self._breaker.call_started()

    def _queue_capacity(self, timeout_seconds: float) -> int:
        """The number of queued calls that can be served before their timeout. More are rejected."""
        return max(1, min(int(self._calls_per_second() * timeout_seconds), MAX_QUEUED))

    def _calls_per_second(self) -> float:
        return self._budget.calls_per_second or self._concurrency.limit * CALLS_PER_SECOND_PER_SLOT

    def _record_outcome(self, slot: CallSlot) -> None:
        now = self._monotonic()
        if slot.outcome is None:
            self._breaker.abandoned()
            return
        self._budget.response_received(slot.status, slot.headers, now, self._in_flight, slot.left_at)
        self._has_succeeded = slot.outcome and slot.status not in REJECTED_CALLS
        if slot.outcome and slot.status != 429:
            self._concurrency.increase()
            self._breaker.succeeded()
        elif slot.outcome:
            self._concurrency.decrease()
            self._breaker.succeeded()
        else:
            self._concurrency.decrease()
            self._breaker.failed(now)

    def _dispatch(self) -> None:
        """Grant slots to queued calls within the limits. Schedules itself for when the rate allows the next call."""
        while self._queue and self._queue[0][2].done():
            heapq.heappop(self._queue)
        self._reject_excess()
        if self._queue and (refusal := self._breaker.open_seconds(self._monotonic())):
            self._reject_all(refusal)
            return
        while self._queue and (wait := self._wait_seconds()) != math.inf:
            if wait > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait, self._dispatch)
                return
            _, _, future = heapq.heappop(self._queue)
            if not future.done():
                self._start_call()
                future.set_result(None)

    def _reject_excess(self) -> None:
        """Reject the last queued calls if the rate has fallen and they cannot be served in time any more."""
        if len(self._queue) <= (capacity := self._queue_capacity(self._timeout_seconds)):
            return
        self._queue.sort()
        for _, _, future in self._queue[capacity:]:
            if not future.done():
                future.set_exception(self._rate_limited())
        del self._queue[capacity:]

    def _reject_all(self, seconds: float) -> None:
        """Reject all queued calls, because the breaker opened."""
        for _, _, future in self._queue:
            if not future.done():
                future.set_exception(TelnyxUnreachable(may_have_happened=False, retry_after_seconds=seconds))
        self._queue.clear()

    def _rate_limited(self) -> TelnyxRateLimited:
        """The error for a rejected call. Its `Retry-After` allows for the calls before it."""
        seconds = self._retry_after.seconds(self._monotonic(), len(self._queue), self._calls_per_second())
        return TelnyxRateLimited(retry_after_seconds=seconds, is_spread=True)
