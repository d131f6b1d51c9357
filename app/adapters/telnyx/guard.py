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
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from app.vending.errors import CarrierThrottled, CarrierUnreachable


class Priority(IntEnum):
    """Who goes first."""

    LOGIN = 0
    BACKGROUND = 1


PRIORITY: ContextVar[Priority] = ContextVar("telnyx_priority", default=Priority.LOGIN)
"""Of the calls that the current task makes."""

RESERVE = 0.1
"""The part of a rate limit that is left for other replicas' calls that are under way."""

UNSURE_CALLS = 4
"""So many calls may be under way while it is not known what a fresh window grants: right after a limit was reset."""

MAX_HOLD_SECONDS = 60.0
FIRST_LIMIT, LEAST_LIMIT, MOST_LIMIT = 16, 2, 64
"""Calls in flight: at the start, at worst, at best."""

FAILURES_TO_OPEN = 8
FIRST_OPEN_SECONDS, LAST_OPEN_SECONDS = 1.0, 30.0
"""How long the breaker stays open before a probe: doubles with each probe that fails."""

MOST_WAITING = 2000
TURNED_AWAY_SECONDS = 30.0
"""Callers turned away within this time are reckoned to come back, when the next ones are told when to."""


class Budget:
    """The rate that Telnyx grants, after `x-ratelimit-limit`, `-remaining` and `-reset` of its latest answers."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.remaining: float | None = None
        self._left = math.inf
        self._hold_until = 0.0

    def wait_seconds(self, now: float, in_flight: int) -> float:
        """Until the next call may leave; 0 for now, infinity for: when one that is under way has come back."""
        if now < self._hold_until:
            return self._hold_until - now
        if self._left > 0:
            return 0.0
        return 0.0 if in_flight < UNSURE_CALLS and self.remaining is None else math.inf if in_flight else 0.0

    def leave(self) -> None:
        """A call leaves."""
        self._left -= 1

    def heard(self, status: int, headers: Mapping[str, str], now: float, in_flight: int) -> None:
        """What an answer says about the rate. Odd values (negative, huge, NaN, a date) say nothing."""
        limit, remaining = (_number(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining"))
        reset = _number(headers.get("x-ratelimit-reset"))
        if status == 429:
            asked = _number(headers.get("retry-after"))
            self._hold(now + min(max(asked or reset or 1.0, 0.05), MAX_HOLD_SECONDS))
            return
        if limit is None or remaining is None:
            if now >= self._hold_until:
                self._left = math.inf  # it tells of no rate: the concurrency limit has to do
            return
        reserve = max(1.0, limit * RESERVE)
        self.limit, self.remaining = limit, remaining
        self._left = remaining - in_flight - reserve
        if remaining <= reserve:
            self._hold(now + min(reset if reset is not None else 1.0, MAX_HOLD_SECONDS))

    def _hold(self, until: float) -> None:
        """Until the window is over. What the next one grants is not known before its first answers."""
        self._hold_until = max(self._hold_until, until)
        self._left, self.remaining = 0.0, None


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

    def __init__(self) -> None:
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

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._budget = Budget()
        self._concurrency = Concurrency()
        self._breaker = Breaker()
        self._in_flight = 0
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._turned_away: deque[float] = deque(maxlen=10 * MOST_WAITING)

    def status(self) -> GuardStatus:
        return GuardStatus(
            self._breaker.is_open,
            self._in_flight,
            sum(not future.done() for _, _, future in self._waiting),
            self._concurrency.limit,
            self._budget.limit,
            self._budget.remaining,
        )

    @asynccontextmanager
    async def turn(self, patience_seconds: float) -> AsyncIterator[Turn]:
        """Wait for a turn, so long at most. Raises CarrierThrottled or, while the breaker is open, CarrierUnreachable.

        Neither has reached Telnyx.
        """
        await self._admitted(patience_seconds)
        turn = Turn()
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
        if len(self._waiting) >= MOST_WAITING:
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
        self._budget.leave()
        self._breaker.leave()

    def _learn(self, turn: Turn) -> None:
        now = self._monotonic()
        if turn.outcome is None:
            self._breaker.unheard()
            return
        self._budget.heard(turn.status, turn.headers, now, self._in_flight)
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

    def _send_away(self, seconds: float) -> None:
        """The breaker opened: nobody's call is worth waiting for."""
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(CarrierUnreachable(may_have_happened=False, retry_after_seconds=seconds))
        self._waiting.clear()

    def _turn_away(self) -> CarrierThrottled:
        """Told to come back when those before them may have been served."""
        now = self._monotonic()
        while self._turned_away and self._turned_away[0] < now - TURNED_AWAY_SECONDS:
            self._turned_away.popleft()
        self._turned_away.append(now)
        rate = self._budget.limit or self._concurrency.limit * 10
        return CarrierThrottled(retry_after_seconds=1 + random.random() * len(self._turned_away) / rate)  # noqa: S311


def _number(text: str | None) -> float | None:
    """A sensible number of a header, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= 1e9 else None
