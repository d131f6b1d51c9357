"""Work that goes on beside requests: done every so often, and when woken; ended in order when the service stops."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from app.adapters.telnyx.call_scheduler import PRIORITY, Priority
from app.vending.errors import DialtoneError

STOP_SECONDS = 5.0
"""How long a piece of work that is under way may take to end by itself."""

_log = structlog.get_logger("dialtone.background")


@dataclass(slots=True)
class Work:
    """One thing to do again and again."""

    do: Callable[[], Awaitable[object]]
    every_seconds: float
    """About: replicas must not come in step."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it, and the work is done now."""
    at_once: bool = False
    """Whether it is done right at the start."""


class Background:
    """All such work of one process, as an asynchronous context."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._works = works
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(work)) for work in self._works]

    async def __aexit__(self, *exit_details: object) -> None:
        # Work under way is let finish: cancelled in a transaction, it would leave a connection behind in disorder.
        self._is_stopping = True
        for work in self._works:
            work.wake.set()
        _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _repeat(self, work: Work) -> None:
        """Trouble waits for the next time. What it asks of Telnyx comes after users' logins."""
        PRIORITY.set(Priority.BACKGROUND)
        if not work.at_once:
            await _pause(work)
        while not self._is_stopping:
            work.wake.clear()
            try:
                await work.do()
            except DialtoneError as error:
                _log.warning("background_work_failed", error=type(error).__name__)
            except Exception:
                _log.exception("background_work_broke")
            if not self._is_stopping:
                await _pause(work)


async def _pause(work: Work) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(work.every_seconds * (0.75 + random.random() / 2)):  # noqa: S311 - pacing
            await work.wake.wait()
