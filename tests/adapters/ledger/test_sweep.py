"""The sweeper's queries behave the same on SQLite and PostgreSQL."""

import asyncio
from datetime import datetime, timedelta

from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.sweep import SqlSweep
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.upkeep.sweeper import Backlog
from tests.support.leases import NOW, credential, open_lease, pending_lease

LATER = NOW + timedelta(hours=2)


def take(lease: Lease) -> Lease:
    return lease.schedule_retry(LATER, LATER + timedelta(hours=1))


async def ended(ledger: SqlLeases, number: int, attempts: int = 0, at: datetime = NOW) -> Lease:
    lease = pending_lease(f"tab-{number}", number)
    await open_lease(ledger, lease, 1000)
    lease = await ledger.advance(lease, lease.start_revoking(at))
    for _ in range(attempts):
        lease = await ledger.advance(lease, lease.schedule_retry(at, at))
    return lease


async def test_expired_and_revoked_leases_are_due(ledger: SqlLeases, sweeping: SqlSweep) -> None:
    made: dict[str, Lease] = {}
    for number, name in enumerate(("fresh", "expired", "revoking", "waiting", "stale"), 1):
        made[name] = pending_lease(name, number, updated_at=NOW)
        await open_lease(ledger, made[name])
    for name in ("fresh", "expired", "revoking", "waiting"):
        lease = await ledger.advance(made[name], made[name].activate(credential(), NOW, NOW))
        made[name] = lease
    later = NOW + timedelta(hours=2)
    await ledger.advance(made["fresh"], made["fresh"].extend(later + timedelta(hours=1), NOW))
    await ledger.advance(made["revoking"], made["revoking"].start_revoking(NOW))
    waiting = await ledger.advance(made["waiting"], made["waiting"].start_revoking(NOW))
    await ledger.advance(waiting, waiting.schedule_retry(NOW, later + timedelta(hours=1)))

    due = await sweeping.due(later, NOW + timedelta(minutes=10), limit=10)

    assert {lease.device_id for lease in due} == {"expired", "revoking", "stale"}
    assert len(await sweeping.due(later, NOW + timedelta(minutes=10), limit=2)) == 2


async def test_expiry_does_not_wait_for_deletions(ledger: SqlLeases, sweeping: SqlSweep) -> None:
    for number in range(1, 11):
        await ended(ledger, number)
    lease = await open_lease(ledger, pending_lease("laptop", 11), 1000)
    await ledger.advance(lease, lease.activate(credential(11), NOW, NOW))

    expired = await sweeping.expire(LATER, limit=1)

    assert [(lease.device_id, lease.state) for lease in expired] == [("laptop", LeaseState.EXPIRED)]
    assert await sweeping.expire(LATER, limit=1) == []


async def test_two_sweepers_never_claim_the_same_lease(ledger: SqlLeases, sweeping: SqlSweep) -> None:
    for number in range(1, 41):
        await ended(ledger, number)

    batches = await asyncio.gather(*(sweeping.take_due(LATER, NOW, 10, take) for _ in range(6)))

    taken = [lease.id for batch in batches for lease in batch]
    assert len(taken) == len(set(taken))
    rest = await sweeping.take_due(LATER, NOW, 100, take)
    assert len(taken) + len(rest) == 40, "leases that one sweeper skipped are claimed by the next"
    assert await sweeping.due(LATER, NOW, 100) == []


async def test_claimed_lease_is_stored_with_its_claim(ledger: SqlLeases, sweeping: SqlSweep) -> None:
    before = await ended(ledger, 1)

    (taken,) = await sweeping.take_due(LATER, NOW, 10, take)

    assert taken == take(before)
    assert await ledger.find(before.id) == taken


async def test_backlog_counts_waiting_and_irrevocable_leases(ledger: SqlLeases, sweeping: SqlSweep) -> None:
    assert await sweeping.backlog(8) == Backlog()
    stuck = await ended(ledger, 1, attempts=8)
    await ended(ledger, 2, attempts=7)
    done = await ended(ledger, 3)
    await ledger.advance(done, done.mark_deleted(NOW))

    assert await sweeping.backlog(8) == Backlog(waiting=2, irrevocable=1, oldest=NOW)
    assert await sweeping.irrevocable(8, 10) == [stuck]


async def test_only_leases_past_the_retention_are_removed(ledger: SqlLeases, sweeping: SqlSweep) -> None:
    waiting, old, young = await ended(ledger, 1), await ended(ledger, 2), await ended(ledger, 3)
    live = pending_lease("live", 4)
    await open_lease(ledger, live)
    await ledger.advance(old, old.mark_deleted(NOW))
    await ledger.advance(young, young.mark_deleted(LATER))

    assert await sweeping.delete_ended(LATER, 10) == 1

    assert await ledger.find(old.id) is None
    for kept in (waiting, young, live):
        found = await ledger.find(kept.id)
        assert found is not None
    assert (await ledger.find(young.id) or young).state is LeaseState.REVOKED
