"""Waiting for a condition, and the durations that tests use."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def eventually(check: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until `check` returns a true value. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.02)
