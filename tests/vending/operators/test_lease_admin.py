"""Operators' revocations of many leases are recorded, also if they are interrupted before the last batch."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.vending.audit import Decision
from app.vending.errors import LedgerUnavailable
from app.vending.operators.lease_admin import REVOKE_BATCH_SIZE, LeaseAdmin, LeaseCriteria
from app.vending.telephony.lease import Lease
from tests.support.leases import LEASE
from tests.support.waiting import eventually


class FailingSearch:
    """A ledger that ends some batches of leases, and then is unavailable."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    async def end_matching(self, *_: Any) -> list[Lease]:
        if not self._batches:
            raise LedgerUnavailable
        self._batches -= 1
        return [LEASE] * REVOKE_BATCH_SIZE


class WaitingSearch:
    """A ledger that ends one batch of leases, and commits the next one when the test lets it."""

    def __init__(self) -> None:
        self.batches = 0
        self.may_commit = asyncio.Event()

    async def end_matching(self, *_: Any) -> list[Lease]:
        self.batches += 1
        if self.batches == 2:
            await self.may_commit.wait()
        return [LEASE] * REVOKE_BATCH_SIZE


class Recorder:
    """The audit, and the part of the revoker that is called."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record_nowait(self, decision: Decision) -> None:
        self.decisions.append(decision)

    async def record(self, decision: Decision) -> None:
        self.record_nowait(decision)

    def on_leases_ended(self, leases: list[Lease]) -> None: ...


def lease_admin(search: FailingSearch | WaitingSearch, recorder: Recorder) -> LeaseAdmin:
    unused, any_recorder = cast("Any", None), cast("Any", recorder)
    return LeaseAdmin(
        unused, cast("Any", search), any_recorder, unused, any_recorder, lambda: datetime.now(UTC), "dialtone"
    )


@pytest.mark.parametrize(("batches", "recorded"), [(0, []), (2, [2 * REVOKE_BATCH_SIZE])])
async def test_leases_that_an_interrupted_revocation_ended_are_recorded(batches: int, recorded: list[int]) -> None:
    recorder = Recorder()

    with pytest.raises(LedgerUnavailable):
        await lease_admin(FailingSearch(batches), recorder).revoke_matching(LeaseCriteria())

    assert [decision.details["leases"] for decision in recorder.decisions] == recorded


async def test_leases_that_a_cancelled_revocation_ended_are_recorded_with_the_batch_in_flight() -> None:
    recorder, search = Recorder(), WaitingSearch()
    revocation = asyncio.create_task(lease_admin(search, recorder).revoke_matching(LeaseCriteria()))
    await eventually(lambda: search.batches == 2)

    revocation.cancel()
    await asyncio.sleep(0)
    search.may_commit.set()
    with pytest.raises(asyncio.CancelledError):
        await revocation

    assert [decision.details["leases"] for decision in recorder.decisions] == [2 * REVOKE_BATCH_SIZE]
    assert search.batches == 2, "no batch begins after the cancellation"
