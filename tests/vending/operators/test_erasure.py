"""An erasure that is interrupted is recorded, and names the user only while there is no pseudonym."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.vending.audit import AuditOutcome, Decision
from app.vending.errors import LedgerUnavailable
from app.vending.models import UserKey
from app.vending.operators.erasure import ErasureCounts, UserEraser
from app.vending.pseudonyms import ErasedUser
from app.vending.telephony.lease import Lease

ALICE = UserKey("https://id.example.com", "alice")
PSEUDONYM = "erased-1"


class FailingLedger:
    """A ledger that is unavailable from one of its methods on."""

    def __init__(self, fails_at: str) -> None:
        self._fails_at = fails_at

    async def count(self, _: UserKey) -> ErasureCounts:
        return ErasureCounts()

    async def end_matching(self, *_: Any) -> list[Lease]:
        self._check("end_matching")
        return []

    async def record(self, user_key: UserKey, erased_before: datetime, _: datetime) -> ErasedUser:
        self._check("record")
        return ErasedUser(user_key, PSEUDONYM, erased_before)

    async def pseudonymize_leases(self, _: ErasedUser) -> int:
        self._check("pseudonymize_leases")
        return 0

    async def has_leases(self, _: ErasedUser) -> bool:
        return False

    def _check(self, method: str) -> None:
        if method == self._fails_at:
            raise LedgerUnavailable


class Recorder:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record_nowait(self, decision: Decision) -> None:
        self.decisions.append(decision)


@pytest.mark.parametrize(
    ("fails_at", "named"),
    [("end_matching", "alice"), ("record", "alice"), ("pseudonymize_leases", PSEUDONYM)],
)
async def test_interrupted_erasure_is_recorded_with_the_pseudonym_once_there_is_one(fails_at: str, named: str) -> None:
    recorder, unused = Recorder(), cast("Any", None)
    ledger = cast("Any", FailingLedger(fails_at))
    eraser = UserEraser(ledger, ledger, unused, unused, cast("Any", recorder), lambda: datetime.now(UTC), lambda: None)

    with pytest.raises(LedgerUnavailable):
        await eraser.erase(ALICE)

    (decision,) = recorder.decisions
    assert (decision.outcome, decision.user_key) == (AuditOutcome.FAILED, UserKey(ALICE.issuer, named))
