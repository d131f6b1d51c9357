"""Operators' revocations of many leases are recorded, also if the ledger fails before the last batch."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.vending.audit import Decision
from app.vending.errors import LedgerUnavailable
from app.vending.operators.lease_admin import REVOKE_BATCH_SIZE, LeaseAdmin, LeaseCriteria
from app.vending.telephony.lease import Lease
from tests.support.leases import LEASE


class FailingSearch:
    """A ledger that ends some batches of leases, and then is unavailable."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    async def end_matching(self, *_: Any) -> list[Lease]:
        if not self._batches:
            raise LedgerUnavailable
        self._batches -= 1
        return [LEASE] * REVOKE_BATCH_SIZE


class Recorder:
    """The audit, and the part of the revoker that is called."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    async def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def on_leases_ended(self, leases: list[Lease]) -> None: ...


@pytest.mark.parametrize(("batches", "recorded"), [(0, []), (2, [2 * REVOKE_BATCH_SIZE])])
async def test_leases_that_an_interrupted_revocation_ended_are_recorded(batches: int, recorded: list[int]) -> None:
    recorder, unused = cast("Any", Recorder()), cast("Any", None)
    search = cast("Any", FailingSearch(batches))
    admin = LeaseAdmin(unused, search, recorder, unused, recorder, lambda: datetime.now(UTC), "dialtone")

    with pytest.raises(LedgerUnavailable):
        await admin.revoke_matching(LeaseCriteria())

    assert [decision.details["leases"] for decision in recorder.decisions] == recorded
