"""Group commit: writes that come while another is on its way to the disk share the next transaction, and its wait.

For SQLite, whose one writer waits for the disk at each commit. PostgreSQL lets transactions that commit at the same
moment share one flush by itself, and there a shared one would hold the locks of many users for as long as the slowest.
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
"""Statements of one write. Raises a DialtoneError only if it has changed nothing; may be run a second time."""

Commit = Callable[[Sequence[Work[Any]]], Awaitable[list[Any]]]
"""Runs works in one transaction. What each returned, or the DialtoneError that it raised, once that is committed.

Raises LedgerUnavailable if the database did not do its part for one of them: nothing is written then.
"""


AWAY = (sa.exc.OperationalError, sa.exc.TimeoutError, OSError)
"""Locked, full, gone: nothing that one of the writes did. Each by itself would only wait as long again."""


@dataclass(slots=True, eq=False)
class PendingWrite:
    """One caller's write, and what becomes of it."""

    work: Work[Any]
    outcome: asyncio.Future[Any]
    is_begun: bool = False

    def give_up(self) -> None:
        """It waited as long as the database itself would have; what has begun ends by itself."""
        if not self.is_begun and not self.outcome.done():
            self.outcome.set_exception(LedgerUnavailable())

    def tell(self, outcome: Any) -> None:
        if self.outcome.done():
            return
        if isinstance(outcome, BaseException):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


class GroupCommit:
    """Gathers writes. One transaction at a time."""

    def __init__(self, commit: Commit, timeout_seconds: float) -> None:
        self._commit = commit
        self._timeout_seconds = timeout_seconds
        self._waiting: list[PendingWrite] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, work: Work[T]) -> T:
        """What the work returns, once it is committed. Raises what it raises, and LedgerUnavailable."""
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
                # Whoever left meanwhile wants nothing written any more.
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
            if not is_last_try and isinstance(error, LedgerUnavailable) and not isinstance(error.__cause__, AWAY):
                return False
            outcomes = [error] * len(together)
        for write, outcome in zip(together, outcomes, strict=True):
            write.tell(outcome)
        return True


def run_together(connection: sa.Connection, works: Sequence[Work[Any]]) -> list[Any]:
    """One after the other, in the transaction that goes on."""
    outcomes: list[Any] = []
    for work in works:
        try:
            outcomes.append(work(connection))
        except DialtoneError as error:
            outcomes.append(error)
    return outcomes
