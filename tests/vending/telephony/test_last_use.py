"""The last use of devices: noted in memory, written in batches, shown, and decisive for evictions."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.adapters.ledger.leases import SqlLeases
from app.vending.errors import LedgerUnavailable
from app.vending.models import IssueRequest
from app.vending.telephony.last_use import BATCH_SIZE, MAX_NOTED, LastUses
from tests.support.leases import LEASE, NOW, open_lease, pending_lease
from tests.support.sandbox import Telnyx
from tests.support.service import running_components
from tests.support.tokens import principal
from tests.support.waiting import HOUR

MINUTE = timedelta(minutes=1)


class BatchLedger:
    """Keeps the batches, and is unavailable from the batch with number `fails_at` on."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.batches: list[list[tuple[str, datetime]]] = []
        self.fails_at = fails_at

    async def set_last_used(self, uses: Sequence[tuple[str, datetime]]) -> None:
        if self.fails_at is not None and len(self.batches) >= self.fails_at:
            raise LedgerUnavailable
        self.batches.append(list(uses))


async def test_many_logins_of_a_device_are_one_write() -> None:
    ledger = BatchLedger()
    uses = LastUses(ledger, lambda: NOW)
    for _ in range(1000):
        uses.note("a")

    await uses.flush()
    await uses.flush()

    assert ledger.batches == [[("a", NOW)]]


async def test_uses_are_written_in_batches_in_the_order_of_their_ids() -> None:
    ledger = BatchLedger()
    uses = LastUses(ledger, lambda: NOW)
    for number in reversed(range(BATCH_SIZE + 1)):
        uses.note(f"{number:04}")

    await uses.flush()

    assert [len(batch) for batch in ledger.batches] == [BATCH_SIZE, 1]
    written = [lease_id for batch in ledger.batches for lease_id, _ in batch]
    assert written == sorted(written)


async def test_uses_that_could_not_be_written_are_kept() -> None:
    ledger = BatchLedger(fails_at=1)
    uses = LastUses(ledger, lambda: NOW)
    for number in range(BATCH_SIZE + 1):
        uses.note(f"{number:04}")

    with pytest.raises(LedgerUnavailable):
        await uses.flush()
    ledger.fails_at = None
    await uses.flush()

    assert [len(batch) for batch in ledger.batches] == [BATCH_SIZE, 1]


class AskingLedger(BatchLedger):
    """Asks for the last use of each lease during the write, as an eviction in another transaction does."""

    def __init__(self) -> None:
        super().__init__()
        self.uses = LastUses(self, lambda: NOW)
        self.seen: list[datetime] = []

    async def set_last_used(self, uses: Sequence[tuple[str, datetime]]) -> None:
        for lease_id, _ in uses:
            self.seen.append(self.uses.last_use(replace(LEASE, id=lease_id, last_used_at=NOW - HOUR)))


async def test_use_that_is_being_written_counts() -> None:
    ledger = AskingLedger()
    ledger.uses.note("a")

    await ledger.uses.flush()

    assert ledger.seen == [NOW]


class CancelledLedger(BatchLedger):
    """Does not finish before the service stops."""

    async def set_last_used(self, uses: Sequence[tuple[str, datetime]]) -> None:
        raise asyncio.CancelledError


async def test_use_is_kept_if_its_write_is_cancelled() -> None:
    uses = LastUses(CancelledLedger(), lambda: NOW)
    uses.note(LEASE.id)

    with pytest.raises(asyncio.CancelledError):
        await uses.flush()

    assert uses.last_use(replace(LEASE, last_used_at=NOW - HOUR)) == NOW


class BusyLedger(BatchLedger):
    """The device gets another login during the first write."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.uses = LastUses(self, lambda: self.now)

    async def set_last_used(self, uses: Sequence[tuple[str, datetime]]) -> None:
        await super().set_last_used(uses)
        if self.now == NOW:
            self.now += MINUTE
            self.uses.note("a")


async def test_use_during_the_write_is_written_later() -> None:
    ledger = BusyLedger()
    ledger.uses.note("a")

    await ledger.uses.flush()
    await ledger.uses.flush()

    assert ledger.batches == [[("a", NOW)], [("a", NOW + MINUTE)]]


def test_number_of_noted_uses_is_bounded() -> None:
    uses = LastUses(BatchLedger(), lambda: NOW)
    for number in range(MAX_NOTED + 1):
        uses.note(str(number))

    assert uses.last_use(replace(LEASE, id=str(MAX_NOTED), updated_at=NOW - HOUR)) == NOW - HOUR


def test_use_that_is_not_yet_written_counts() -> None:
    uses = LastUses(BatchLedger(), lambda: NOW)
    uses.note(LEASE.id)

    assert uses.last_use(replace(LEASE, last_used_at=NOW - HOUR)) == NOW
    assert uses.last_use(replace(LEASE, id="other", last_used_at=NOW - HOUR)) == NOW - HOUR


async def test_later_use_in_the_ledger_is_kept(ledger: SqlLeases) -> None:
    lease = await open_lease(ledger, pending_lease(sip_username="gencred1"))

    await ledger.set_last_used([(lease.id, NOW + HOUR)])
    await ledger.set_last_used([(lease.id, NOW), ("unknown", NOW)])

    assert await ledger.find(lease.id) == replace(lease, last_used_at=NOW + HOUR)


async def test_use_does_not_conflict_with_a_change_of_the_lease(ledger: SqlLeases) -> None:
    lease = await open_lease(ledger, pending_lease(sip_username="gencred1"))
    await ledger.set_last_used([(lease.id, NOW + HOUR)])

    await ledger.advance(lease, lease.release(NOW, maybe_created=False))

    found = await ledger.find(lease.id)
    assert found is not None
    assert found.last_used_at == NOW + HOUR


async def test_uses_are_written_when_the_service_stops(telnyx: Telnyx, sqlite: str) -> None:
    async with running_components(telnyx, sqlite) as components:
        login = await components.telephony.issuer.issue(principal(), IssueRequest("laptop"))
        telnyx.clock.advance(HOUR)
        await components.telephony.issuer.issue(principal(), IssueRequest("laptop"))
        used_at = telnyx.clock()

    async with running_components(telnyx, sqlite) as components:
        lease = await components.telephony.devices.get(principal(), login.lease.id)
    assert lease.last_used_at is not None
    assert abs(lease.last_used_at - used_at) < MINUTE
