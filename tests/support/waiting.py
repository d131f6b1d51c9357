"""Waiting for a condition, and the durations that tests use."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def eventually(check: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until `check` returns a true value. Raises AssertionError after `seconds`, which only a hang should take."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.02)


class LoopClock:
    """Measures seconds during which the event loop ran. A pause of the whole process counts as one step.

    So a limit of a latency fails because of what the code waits for, and not because the machine is busy.
    """

    STEP_SECONDS = 0.02

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses = 0
        """Steps that took more than twice their time."""

    async def __aenter__(self) -> "LoopClock":
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(self.STEP_SECONDS)
            self.seconds += self.STEP_SECONDS
            self.pauses += time.monotonic() - began > 2 * self.STEP_SECONDS


async def promptly(check: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait until `check` returns true. Raises AssertionError after `seconds` of pauses between the checks.

    The checks themselves do not count: a busy machine delays a request to a process as it delays what that process has
    to do by then.
    """
    for _ in range(int(seconds / LoopClock.STEP_SECONDS)):
        if await check():
            return
        await asyncio.sleep(LoopClock.STEP_SECONDS)
    raise AssertionError(f"the condition was not met within {seconds} seconds")
