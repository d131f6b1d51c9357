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
from dataclasses import dataclass
from enum import IntEnum

from app.adapters.telnyx.rate_budget import Budget, Comebacks
from app.vending.errors import CarrierThrottled, CarrierUnreachable


class Priority(IntEnum):
    """Who goes first."""

    LOGIN = 0
    BACKGROUND = 1


PRIORITY: ContextVar[Priority] = ContextVar("telnyx_priority", default=Priority.LOGIN)
"""Of the calls that the current task makes."""

FIRST_LIMIT, LEAST_LIMIT, MOST_LIMIT = 16, 2, 64
"""Calls in flight: at the start, at worst, at best."""

FAILURES_TO_OPEN = 8
FIRST_OPEN_SECONDS, LAST_OPEN_SECONDS = 1.0, 30.0
"""How long the breaker stays open before a probe: doubles with each probe that fails."""

MOST_WAITING = 2000
CALLS_A_SECOND_EACH = 10.0
"""About what one of the calls in flight amounts to, where Telnyx tells of no rate."""


class Concurrency:
    """How many calls may be in flight: one more for each limit's worth of good answers, a third less for a bad one."""

    def __init__(self) -> None:
        self.limit = float(FIRST_LIMIT)

    def good(self) -> None:
        self.limit = min(self.limit + 1 / self.limit, MOST_LIMIT)

    def bad(self) -> None:
        self.limit = max(self.limit * 2 / 3, LEAST_LIMIT)


class Breaker:
    """Opens after repeated failure; then one probe at a time may try whether Telnyx is back."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._failures = 0
        self._open_seconds = FIRST_OPEN_SECONDS
        self._opened_until: float | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._opened_until is not None

    def refusal_seconds(self, now: float) -> float:
        """How long to stay away; 0: a call may leave (as the probe, if the breaker is open)."""
        if self._opened_until is None:
            return 0.0
        if now < self._opened_until:
            return self._opened_until - now
        return 1.0 if self._is_probing else 0.0

    def leave(self) -> None:
        self._is_probing = self.is_open

    def good(self) -> None:
        self._failures, self._open_seconds, self._opened_until, self._is_probing = 0, FIRST_OPEN_SECONDS, None, False

    def bad(self, now: float) -> None:
        self._failures += 1
        if self.is_open and not self._is_probing:
            return  # a call from before it opened
        if self._is_probing or self._failures >= FAILURES_TO_OPEN:
            self._opened_until = now + self._open_seconds * (0.75 + self._jitter() / 2)
            self._open_seconds = min(self._open_seconds * 2, LAST_OPEN_SECONDS)
            self._is_probing = False

    def unheard(self) -> None:
        """A call ended without a word, because its caller was cancelled: a probe must not be waited for in vain."""
        self._is_probing = False


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """How calls to Telnyx are faring."""

    is_open: bool
    in_flight: int
    waiting: int
    concurrency_limit: float
    rate_limit: float | None
    rate_remaining: float | None


class Turn:
    """Leave to make one call; its caller says how it went."""

    def __init__(self, left_at: float) -> None:
        self.left_at = left_at
        self.outcome: bool | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """5xx is Telnyx's failure; 429 and other 4xx are no sign of one."""
        self.outcome, self.status, self.headers = status < 500, status, headers

    def failed(self) -> None:
        """No answer, or none that can be read."""
        self.outcome = False


class Guard:
    """The queue in front of Telnyx."""

    def __init__(self, monotonic: Callable[[], float], patience_seconds: float = 5.0) -> None:
        """`patience_seconds` is about what callers have; each says its own when it comes."""
        self._monotonic = monotonic
        self._patience_seconds = patience_seconds
        self._budget = Budget()
        self._concurrency = Concurrency()
        self._breaker = Breaker()
        self._in_flight = 0
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._comebacks = Comebacks()

    def status(self) -> GuardStatus:
        return GuardStatus(
            self._breaker.is_open,
            self._in_flight,
            sum(not future.done() for _, _, future in self._waiting),
            self._concurrency.limit,
            self._budget.limit,
            self._budget.remaining,
        )

    def admit(self, under_way: int) -> None:
        """Before anything is begun that needs a call: raises CarrierThrottled if so many are under way already.

        It is cheaper than to find out in the queue, with a request and a ledger read behind one.
        """
        if under_way >= self._room(self._patience_seconds):
            raise self._turn_away()

    @asynccontextmanager
    async def turn(self, patience_seconds: float) -> AsyncIterator[Turn]:
        """Wait for a turn, so long at most. Raises CarrierThrottled or, while the breaker is open, CarrierUnreachable.

        Neither has reached Telnyx.
        """
        await self._admitted(patience_seconds)
        turn = Turn(self._monotonic())
        try:
            yield turn
        finally:
            self._in_flight -= 1
            self._learn(turn)
            self._pump()

    async def _admitted(self, patience_seconds: float) -> None:
        refusal = self._breaker.refusal_seconds(self._monotonic())
        if refusal:
            raise CarrierUnreachable(may_have_happened=False, retry_after_seconds=refusal)
        if not self._waiting and self._may_leave() == 0:
            self._leave()
            return
        if len(self._waiting) >= self._room(patience_seconds):
            raise self._turn_away()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (PRIORITY.get(), next(self._numbers), future))
        self._pump()
        try:
            async with asyncio.timeout(patience_seconds):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._in_flight -= 1  # the turn came in the very moment that its caller left
                self._breaker.unheard()
                self._pump()
            if isinstance(error, TimeoutError):
                raise self._turn_away() from None
            raise

    def _may_leave(self) -> float:
        """Seconds to wait for the rate; infinity where a call that is in flight must come back first."""
        if self._in_flight >= int(self._concurrency.limit) or self._breaker.refusal_seconds(self._monotonic()):
            return math.inf
        return self._budget.wait_seconds(self._monotonic(), self._in_flight)

    def _leave(self) -> None:
        self._in_flight += 1
        self._budget.leave(self._monotonic())
        self._breaker.leave()

    def _room(self, patience_seconds: float) -> int:
        """How many can be served before their patience ends: nobody else is kept waiting."""
        return max(1, min(int(self._calls_a_second() * patience_seconds), MOST_WAITING))

    def _calls_a_second(self) -> float:
        return self._budget.calls_a_second or self._concurrency.limit * CALLS_A_SECOND_EACH

    def _learn(self, turn: Turn) -> None:
        now = self._monotonic()
        if turn.outcome is None:
            self._breaker.unheard()
            return
        self._budget.heard(turn.status, turn.headers, now, self._in_flight, turn.left_at)
        if turn.outcome and turn.status != 429:
            self._concurrency.good()
            self._breaker.good()
        elif turn.outcome:
            self._concurrency.bad()
            self._breaker.good()
        else:
            self._concurrency.bad()
            self._breaker.bad(now)

    def _pump(self) -> None:
        """Give turns to those who wait, as far as there are any; look again when the rate allows the next one."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        self._thin_out()
        if self._waiting and (refusal := self._breaker.refusal_seconds(self._monotonic())):
            self._send_away(refusal)
            return
        while self._waiting and (wait := self._may_leave()) != math.inf:
            if wait > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait, self._pump)
                return
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                self._leave()
                future.set_result(None)

    def _thin_out(self) -> None:
        """The rate became known, or fell: who came last could not be served in time any more, and hears so now."""
        if len(self._waiting) <= (room := self._room(self._patience_seconds)):
            return
        self._waiting.sort()
        for _, _, future in self._waiting[room:]:
            if not future.done():
                future.set_exception(self._turn_away())
        del self._waiting[room:]

    def _send_away(self, seconds: float) -> None:
        """The breaker opened: nobody's call is worth waiting for."""
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(CarrierUnreachable(may_have_happened=False, retry_after_seconds=seconds))
        self._waiting.clear()

    def _turn_away(self) -> CarrierThrottled:
        """Told to come back when those before them may have been served."""
        seconds = self._comebacks.seconds(self._monotonic(), len(self._waiting), self._calls_a_second())
        return CarrierThrottled(retry_after_seconds=seconds, is_spread=True)
