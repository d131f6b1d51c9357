"""Single flight: callers who want the same thing at the same moment share one piece of work."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from app.vending.errors import IssueInProgress

Result = TypeVar("Result")

TASK_NAME = "single-flight"
"""Name of the asyncio tasks that do the work, in stack dumps and in tests that crash them."""


class SingleFlight(Generic[Result]):
    """Work in the air, at most one piece a key.

    A flight is its own task: a caller who hangs up or runs out of patience does not end it, and what it brings home is
    there for that caller's retry.
    """

    def __init__(self, timeout_seconds: float, admit: Callable[[int], None] = lambda _: None) -> None:
        """`admit` is asked with how many are in the air before one more takes off; it raises to keep it down."""
        self._timeout_seconds = timeout_seconds
        self._admit = admit
        self._in_flight: dict[Hashable, tuple[Hashable, asyncio.Task[Result]]] = {}

    def __len__(self) -> int:
        return len(self._in_flight)

    async def do(self, key: Hashable, purpose: Hashable, start: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result of the flight for `key`; starts one if none of the same purpose is in the air.

        A flight for another purpose (another grant, another lifetime) is waited for first, whatever becomes of it.
        Raises IssueInProgress if the caller's timeout ends first, and what the flight or `admit` raises.
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
            task.exception()  # looked at, so that a flight whose callers all left does not warn at exit

    async def drain(self) -> None:
        """Wait until nothing is in the air."""
        while self._in_flight:
            await asyncio.wait([task for _, task in self._in_flight.values()])
