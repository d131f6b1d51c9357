"""Single flight: concurrent callers that need the same result share one task."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from app.vending.errors import IssueInProgress

Result = TypeVar("Result")

TASK_NAME = "single-flight"
"""Name of the asyncio tasks, for stack dumps and for tests that crash them."""


class SingleFlight(Generic[Result]):
    """Tasks in flight, at most one per key.

    A caller that disconnects or times out does not cancel the task, so its result is available to that caller's retry.
    """

    def __init__(self, timeout_seconds: float, admit: Callable[[int], None] = lambda _: None) -> None:
        """`admit` is called with the number of tasks in flight before another one starts; it raises to prevent that."""
        self._timeout_seconds = timeout_seconds
        self._admit = admit
        self._in_flight: dict[Hashable, tuple[Hashable, asyncio.Task[Result]]] = {}

    def __len__(self) -> int:
        return len(self._in_flight)

    async def do(self, key: Hashable, purpose: Hashable, start: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of the task for `key`, and start one unless a task with the same purpose is in flight.

        A task with another purpose (another login method, another lifetime) is awaited first, whatever its outcome.
        Raises IssueInProgress if the caller's timeout expires first, and whatever the task or `admit` raises.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while (found := self._in_flight.get(key)) is not None and found[0] != purpose:
                    await asyncio.wait([found[1]])
                task = found[1] if found else self._start(key, purpose, start)
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise IssueInProgress(retry_after_seconds=1) from error

    def _start(
        self, key: Hashable, purpose: Hashable, start: Callable[[], Coroutine[Any, Any, Result]]
    ) -> asyncio.Task[Result]:
        self._admit(len(self._in_flight))
        task = asyncio.create_task(start(), name=TASK_NAME)
        self._in_flight[key] = (purpose, task)
        task.add_done_callback(lambda done: self._finish(key, done))
        return task

    def _finish(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would warn at exit if all callers have disconnected

    async def drain(self) -> None:
        """Wait until no task is in flight."""
        while self._in_flight:
            await asyncio.wait([task for _, task in self._in_flight.values()])
