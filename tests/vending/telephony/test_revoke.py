"""A logout is recorded, also if the ledger fails after it."""

from typing import Any, cast

import pytest

from app.vending.audit import AuditOutcome, Decision
from app.vending.errors import LedgerUnavailable
from app.vending.telephony.lease import Lease
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.revoke import Revoker
from tests.support.leases import LEASE, NOW


class FailingLedger:
    """A ledger that accepts one write, and then is unavailable."""

    def __init__(self) -> None:
        self.written: list[Lease] = []

    async def advance(self, _: Lease, after: Lease) -> Lease:
        if self.written:
            raise LedgerUnavailable
        self.written.append(after)
        return after


class Recorder:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record_nowait(self, decision: Decision) -> None:
        self.decisions.append(decision)


async def test_logout_is_recorded_although_its_deletion_cannot_be_scheduled() -> None:
    recorder, ledger, unused = Recorder(), FailingLedger(), cast("Any", None)
    revoker = Revoker(
        policy=unused,
        ledger=cast("Any", ledger),
        recovery=unused,
        login_cache=LoginCache(1),
        not_before=unused,
        binding=unused,
        audit=cast("Any", recorder),
        clock=lambda: NOW,
        wake_sweeper=lambda: None,
    )

    with pytest.raises(LedgerUnavailable):
        await revoker.end(LEASE, "asked_by_user")
    with pytest.raises(LedgerUnavailable):
        await revoker.end(ledger.written[0], "asked_by_user")  # the retry finds the lease ended

    (decision,) = recorder.decisions
    assert (decision.lease_id, decision.outcome) == (LEASE.id, AuditOutcome.UNCONFIRMED)
