"""The scheduler of Telnyx calls: rate budget, concurrency, circuit breaker and queue."""

import asyncio
import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.http_client import HttpClient
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.call_scheduler import (
    FAILURES_TO_OPEN,
    INITIAL_LIMIT,
    MAX_LIMIT,
    MAX_OPEN_SECONDS,
    MIN_LIMIT,
    MIN_OPEN_SECONDS,
    PRIORITY,
    CallScheduler,
    CircuitBreaker,
    ConcurrencyLimit,
    Priority,
)
from app.adapters.telnyx.credentials import TelnyxCredentials
from app.adapters.telnyx.rate_budget import (
    FAILURE_PAUSE_SECONDS,
    MAX_HOLD_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    PROBE_SECONDS,
    UNSURE_CALLS,
    RateBudget,
    RetryAfterAllocator,
)
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.vending.errors import TelnyxError, TelnyxRateLimited, TelnyxUnreachable
from tests.support.sandbox import telnyx_sandbox
from tests.support.waiting import LoopClock


def rate(limit: object, remaining: object, reset: object) -> dict[str, str]:
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    return {name: str(value) for name, value in zip(names, (limit, remaining, reset), strict=True)}


def respond(budget: RateBudget, status: int, headers: dict[str, str], now: float, in_flight: int) -> None:
    """The response to the latest call."""
    budget.response_received(status, headers, now, in_flight, left_at=now)


# -- rate budget ----------------------------------------------------------------------------------------------------


def test_calls_are_not_delayed_without_rate_limit_headers() -> None:
    budget = RateBudget()
    for _ in range(1000):
        assert budget.wait_seconds(0, 5) == 0
        budget.call_started(0)


def test_calls_over_the_budget_wait_for_the_next_window() -> None:
    budget = RateBudget()
    respond(budget, 200, rate(50, 20, 1), now=10, in_flight=3)

    left = 0
    while budget.wait_seconds(10, in_flight=3 + left) == 0:
        budget.call_started(0)
        left += 1

    assert left == 20 - 3 - 2, "calls in flight and the reserve are not granted again"
    respond(budget, 200, rate(50, 1, 1), now=10.5, in_flight=0)
    assert budget.wait_seconds(10.5, 0) == 1.0
    assert budget.wait_seconds(11.5, 0) == 0


def test_next_window_is_detected_by_single_calls_from_the_reserve() -> None:
    budget = RateBudget()
    respond(budget, 200, rate(100, 4, 1), now=10, in_flight=3)
    assert budget.wait_seconds(10.5, in_flight=3) == 0.5, "not while other calls are in flight"
    assert budget.wait_seconds(10, in_flight=0) == pytest.approx(PROBE_SECONDS)

    budget.call_started(10.2)
    respond(budget, 200, rate(100, 3, 1), now=10.25, in_flight=0)
    budget.call_started(10.4)
    assert budget.wait_seconds(10.45, 0) == pytest.approx(11.25 - 10.45), "the reserve is left to other replicas"

    budget.response_received(200, rate(100, 99, 1), now=10.5, in_flight=0, left_at=10.4)
    assert budget.wait_seconds(10.5, 0) == 0


def test_observed_window_start_predicts_the_window_end() -> None:
    budget = RateBudget()
    respond(budget, 200, rate(50, 2, 1), now=10, in_flight=0)
    respond(budget, 200, rate(50, 49, 1), now=11, in_flight=0)

    respond(budget, 200, rate(50, 2, 1), now=11.7, in_flight=0)

    assert budget.wait_seconds(11.7, in_flight=1) == pytest.approx(0.3), "not the whole second of `reset`"


def test_window_that_starts_during_calls_is_detected() -> None:
    budget = RateBudget()
    respond(budget, 200, rate(50, 2, 1), now=10, in_flight=0)
    respond(budget, 200, rate(50, 49, 1), now=10.9, in_flight=3)  # detected late: the window began long ago
    respond(budget, 200, rate(50, 40, 1), now=10.98, in_flight=3)
    respond(budget, 200, rate(50, 42, 1), now=10.99, in_flight=3)  # arrived before an earlier response
    respond(budget, 200, rate(50, 48, 1), now=11.02, in_flight=3)

    respond(budget, 200, rate(50, 2, 1), now=11.3, in_flight=0)
    assert budget.wait_seconds(11.3, 1) == pytest.approx(0.72), "one second after 11.02, not after 10.9"


def test_each_429_increases_the_reserve() -> None:
    budget = RateBudget()
    respond(budget, 200, rate(100, 90, 1), now=10, in_flight=0)
    before = budget.calls_per_second or 0

    for _ in range(3):
        respond(budget, 429, {}, now=10, in_flight=0)

    assert 70 <= (budget.calls_per_second or 0) < before


def test_late_response_does_not_start_a_window() -> None:
    budget = RateBudget()
    respond(budget, 200, rate(50, 2, 1), now=10, in_flight=1)

    budget.response_received(200, rate(50, 30, 1), now=10.1, in_flight=0, left_at=9.9)

    assert budget.wait_seconds(10.1, 0) > 0


def test_rejected_callers_get_increasing_retry_after_values() -> None:
    comebacks = RetryAfterAllocator(jitter=lambda: 0.5)

    waits = [comebacks.seconds(100, waiting=90, calls_per_second=45) for _ in range(1800)]

    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(2 + 1 / 45)
    assert waits[1000] == pytest.approx(2 + 1001 / 45)
    late = [comebacks.seconds(100, 90, 45) for _ in range(2000)]
    assert max(late) <= MAX_RETRY_AFTER_SECONDS, "callers beyond the limit retry earlier and are queued again"
    assert comebacks.seconds(1000, 0, 45) == pytest.approx(1 + 1 / 45)


def test_new_window_starts_with_few_calls() -> None:
    budget = RateBudget()
    respond(budget, 429, rate(50, 0, 2), now=0, in_flight=0)

    assert budget.wait_seconds(1.9, 0) == pytest.approx(0.1)
    assert [budget.wait_seconds(2, n) == 0 for n in range(UNSURE_CALLS + 2)] == [True] * UNSURE_CALLS + [False] * 2
    respond(budget, 200, rate(50, 49, 1), now=2.1, in_flight=0)
    assert budget.wait_seconds(2.1, 10) == 0


def test_calls_resume_after_a_429_without_headers() -> None:
    budget = RateBudget()
    respond(budget, 429, {}, now=0, in_flight=0)
    assert budget.wait_seconds(0.5, 0) == 0.5
    respond(budget, 200, {}, now=1.1, in_flight=0)

    assert budget.wait_seconds(1.1, 60) == 0


@pytest.mark.parametrize("odd", ["-5", "nan", "inf", "1e400", "Wed, 21 Oct 2026 07:28:00 GMT", "", "soon", "1e12"])
def test_invalid_reset_value_delays_calls_for_one_second(odd: str) -> None:
    budget = RateBudget()
    respond(budget, 429, rate(50, 0, odd) | {"retry-after": odd}, now=0, in_flight=0)

    assert 0 < budget.wait_seconds(0, 0) <= MAX_HOLD_SECONDS
    assert budget.wait_seconds(MAX_HOLD_SECONDS + 1, 0) == 0


@given(
    st.lists(st.tuples(st.sampled_from([200, 429, 500]), st.text(max_size=6), st.text(max_size=6), st.text(max_size=6)))
)
def test_no_response_delays_calls_for_more_than_a_minute(answers: list[tuple[int, str, str, str]]) -> None:
    budget = RateBudget()
    for status, *values in answers:
        respond(budget, status, rate(*values), now=0, in_flight=0)

    assert budget.wait_seconds(MAX_HOLD_SECONDS + 0.001, 0) == 0


# -- concurrency and circuit breaker ----------------------------------------------------------------------------------


def test_concurrency_grows_on_success_and_shrinks_on_failure() -> None:
    concurrency = ConcurrencyLimit()
    for _ in range(10_000):
        concurrency.increase()
    assert concurrency.limit == MAX_LIMIT
    concurrency.decrease()
    assert concurrency.limit < MAX_LIMIT
    for _ in range(50):
        concurrency.decrease()
    assert concurrency.limit == MIN_LIMIT


def broken() -> CircuitBreaker:
    breaker = CircuitBreaker(jitter=lambda: 0.5)
    for _ in range(FAILURES_TO_OPEN):
        breaker.call_started()
        breaker.failed(0)
    return breaker


def test_circuit_breaker_opens_on_consecutive_failures_only() -> None:
    breaker = CircuitBreaker()
    for _ in range(100):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.failed(0)
        breaker.succeeded()
    assert not breaker.is_open

    assert broken().is_open


def test_half_open_circuit_breaker_admits_one_probe_at_a_time() -> None:
    breaker = broken()
    assert breaker.open_seconds(0.5) == MIN_OPEN_SECONDS - 0.5
    assert breaker.open_seconds(MIN_OPEN_SECONDS) == 0
    breaker.call_started()
    assert breaker.open_seconds(MIN_OPEN_SECONDS) > 0, "only the probe is admitted"

    breaker.succeeded()

    assert breaker.open_seconds(MIN_OPEN_SECONDS) == 0
    assert not breaker.is_open


def test_failed_probes_are_retried_with_backoff() -> None:
    breaker, now, waits = broken(), 0.0, []
    for _ in range(10):
        wait = breaker.open_seconds(now)
        waits.append(wait)
        now += wait
        breaker.call_started()
        breaker.failed(now)

    assert waits == sorted(waits)
    assert max(waits) == MAX_OPEN_SECONDS


def test_cancelled_probe_frees_the_probe_slot() -> None:
    breaker = broken()
    breaker.call_started()

    breaker.abandoned()

    assert breaker.open_seconds(MIN_OPEN_SECONDS) == 0


# -- queue ----------------------------------------------------------------------------------------------------------


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_logins_have_priority_over_the_sweeper() -> None:
    guard, order = CallScheduler(Time()), []
    release = asyncio.Event()

    async def call(name: str, priority: Priority) -> None:
        PRIORITY.set(priority)
        async with guard.slot(5) as turn:
            order.append(name)
            await release.wait()
            turn.answered(200, {})

    first = [asyncio.create_task(call(f"first-{n}", Priority.LOGIN)) for n in range(INITIAL_LIMIT)]
    await asyncio.sleep(0)
    later = [asyncio.create_task(call(f"sweep-{n}", Priority.BACKGROUND)) for n in range(5)]
    await asyncio.sleep(0)
    later += [asyncio.create_task(call(f"login-{n}", Priority.LOGIN)) for n in range(5)]
    await asyncio.sleep(0)
    assert guard.status().calls_queued == 10
    release.set()
    await asyncio.gather(*first, *later)

    assert [name.split("-")[0] for name in order[INITIAL_LIMIT:]] == ["login"] * 5 + ["sweep"] * 5
    assert guard.status().calls_in_flight == 0


async def test_call_that_would_miss_its_deadline_gets_a_retry_after() -> None:
    guard = CallScheduler(Time())
    release = asyncio.Event()

    async def hold() -> None:
        async with guard.slot(5) as turn:
            await release.wait()
            turn.answered(200, {})

    held = [asyncio.create_task(hold()) for _ in range(INITIAL_LIMIT)]
    await asyncio.sleep(0)

    with pytest.raises(TelnyxRateLimited) as refusal:
        async with guard.slot(0.02):
            raise AssertionError("no slot was granted")

    assert (refusal.value.retry_after_seconds or 0) >= 1
    release.set()
    await asyncio.gather(*held)
    async with guard.slot(0.02) as turn:
        turn.answered(200, {})
    assert guard.status().calls_in_flight == 0


async def test_cancelled_callers_free_their_slots() -> None:
    guard = CallScheduler(Time())
    for _ in range(200):
        waiting = [asyncio.create_task(_call(guard)) for _ in range(40)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    assert guard.status().calls_in_flight == 0
    assert guard.status().calls_queued == 0


async def _call(guard: CallScheduler) -> None:
    async with guard.slot(1) as turn:
        await asyncio.sleep(0)
        turn.answered(200, {})


async def test_open_circuit_breaker_fails_queued_calls_at_once() -> None:
    guard = CallScheduler(Time())

    async def fail() -> None:
        async with guard.slot(5) as turn:
            await asyncio.sleep(0.01)
            turn.failed()

    outcomes = await asyncio.gather(*(fail() for _ in range(100)), return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, TelnyxUnreachable)]
    assert len(refused) > 50
    assert not any(error.may_have_happened for error in refused)
    with pytest.raises(TelnyxUnreachable):
        await fail()


# -- against the sandbox ----------------------------------------------------------------------------------------------


async def test_concurrent_callers_stay_within_fifty_calls_per_second() -> None:
    async with telnyx_sandbox(requests_a_second=50) as telnyx, HttpClient("dialtone/test") as outbound:
        api = TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=12.0)
        client = TelnyxCredentials(api, telnyx.clock)

        async def create() -> bool:
            try:
                await client.create(connection_id=DEMO_CONNECTION)
            except TelnyxError:
                return False
            return True

        async with LoopClock() as clock:
            outcomes = await asyncio.gather(*(create() for _ in range(400)))

    statuses = [entry.status for entry in telnyx.sandbox.journal.entries]
    # After a pause of this process, a window seems to begin before it does, and its first calls are early.
    assert statuses.count(429) <= len(statuses) * 0.01 + 1 + UNSURE_CALLS * clock.pauses
    assert sum(outcomes) >= 100, "the queue uses the whole budget"
    assert len(telnyx.live()) == sum(outcomes), "rejected calls were not sent to Telnyx"


async def test_outage_causes_few_calls_and_recovery_is_detected() -> None:
    async with telnyx_sandbox() as telnyx, HttpClient("dialtone/test") as outbound:
        api = TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=20.0)
        client = TelnyxCredentials(api, telnyx.clock)
        telnyx.fail("status", status=503, times=10_000)

        async def attempt() -> Any:
            try:
                return await client.create(connection_id=DEMO_CONNECTION)
            except TelnyxError as error:
                return error

        for _ in range(300):
            await attempt()
        during = len(telnyx.sandbox.journal.entries)
        telnyx.sandbox.faults.plans.clear()
        probes = during - FAILURES_TO_OPEN  # each doubles the time until the next one
        await asyncio.sleep(MIN_OPEN_SECONDS * 2**probes * 1.3)
        healed = await attempt()

    assert during <= FAILURES_TO_OPEN + 3
    assert not isinstance(healed, TelnyxError)
    assert math.isfinite(api.status().concurrency_limit)


# -- best-effort calls ----------------------------------------------------------------------------------------------


def accepts_best_effort(scheduler: CallScheduler) -> bool:
    """Whether a best-effort call may be sent. Its slot is given back."""

    async def take() -> None:
        async with scheduler.best_effort_slot() as slot:
            slot.answered(200, {})

    try:
        asyncio.run(take())
    except TelnyxRateLimited:
        return False
    return True


async def call(scheduler: CallScheduler, status: int, headers: dict[str, str] | None = None) -> None:
    async with scheduler.slot(1) as slot:
        slot.answered(status, headers or {})


async def best_effort_call(scheduler: CallScheduler, status: int, headers: dict[str, str] | None = None) -> None:
    async with scheduler.best_effort_slot() as slot:
        slot.answered(status, headers or {})


def test_best_effort_call_is_rejected_while_the_breaker_is_open() -> None:
    scheduler = CallScheduler(lambda: 0.0)
    for _ in range(FAILURES_TO_OPEN):
        asyncio.run(call(scheduler, 500))

    assert not accepts_best_effort(scheduler)


def test_best_effort_call_is_rejected_while_the_rate_is_exhausted() -> None:
    scheduler = CallScheduler(lambda: 0.0)
    asyncio.run(call(scheduler, 429, {"retry-after": "5"}))

    assert not accepts_best_effort(scheduler)


def test_best_effort_calls_leave_half_of_the_concurrency_limit() -> None:
    async def run() -> None:
        scheduler = CallScheduler(lambda: 0.0)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(INITIAL_LIMIT // 2):
                await stack.enter_async_context(scheduler.slot(1))
            with pytest.raises(TelnyxRateLimited):
                await best_effort_call(scheduler, 200)

    asyncio.run(run())


def test_failed_best_effort_calls_change_nothing_for_other_calls() -> None:
    now = [0.0]
    scheduler = CallScheduler(lambda: now[0])
    for _ in range(2 * FAILURES_TO_OPEN):
        asyncio.run(best_effort_call(scheduler, 500))
        now[0] += 6
    before = scheduler.status()
    asyncio.run(best_effort_call(scheduler, 429, rate(10, 0, 60) | {"retry-after": "60"}))

    assert scheduler.status() == before
    assert (before.is_breaker_open, before.concurrency_limit, before.calls_in_flight) == (False, INITIAL_LIMIT, 0)
    asyncio.run(asyncio.wait_for(call(scheduler, 200), 20))


@pytest.mark.parametrize(("seconds", "pauses"), [(0.2, False), (1.5, True)])
def test_cancelled_best_effort_call_pauses_others_only_if_it_was_slow(seconds: float, pauses: bool) -> None:
    now = [0.0]
    scheduler = CallScheduler(lambda: now[0])

    async def cancelled() -> None:
        async with scheduler.best_effort_slot():
            now[0] += seconds
            raise asyncio.CancelledError

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(cancelled())

    assert accepts_best_effort(scheduler) is not pauses


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry-after": "7"}, 7),
        (429, {"retry-after": "-7"}, 1),
        (429, {"retry-after": "1e9"}, MAX_HOLD_SECONDS),
        (200, rate(100, 49, 9), 9),
        (200, rate(100, 50, 9), 0),
        (200, rate("NaN", -1, "x"), 0),
        (503, {}, FAILURE_PAUSE_SECONDS),
        (404, {}, 0),
    ],
)
def test_best_effort_calls_pause_after_their_own_responses(
    status: int, headers: dict[str, str], seconds: float
) -> None:
    now = [0.0]
    scheduler = CallScheduler(lambda: now[0])
    asyncio.run(best_effort_call(scheduler, status, headers))

    assert accepts_best_effort(scheduler) == (seconds == 0)
    now[0] = seconds - 0.1
    assert accepts_best_effort(scheduler) == (seconds == 0)
    now[0] = seconds
    assert accepts_best_effort(scheduler)


# -- availability -----------------------------------------------------------------------------------------------------


async def answered(scheduler: CallScheduler, status: int, headers: dict[str, str] | None = None) -> None:
    async with scheduler.slot(1.0) as slot:
        slot.answered(status, headers or {})


async def test_telnyx_is_available_once_a_call_has_succeeded() -> None:
    scheduler = CallScheduler(lambda: 0.0)
    assert not scheduler.is_available()

    await answered(scheduler, 200)

    assert scheduler.is_available()


@pytest.mark.parametrize("status", [403, 404, 422])
async def test_rejection_of_one_object_does_not_make_telnyx_unavailable(status: int) -> None:
    scheduler = CallScheduler(lambda: 0.0)

    await answered(scheduler, status)

    assert scheduler.is_available()


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_telnyx_is_unavailable_after_a_call_that_failed_until_one_succeeds(status: int) -> None:
    now = 0.0
    scheduler = CallScheduler(lambda: now)
    await answered(scheduler, 200)

    await answered(scheduler, status)
    now = MAX_HOLD_SECONDS
    assert not scheduler.is_available()

    await answered(scheduler, 200)
    assert scheduler.is_available()


async def test_telnyx_is_unavailable_while_its_rate_is_exhausted() -> None:
    scheduler = CallScheduler(lambda: 0.0)

    await answered(scheduler, 200, rate(50, 1, 30))

    assert not scheduler.is_available()


async def test_telnyx_is_unavailable_after_a_call_without_a_response() -> None:
    scheduler = CallScheduler(lambda: 0.0)
    await answered(scheduler, 200)

    async with scheduler.slot(1.0) as slot:
        slot.failed()

    assert not scheduler.is_available()
