"""Single flight: concurrent callers share one task."""

import asyncio

import pytest

from app.vending.errors import IssueInProgress
from app.vending.single_flight import SingleFlight


async def test_callers_share_one_task_and_a_cancelled_caller_does_not_end_it() -> None:
    flights: SingleFlight[str] = SingleFlight(timeout_seconds=5)
    started = 0

    async def work() -> str:
        nonlocal started
        started += 1
        await asyncio.sleep(0.05)
        return "done"

    leaver = asyncio.create_task(flights.do("laptop", "same", work))
    stayers = [asyncio.create_task(flights.do("laptop", "same", work)) for _ in range(9)]
    await asyncio.sleep(0.01)
    leaver.cancel()

    assert await asyncio.gather(*stayers) == ["done"] * 9
    assert (started, len(flights)) == (1, 0)


async def test_failure_reaches_every_caller_and_is_not_cached() -> None:
    flights: SingleFlight[str] = SingleFlight(timeout_seconds=5)

    async def fail() -> str:
        await asyncio.sleep(0)
        raise IssueInProgress

    results = await asyncio.gather(*(flights.do("laptop", "same", fail) for _ in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [IssueInProgress] * 3
    assert len(flights) == 0


async def test_caller_times_out_before_the_task_ends() -> None:
    flights: SingleFlight[str] = SingleFlight(timeout_seconds=0.02)
    landed = asyncio.Event()

    async def slow() -> str:
        await asyncio.sleep(0.1)
        landed.set()
        return "late"

    with pytest.raises(IssueInProgress):
        await flights.do("laptop", "same", slow)
    await flights.drain()

    assert landed.is_set()
