"""Replays of dead letters are recorded, also if the ledger fails after them."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.vending.audit import Decision
from app.vending.errors import LedgerUnavailable
from app.vending.events.admin import EventAdmin
from app.vending.events.endpoints import ActiveEndpoints


class FailingLedger:
    """A ledger that replays dead letters, and then is unavailable."""

    async def replay(self, *_: Any) -> int:
        return 3

    async def dead_letters(self, *_: Any) -> dict[str, int]:
        raise LedgerUnavailable


class Recorder:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    async def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


async def test_replay_is_recorded_although_what_is_left_cannot_be_counted() -> None:
    recorder = Recorder()
    admin = EventAdmin(
        cast("Any", FailingLedger()), ActiveEndpoints(()), cast("Any", recorder), lambda: datetime.now(UTC)
    )

    with pytest.raises(LedgerUnavailable):
        await admin.replay(None, "backend")

    assert [decision.details for decision in recorder.decisions] == [{"endpoint": "backend", "events": 3}]
