"""The call rate that Telnyx grants, and the `Retry-After` of requests that exceed it."""

import math
import random
from collections.abc import Callable, Mapping

MIN_RESERVE, MAX_RESERVE = 0.04, 0.3
"""The share of a window that is reserved for other replicas' calls in flight and for probes. Each 429 increases it."""

PROBE_SECONDS = 0.15
"""Interval between probes while a window is exhausted. One call at a time tests whether the next window has begun,
because `reset` is in whole seconds."""

MIN_BUDGET_FOR_PROBE = 3
"""A probe requires this many remaining calls in the window, because other replicas may probe too."""

UNSURE_CALLS = 4
"""Maximum calls in flight right after a reset, while the new window's size is unknown."""

LOGIN_SHARE = 0.5
"""The share of a window that best-effort calls leave to other calls."""

FAILURE_PAUSE_SECONDS = 5.0
"""Time without best-effort calls after one that failed or was too slow. Further calls would fail too."""

SLOW_SECONDS = 1.0
"""A best-effort call that was cancelled after this time was too slow. A shorter one is no sign of a slow Telnyx."""

MAX_HOLD_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 45.0


class RateBudget:
    """The rate that Telnyx grants, from `x-ratelimit-limit`, `-remaining` and `-reset` of its latest responses."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.remaining: float | None = None
        self._left = math.inf
        self._window_seconds = 1.0
        self._window_from = -math.inf
        """When the first call was sent that is known to belong to the current window."""
        self._reserve = MIN_RESERVE
        self._held_since = -math.inf
        self._hold_until = -math.inf
        self._probes = 0.0
        self._probe_at = 0.0

    @property
    def calls_per_second(self) -> float | None:
        """The approximate long-term rate. None if Telnyx reports no limit."""
        return None if self.limit is None else max(self.limit * (1 - self._reserve) / self._window_seconds, 0.1)

    def wait_seconds(self, now: float, in_flight: int) -> float:
        """Seconds until the next call may be sent; 0: now; infinity: when a call in flight has returned."""
        if now < self._hold_until:
            may_probe = self._probes > 0 and in_flight == 0
            return max((min(self._probe_at, self._hold_until) if may_probe else self._hold_until) - now, 0.0)
        if self._left > 0:
            return 0.0
        return 0.0 if in_flight < UNSURE_CALLS and self.remaining is None else math.inf if in_flight else 0.0

    def call_started(self, now: float) -> None:
        """Record that a call is sent."""
        self._left -= 1
        if now < self._hold_until:
            self._probes -= 1
            self._probe_at = now + PROBE_SECONDS

    def response_received(
        self, status: int, headers: Mapping[str, str], now: float, in_flight: int, left_at: float
    ) -> None:
        """Update the budget from a response. Invalid values (negative, huge, NaN, a date) are ignored."""
        limit, remaining = (_number(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining"))
        reset = _number(headers.get("x-ratelimit-reset"))
        if status == 429:
            self._reserve = min(self._reserve * 1.5, MAX_RESERVE)
            asked = _number(headers.get("retry-after"))
            self._hold(now, min(max(asked or reset or 1.0, 0.05), MAX_HOLD_SECONDS), probes=0)
            return
        if limit is None or remaining is None:
            if now >= self._hold_until:
                self._left = math.inf  # no rate is reported: only the concurrency limit applies
            return
        if now < self._hold_until and left_at < self._held_since:
            return  # a delayed response, which describes a window that is exhausted already
        seconds = min(reset if reset is not None else 1.0, MAX_HOLD_SECONDS)
        self._window_seconds = max(self._window_seconds, seconds)
        reserve = max(1.0, limit * self._reserve)
        self.limit = limit
        if remaining <= reserve:
            self._hold(now, self._rest_of_window(now, seconds), probes=remaining - MIN_BUDGET_FOR_PROBE + 1)
            return
        has_turned = self.remaining is not None and remaining > self.remaining + in_flight
        if has_turned or self._held_since > self._window_from:
            self._window_from = left_at
            self._reserve = max(self._reserve * 0.95, MIN_RESERVE)
        self.remaining = remaining
        self._left = remaining - in_flight - reserve
        self._hold_until = now

    def _rest_of_window(self, now: float, reset_seconds: float) -> float:
        """Seconds until the window ends. `reset` has whole seconds; an observed start of the window is more precise."""
        ends = self._window_from + self._window_seconds
        return min(reset_seconds, ends - now) if now < ends else reset_seconds

    def _hold(self, now: float, seconds: float, *, probes: float) -> None:
        """Send no calls until the window ends. The next window's size is unknown until its first responses."""
        if now >= self._hold_until:
            self._held_since = now
        self._hold_until = max(self._hold_until, now + seconds)
        self._probes = probes
        self._probe_at = now + max(PROBE_SECONDS, seconds * PROBE_SECONDS)
        self._left, self.remaining = 0.0, None


class BestEffortPause:
    """When best-effort calls are suspended. Their own responses decide, and other calls are not affected."""

    def __init__(self) -> None:
        self._until = -math.inf

    def is_active(self, now: float) -> bool:
        return now < self._until

    def response_received(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """Pause after a 429 or 5xx, or if less than LOGIN_SHARE of the window is left. `status` 0: no response."""
        limit, remaining, reset, asked = (
            _number(headers.get(name))
            for name in ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")
        )
        if status == 429:
            self._pause(now, asked or reset or 1.0)
        elif status == 0 or status >= 500:
            self._pause(now, FAILURE_PAUSE_SECONDS)
        elif limit is not None and remaining is not None and remaining < limit * LOGIN_SHARE:
            self._pause(now, reset or 1.0)

    def _pause(self, now: float, seconds: float) -> None:
        self._until = max(self._until, now + min(seconds, MAX_HOLD_SECONDS))


class RetryAfterAllocator:
    """Gives rejected callers a `Retry-After` each, spaced at the rate at which Telnyx can serve them."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._next = -math.inf

    def seconds(self, now: float, waiting: int, calls_per_second: float) -> float:
        """Seconds from now. The `waiting` callers in the queue are served first."""
        step = 1 / calls_per_second
        slot = max(self._next, now + max(1.0, waiting * step)) + step
        if slot - now > MAX_RETRY_AFTER_SECONDS:
            return MAX_RETRY_AFTER_SECONDS * (1 + self._jitter()) / 2  # gets its place when it retries
        self._next = slot
        return slot - now


def _number(text: str | None) -> float | None:
    """A header's value between 0 and 1e9, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= 1e9 else None
