"""The guard in front of Telnyx: rate, concurrency, breaker, queue."""

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.http_client import Outbound
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.call_scheduler import (
    FAILURES_TO_OPEN,
    FIRST_LIMIT,
    FIRST_OPEN_SECONDS,
    LAST_OPEN_SECONDS,
    LEAST_LIMIT,
    MOST_LIMIT,
    PRIORITY,
    Breaker,
    Concurrency,
    Guard,
    Priority,
)
from app.adapters.telnyx.credentials import TelnyxClient
from app.adapters.telnyx.rate_budget import (
    LONGEST_COMEBACK_SECONDS,
    MAX_HOLD_SECONDS,
    PROBE_SECONDS,
    UNSURE_CALLS,
    Budget,
    Comebacks,
)
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.vending.errors import CarrierError, CarrierThrottled, CarrierUnreachable
from tests.stage import telnyx_sandbox


def rate(limit: object, remaining: object, reset: object) -> dict[str, str]:
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    return {name: str(value) for name, value in zip(names, (limit, remaining, reset), strict=True)}


def heard(budget: Budget, status: int, headers: dict[str, str], now: float, in_flight: int) -> None:
    """The answer to a call that left just before."""
    budget.heard(status, headers, now, in_flight, left_at=now)


# -- the rate -------------------------------------------------------------------------------------------------------


def test_without_a_word_about_the_rate_nobody_waits() -> None:
    budget = Budget()
    for _ in range(1000):
        assert budget.wait_seconds(0, 5) == 0
        budget.leave(0)


def test_calls_leave_as_long_as_the_rate_grants_them_and_then_wait_for_the_window() -> None:
    budget = Budget()
    heard(budget, 200, rate(50, 20, 1), now=10, in_flight=3)

    left = 0
    while budget.wait_seconds(10, in_flight=3 + left) == 0:
        budget.leave(0)
        left += 1

    assert left == 20 - 3 - 2, "what is under way, and a reserve for others, is not granted again"
    heard(budget, 200, rate(50, 1, 1), now=10.5, in_flight=0)
    assert budget.wait_seconds(10.5, 0) == 1.0
    assert budget.wait_seconds(11.5, 0) == 0


def test_the_next_window_is_found_by_single_calls_out_of_the_reserve() -> None:
    budget = Budget()
    heard(budget, 200, rate(100, 4, 1), now=10, in_flight=3)
    assert budget.wait_seconds(10.5, in_flight=3) == 0.5, "not while others are under way"
    assert budget.wait_seconds(10, in_flight=0) == pytest.approx(PROBE_SECONDS)

    budget.leave(10.2)
    heard(budget, 200, rate(100, 3, 1), now=10.25, in_flight=0)
    budget.leave(10.4)
    assert budget.wait_seconds(10.45, 0) == pytest.approx(11.25 - 10.45), "the last ones are other replicas'"

    budget.heard(200, rate(100, 99, 1), now=10.5, in_flight=0, left_at=10.4)
    assert budget.wait_seconds(10.5, 0) == 0


def test_a_window_that_was_seen_to_begin_is_known_to_end() -> None:
    budget = Budget()
    heard(budget, 200, rate(50, 2, 1), now=10, in_flight=0)
    heard(budget, 200, rate(50, 49, 1), now=11, in_flight=0)

    heard(budget, 200, rate(50, 2, 1), now=11.7, in_flight=0)

    assert budget.wait_seconds(11.7, in_flight=1) == pytest.approx(0.3), "and not a whole second, as `reset` says"


def test_a_window_that_begins_while_calls_are_under_way_is_noticed() -> None:
    budget = Budget()
    heard(budget, 200, rate(50, 2, 1), now=10, in_flight=0)
    heard(budget, 200, rate(50, 49, 1), now=10.9, in_flight=3)  # found late: it has begun long ago
    heard(budget, 200, rate(50, 40, 1), now=10.98, in_flight=3)
    heard(budget, 200, rate(50, 42, 1), now=10.99, in_flight=3)  # overtook the one before
    heard(budget, 200, rate(50, 48, 1), now=11.02, in_flight=3)

    heard(budget, 200, rate(50, 2, 1), now=11.3, in_flight=0)
    assert budget.wait_seconds(11.3, 1) == pytest.approx(0.72), "until a second after 11.02, not after 10.9"


def test_each_429_leaves_more_to_others() -> None:
    budget = Budget()
    heard(budget, 200, rate(100, 90, 1), now=10, in_flight=0)
    before = budget.calls_a_second or 0

    for _ in range(3):
        heard(budget, 429, {}, now=10, in_flight=0)

    assert 70 <= (budget.calls_a_second or 0) < before


def test_an_answer_that_was_overtaken_does_not_begin_a_window() -> None:
    budget = Budget()
    heard(budget, 200, rate(50, 2, 1), now=10, in_flight=1)

    budget.heard(200, rate(50, 30, 1), now=10.1, in_flight=0, left_at=9.9)

    assert budget.wait_seconds(10.1, 0) > 0


def test_who_is_turned_away_comes_back_one_after_the_other() -> None:
    comebacks = Comebacks(jitter=lambda: 0.5)

    waits = [comebacks.seconds(100, waiting=90, calls_a_second=45) for _ in range(1800)]

    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(2 + 1 / 45)
    assert waits[1000] == pytest.approx(2 + 1001 / 45)
    late = [comebacks.seconds(100, 90, 45) for _ in range(2000)]
    assert max(late) <= LONGEST_COMEBACK_SECONDS, "who is too far behind is asked to look again"
    assert comebacks.seconds(1000, 0, 45) == pytest.approx(1 + 1 / 45)


def test_a_fresh_window_is_begun_with_care() -> None:
    budget = Budget()
    heard(budget, 429, rate(50, 0, 2), now=0, in_flight=0)

    assert budget.wait_seconds(1.9, 0) == pytest.approx(0.1)
    assert [budget.wait_seconds(2, n) == 0 for n in range(UNSURE_CALLS + 2)] == [True] * UNSURE_CALLS + [False] * 2
    heard(budget, 200, rate(50, 49, 1), now=2.1, in_flight=0)
    assert budget.wait_seconds(2.1, 10) == 0


def test_telnyx_without_headers_is_trusted_again_after_a_429_has_passed() -> None:
    budget = Budget()
    heard(budget, 429, {}, now=0, in_flight=0)
    assert budget.wait_seconds(0.5, 0) == 0.5
    heard(budget, 200, {}, now=1.1, in_flight=0)

    assert budget.wait_seconds(1.1, 60) == 0


@pytest.mark.parametrize("odd", ["-5", "nan", "inf", "1e400", "Wed, 21 Oct 2026 07:28:00 GMT", "", "soon", "1e12"])
def test_an_odd_reset_holds_for_a_second_and_never_for_ever(odd: str) -> None:
    budget = Budget()
    heard(budget, 429, rate(50, 0, odd) | {"retry-after": odd}, now=0, in_flight=0)

    assert 0 < budget.wait_seconds(0, 0) <= MAX_HOLD_SECONDS
    assert budget.wait_seconds(MAX_HOLD_SECONDS + 1, 0) == 0


@given(
    st.lists(st.tuples(st.sampled_from([200, 429, 500]), st.text(max_size=6), st.text(max_size=6), st.text(max_size=6)))
)
def test_no_answer_whatsoever_stops_calls_for_more_than_a_minute(answers: list[tuple[int, str, str, str]]) -> None:
    budget = Budget()
    for status, *values in answers:
        heard(budget, status, rate(*values), now=0, in_flight=0)

    assert budget.wait_seconds(MAX_HOLD_SECONDS + 0.001, 0) == 0


# -- concurrency and breaker ------------------------------------------------------------------------------------------


def test_concurrency_grows_with_good_answers_and_shrinks_with_bad_ones() -> None:
    concurrency = Concurrency()
    for _ in range(10_000):
        concurrency.good()
    assert concurrency.limit == MOST_LIMIT
    concurrency.bad()
    assert concurrency.limit < MOST_LIMIT
    for _ in range(50):
        concurrency.bad()
    assert concurrency.limit == LEAST_LIMIT


def broken() -> Breaker:
    breaker = Breaker(jitter=lambda: 0.5)
    for _ in range(FAILURES_TO_OPEN):
        breaker.leave()
        breaker.bad(0)
    return breaker


def test_the_breaker_opens_on_failures_in_a_row_and_not_on_one_now_and_then() -> None:
    breaker = Breaker()
    for _ in range(100):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.bad(0)
        breaker.good()
    assert not breaker.is_open

    assert broken().is_open


def test_one_probe_at_a_time_finds_out_whether_it_is_over() -> None:
    breaker = broken()
    assert breaker.refusal_seconds(0.5) == FIRST_OPEN_SECONDS - 0.5
    assert breaker.refusal_seconds(FIRST_OPEN_SECONDS) == 0
    breaker.leave()
    assert breaker.refusal_seconds(FIRST_OPEN_SECONDS) > 0, "a second call is not let out beside the probe"

    breaker.good()

    assert breaker.refusal_seconds(FIRST_OPEN_SECONDS) == 0
    assert not breaker.is_open


def test_probes_that_fail_become_rarer_and_never_stop() -> None:
    breaker, now, waits = broken(), 0.0, []
    for _ in range(10):
        wait = breaker.refusal_seconds(now)
        waits.append(wait)
        now += wait
        breaker.leave()
        breaker.bad(now)

    assert waits == sorted(waits)
    assert max(waits) == LAST_OPEN_SECONDS


def test_a_probe_whose_caller_left_is_not_waited_for() -> None:
    breaker = broken()
    breaker.leave()

    breaker.unheard()

    assert breaker.refusal_seconds(FIRST_OPEN_SECONDS) == 0


# -- the queue ------------------------------------------------------------------------------------------------------


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_login_goes_before_the_sweepers_work() -> None:
    guard, order = Guard(Time()), []
    release = asyncio.Event()

    async def call(name: str, priority: Priority) -> None:
        PRIORITY.set(priority)
        async with guard.turn(5) as turn:
            order.append(name)
            await release.wait()
            turn.answered(200, {})

    first = [asyncio.create_task(call(f"first-{n}", Priority.LOGIN)) for n in range(FIRST_LIMIT)]
    await asyncio.sleep(0)
    later = [asyncio.create_task(call(f"sweep-{n}", Priority.BACKGROUND)) for n in range(5)]
    await asyncio.sleep(0)
    later += [asyncio.create_task(call(f"login-{n}", Priority.LOGIN)) for n in range(5)]
    await asyncio.sleep(0)
    assert guard.status().waiting == 10
    release.set()
    await asyncio.gather(*first, *later)

    assert [name.split("-")[0] for name in order[FIRST_LIMIT:]] == ["login"] * 5 + ["sweep"] * 5
    assert guard.status().in_flight == 0


async def test_who_cannot_have_a_turn_in_time_hears_when_to_come_back() -> None:
    guard = Guard(Time())
    release = asyncio.Event()

    async def hold() -> None:
        async with guard.turn(5) as turn:
            await release.wait()
            turn.answered(200, {})

    held = [asyncio.create_task(hold()) for _ in range(FIRST_LIMIT)]
    await asyncio.sleep(0)

    with pytest.raises(CarrierThrottled) as refusal:
        async with guard.turn(0.02):
            raise AssertionError("there was no turn")

    assert (refusal.value.retry_after_seconds or 0) >= 1
    release.set()
    await asyncio.gather(*held)
    async with guard.turn(0.02) as turn:
        turn.answered(200, {})
    assert guard.status().in_flight == 0


async def test_callers_who_leave_take_no_turn_with_them() -> None:
    guard = Guard(Time())
    for _ in range(200):
        waiting = [asyncio.create_task(_call(guard)) for _ in range(40)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    assert guard.status().in_flight == 0
    assert guard.status().waiting == 0


async def _call(guard: Guard) -> None:
    async with guard.turn(1) as turn:
        await asyncio.sleep(0)
        turn.answered(200, {})


async def test_when_the_breaker_opens_nobody_is_kept_waiting() -> None:
    guard = Guard(Time())

    async def fail() -> None:
        async with guard.turn(5) as turn:
            await asyncio.sleep(0.01)
            turn.failed()

    outcomes = await asyncio.gather(*(fail() for _ in range(100)), return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, CarrierUnreachable)]
    assert len(refused) > 50
    assert not any(error.may_have_happened for error in refused)
    with pytest.raises(CarrierUnreachable):
        await fail()


# -- against the sandbox ----------------------------------------------------------------------------------------------


async def test_a_limit_of_fifty_a_second_is_respected_by_a_crowd() -> None:
    async with telnyx_sandbox(requests_a_second=50) as telnyx, Outbound("dialtone/test") as outbound:
        api = TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=8.0)
        client = TelnyxClient(api, telnyx.clock)

        async def create() -> bool:
            try:
                await client.create(connection_id=DEMO_CONNECTION)
            except CarrierError:
                return False
            return True

        outcomes = await asyncio.gather(*(create() for _ in range(400)))

    statuses = [entry.status for entry in telnyx.sandbox.journal.entries]
    assert statuses.count(429) <= len(statuses) * 0.01 + 1
    assert sum(outcomes) >= 100, "the queue makes use of what there is"
    assert len(telnyx.live()) == sum(outcomes), "who was turned away had not reached Telnyx"


async def test_an_outage_is_met_by_few_calls_and_its_end_is_noticed() -> None:
    async with telnyx_sandbox() as telnyx, Outbound("dialtone/test") as outbound:
        api = TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=1.0)
        client = TelnyxClient(api, telnyx.clock)
        telnyx.fail("status", status=503, times=10_000)

        async def attempt() -> Any:
            try:
                return await client.create(connection_id=DEMO_CONNECTION)
            except CarrierError as error:
                return error

        for _ in range(300):
            await attempt()
        during = len(telnyx.sandbox.journal.entries)
        telnyx.sandbox.faults.plans.clear()
        await asyncio.sleep(FIRST_OPEN_SECONDS * 1.3)
        healed = await attempt()

    assert during <= FAILURES_TO_OPEN + 3
    assert not isinstance(healed, CarrierError)
    assert math.isfinite(api.guard.status().concurrency_limit)
