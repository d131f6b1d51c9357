"""Guarding Telnyx from us, and us from Telnyx: whose turn it is to call, and when not to call at all.

Every call of the process takes a turn here. The rate that Telnyx's headers grant, a concurrency limit that adapts, a
breaker that opens on repeated failure, and a queue in which a user's login comes before the sweeper's work. Whoever
cannot have a turn in time hears so at once, with a time at which to come back.
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

from app.adapters.telnyx.rate_budget import RateBudget, RetryAfterAllocator
from app.vending.errors import TelnyxRateLimited, TelnyxUnreachable
from app.vending.operators.service_status import TelnyxFailure, TelnyxStatus


class Priority(IntEnum):
    """Who goes first."""

    LOGIN = 0
    BACKGROUND = 1


PRIORITY: ContextVar[Priority] = ContextVar("telnyx_priority", default=Priority.LOGIN)
"""Of the calls that the current task makes."""

INITIAL_LIMIT, MIN_LIMIT, MAX_LIMIT = 16, 2, 64
"""Calls in flight: at the start, at worst, at best."""

FAILURES_TO_OPEN = 8
MIN_OPEN_SECONDS, MAX_OPEN_SECONDS = 1.0, 30.0
"""How long the breaker stays open before a probe: doubles with each probe that fails."""

MAX_QUEUED = 2000
CALLS_PER_SECOND_PER_SLOT = 10.0
"""About what one of the calls in flight amounts to, where Telnyx tells of no rate."""


class ConcurrencyLimit:
    """How many calls may be in flight: one more for each limit's worth of good answers, a third less for a bad one."""

    def __init__(self) -> None:
        self.limit = float(INITIAL_LIMIT)

    def increase(self) -> None:
        self.limit = min(self.limit + 1 / self.limit, MAX_LIMIT)

    def decrease(self) -> None:
        self.limit = max(self.limit * 2 / 3, MIN_LIMIT)


class CircuitBreaker:
    """Opens after repeated failure; then one probe at a time may try whether Telnyx is back."""

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
        """How long to stay away; 0: a call may leave (as the probe, if the breaker is open)."""
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
            return  # a call from before it opened
        if self._is_probing or self._failures >= FAILURES_TO_OPEN:
            self._opened_until = now + self._open_seconds * (0.75 + self._jitter() / 2)
            self._open_seconds = min(self._open_seconds * 2, MAX_OPEN_SECONDS)
            self._is_probing = False

    def abandoned(self) -> None:
        """A call ended without a word, because its caller was cancelled: a probe must not be waited for in vain."""
        self._is_probing = False


class CallSlot:
    """Leave to make one call; its caller says how it went."""

    def __init__(self, started_at: float) -> None:
        self.left_at = started_at
        self.outcome: bool | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """5xx is Telnyx's failure; 429 and other 4xx are no sign of one."""
        self.outcome, self.status, self.headers = status < 500, status, headers

    def failed(self) -> None:
        """No answer, or none that can be read."""
        self.outcome = False


class CallScheduler:
    """The queue in front of Telnyx."""

    def __init__(self, monotonic: Callable[[], float], timeout_seconds: float = 5.0) -> None:
        """`patience_seconds` is about what callers have; each says its own when it comes."""
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

    def status(self, last_failure: TelnyxFailure | None = None) -> TelnyxStatus:
        """`last_failure` is known to the caller, which sees responses."""
        return TelnyxStatus(
            is_breaker_open=self._breaker.is_open,
            calls_in_flight=self._in_flight,
            calls_queued=sum(not future.done() for _, _, future in self._queue),
            concurrency_limit=self._concurrency.limit,
            rate_limit=self._budget.limit,
            rate_remaining=self._budget.remaining,
            last_failure=last_failure,
        )

    def admit(self, in_flight: int) -> None:
        """Before anything is begun that needs a call: raises TelnyxRateLimited if so many are under way already.

        It is cheaper than to find out in the queue, with a request and a ledger read behind one.
        """
        if in_flight >= self._room(self._timeout_seconds):
            raise self._rate_limited()

    @asynccontextmanager
    async def slot(self, timeout_seconds: float) -> AsyncIterator[CallSlot]:
        """Wait for a turn, so long at most. Raises TelnyxRateLimited or, while the breaker is open, TelnyxUnreachable.

        Neither has reached Telnyx.
        """
        await self._admitted(timeout_seconds)
        turn = CallSlot(self._monotonic())
        try:
            yield turn
        finally:
            self._in_flight -= 1
            self._record_outcome(turn)
            self._dispatch()

    async def _admitted(self, timeout_seconds: float) -> None:
        refusal = self._breaker.open_seconds(self._monotonic())
        if refusal:
            raise TelnyxUnreachable(may_have_happened=False, retry_after_seconds=refusal)
        if not self._queue and self._wait_seconds() == 0:
            self._start_call()
            return
        if len(self._queue) >= self._room(timeout_seconds):
            raise self._rate_limited()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (PRIORITY.get(), next(self._numbers), future))
        self._dispatch()
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._in_flight -= 1  # the turn came in the very moment that its caller left
                self._breaker.abandoned()
                self._dispatch()
            if isinstance(error, TimeoutError):
                raise self._rate_limited() from None
            raise

    def _wait_seconds(self) -> float:
        """Seconds to wait for the rate; infinity where a call that is in flight must come back first."""
        if self._in_flight >= int(self._concurrency.limit) or self._breaker.open_seconds(self._monotonic()):
            return math.inf
        return self._budget.wait_seconds(self._monotonic(), self._in_flight)

    def _start_call(self) -> None:
        self._in_flight += 1
        self._budget.call_started(self._monotonic())
        self._breaker.call_started()

    def _room(self, timeout_seconds: float) -> int:
        """How many can be served before their patience ends: nobody else is kept waiting."""
        return max(1, min(int(self._calls_per_second() * timeout_seconds), MAX_QUEUED))

    def _calls_per_second(self) -> float:
        return self._budget.calls_per_second or self._concurrency.limit * CALLS_PER_SECOND_PER_SLOT

    def _record_outcome(self, turn: CallSlot) -> None:
        now = self._monotonic()
        if turn.outcome is None:
            self._breaker.abandoned()
            return
        self._budget.response_received(turn.status, turn.headers, now, self._in_flight, turn.left_at)
        if turn.outcome and turn.status != 429:
            self._concurrency.increase()
            self._breaker.succeeded()
        elif turn.outcome:
            self._concurrency.decrease()
            self._breaker.succeeded()
        else:
            self._concurrency.decrease()
            self._breaker.failed(now)

    def _dispatch(self) -> None:
        """Give turns to those who wait, as far as there are any; look again when the rate allows the next one."""
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
        """The rate became known, or fell: who came last could not be served in time any more, and hears so now."""
        if len(self._queue) <= (room := self._room(self._timeout_seconds)):
            return
        self._queue.sort()
        for _, _, future in self._queue[room:]:
            if not future.done():
                future.set_exception(self._rate_limited())
        del self._queue[room:]

    def _reject_all(self, seconds: float) -> None:
        """The breaker opened: nobody's call is worth waiting for."""
        for _, _, future in self._queue:
            if not future.done():
                future.set_exception(TelnyxUnreachable(may_have_happened=False, retry_after_seconds=seconds))
        self._queue.clear()

    def _rate_limited(self) -> TelnyxRateLimited:
        """Told to come back when those before them may have been served."""
        seconds = self._retry_after.seconds(self._monotonic(), len(self._queue), self._calls_per_second())
        return TelnyxRateLimited(retry_after_seconds=seconds, is_spread=True)
