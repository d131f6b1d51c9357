"""Group commit: writes that arrive during a commit share the next transaction.

This is for SQLite, whose only writer waits for the disk at each commit. PostgreSQL lets concurrent transactions share
a flush, and a shared transaction would hold many users' locks for as long as its slowest write.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from app.vending.errors import DialtoneError, LedgerUnavailable

MAX_BATCH_SIZE = 64

T = TypeVar("T")
Work = Callable[[sa.Connection], T]
"""The statements of one write. It may run twice, and may raise a DialtoneError only if it has changed nothing."""

Commit = Callable[[Sequence[Work[Any]]], Awaitable[list[Any]]]
"""Runs writes in one transaction. Returns, after the commit, each write's result or the DialtoneError that it raised.

Raises LedgerUnavailable if the database failed for one of them, or what one of them raised. Nothing is written then.
"""


DATABASE_FAILURES = (sa.exc.OperationalError, sa.exc.TimeoutError, OSError)
"""The database is locked, full or gone. No single write caused it, so separate retries would only wait again."""


@dataclass(slots=True, eq=False)
class PendingWrite:
    """One caller's write and its outcome."""

    work: Work[Any]
    outcome: asyncio.Future[Any]
    is_begun: bool = False

    def give_up(self) -> None:
        """Fail the write after the timeout, unless it has begun."""
        if not self.is_begun and not self.outcome.done():
            self.outcome.set_exception(LedgerUnavailable())

    def finish(self, outcome: Any) -> None:
        if self.outcome.done():
            return
        if isinstance(outcome, BaseException):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


class GroupCommit:
    """Collects writes and commits them together, one transaction at a time."""

    def __init__(self, commit: Commit, timeout_seconds: float) -> None:
        self._commit = commit
        self._timeout_seconds = timeout_seconds
        self._waiting: list[PendingWrite] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, work: Work[T]) -> T:
        """Returns the result of `work` after the commit. Raises its DialtoneError, or LedgerUnavailable."""
        loop = asyncio.get_running_loop()
        write = PendingWrite(work, loop.create_future())
        self._waiting.append(write)
        if self._writing is None:
            self._writing = loop.create_task(self._write_all())
        timer = loop.call_later(self._timeout_seconds, write.give_up)
        try:
            outcome: T = await write.outcome
        finally:
            timer.cancel()
        return outcome

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
                # Writes whose callers were cancelled or timed out are dropped.
                together = [write for write in together if not write.outcome.done()]
                for write in together:
                    write.is_begun = True
                if len(together) == 1 or not await self._is_written(together):
                    for write in together:
                        if not write.outcome.done():
                            await self._is_written([write], is_last_try=True)
        finally:
            self._writing = None

    async def _is_written(self, together: list[PendingWrite], *, is_last_try: bool = False) -> bool:
        try:
            outcomes = await self._commit([write.work for write in together])
        except Exception as error:
            # Any other error may have been caused by one write, such as a value that cannot be converted.
            is_of_all = isinstance(error, LedgerUnavailable) and isinstance(error.__cause__, DATABASE_FAILURES)
            if not (is_last_try or is_of_all):
                return False
            outcomes = [error] * len(together)
        for write, outcome in zip(together, outcomes, strict=True):
            write.finish(outcome)
        return True


def run_together(connection: sa.Connection, works: Sequence[Work[Any]]) -> list[Any]:
    """Run the writes one after the other in the open transaction. Returns their results or DialtoneErrors."""
    outcomes: list[Any] = []
    for work in works:
        try:
            outcomes.append(work(connection))
        except DialtoneError as error:
            outcomes.append(error)
    return outcomes
