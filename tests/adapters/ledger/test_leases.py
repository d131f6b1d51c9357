"""The ledger behaves the same on SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.not_before import SqlNotBefore
from app.adapters.ledger.push import SqlPush
from app.adapters.ledger.sweep import SqlSweep
from app.vending.errors import DeviceLimitReached, LeaseConflict, LeaseExists, LedgerUnavailable, PushConflict
from app.vending.models import UserKey
from app.vending.not_before import LogoutClaims
from app.vending.push.models import PushObject, PushRegistration, PushState, PushType
from app.vending.telephony.lease import Lease
from app.vending.upkeep.warm_pool_size import NewDevices
from tests.support.leases import LEASE, NOW, credential, open_lease, pending_lease

ALICE = UserKey(LEASE.issuer, LEASE.subject)


async def test_lease_is_read_back_with_microseconds(ledger: SqlLeases) -> None:
    lease = pending_lease(label="Büro", claimed_by="replica", claimed_until=NOW, attempted_at=NOW)

    await open_lease(ledger, lease)

    assert await ledger.find(lease.id) == lease
    assert await ledger.live_lease(ALICE, "laptop") == lease


async def test_device_has_at_most_one_live_lease(ledger: SqlLeases) -> None:
    lease = await open_lease(ledger, pending_lease())

    assert await open_lease(ledger, pending_lease(number=2)) == lease
    assert await ledger.find(f"{2:032x}") is None
    for other in (
        pending_lease("phone", 3),
        pending_lease(number=4, subject="bob"),
        pending_lease(number=5, issuer="https://other.example.com"),
    ):
        assert await open_lease(ledger, other) == other


async def test_device_can_open_a_new_lease_after_the_old_one_ended(ledger: SqlLeases) -> None:
    lease = pending_lease()
    await open_lease(ledger, lease)
    await ledger.advance(lease, lease.mark_failed(NOW))

    await open_lease(ledger, pending_lease(number=2))

    assert (await ledger.live_lease(ALICE, "laptop")) == pending_lease(number=2)


async def test_one_of_two_concurrent_writers_succeeds(ledger: SqlLeases) -> None:
    lease = pending_lease()
    await open_lease(ledger, lease)

    outcomes = await asyncio.gather(
        *(ledger.advance(lease, lease.claim(f"replica {n}", NOW, timedelta(seconds=30))) for n in range(8)),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Lease"] + ["LeaseConflict"] * 7
    winner = next(outcome for outcome in outcomes if isinstance(outcome, Lease))
    assert await ledger.find(lease.id) == winner


async def test_write_of_an_old_version_is_rejected(ledger: SqlLeases) -> None:
    first = pending_lease()
    await open_lease(ledger, first)
    taken = await ledger.advance(first, first.claim("other", NOW, timedelta(seconds=30)))

    with pytest.raises(LeaseConflict):
        await ledger.advance(first, first.activate(credential(), NOW, NOW))

    assert await ledger.find(first.id) == taken


async def test_device_limit_counts_only_live_devices_of_the_same_user(ledger: SqlLeases) -> None:
    await open_lease(ledger, pending_lease("one", 1), 2)
    await open_lease(ledger, pending_lease("two", 2), 2)
    await open_lease(ledger, pending_lease("one", 3, subject="bob"), 2)

    with pytest.raises(DeviceLimitReached):
        await open_lease(ledger, pending_lease("three", 4), 2)
    assert (await open_lease(ledger, pending_lease("two", 5), 2)).id == pending_lease("two", 2).id


async def test_fifty_concurrent_devices_stop_exactly_at_the_limit(ledger: SqlLeases) -> None:
    outcomes = await asyncio.gather(
        *(open_lease(ledger, pending_lease(f"tab-{n}", n), 7) for n in range(50)), return_exceptions=True
    )

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(Lease) == 7
    assert set(kinds) == {Lease, DeviceLimitReached}


async def test_pages_are_complete_and_ordered_for_equal_timestamps(ledger: SqlLeases) -> None:
    for number in range(7):
        await open_lease(ledger, pending_lease(f"tab-{number}", number + 1))

    seen: list[str] = []
    after = None
    while page := await ledger.page(ALICE, after, 3):
        seen += [lease.id for lease in page]
        after = (page[-1].created_at, page[-1].id)

    assert seen == [f"{number:032x}" for number in range(7, 0, -1)]


async def test_changed_and_ended_leases_are_listed_since_a_given_time(ledger: SqlLeases) -> None:
    lease = pending_lease()
    await open_lease(ledger, lease)
    active = await ledger.advance(lease, lease.activate(credential(), NOW, NOW))
    assert await ledger.changed_since(NOW) == []

    for seconds, transition in enumerate([renewed, Lease.start_revoking], 5):
        now = NOW + timedelta(seconds=seconds)
        active = await ledger.advance(active, transition(active, now))

        (change,) = await ledger.changed_since(now)
        assert (change.id, change.user_key, change.device_id) == (active.id, active.user_key, active.device_id)
        assert (change.state, change.version) == (active.state, active.version)
        assert (change.expires_at, change.updated_at) == (active.expires_at, now)
        assert await ledger.changed_since(now + timedelta(seconds=1)) == []


def renewed(lease: Lease, now: datetime) -> Lease:
    return lease.extend(now + timedelta(hours=3), now)


async def test_pooled_lease_is_claimed_once_and_keeps_its_name(ledger: SqlLeases) -> None:
    made = []
    for number in range(3):
        coming = pending_lease(f"pool-{number}", number + 1, issuer="", subject="", credential_name=f"name-{number}")
        await ledger.open_pooled(coming, 10)
        made.append(await ledger.advance(coming, coming.mark_pooled(credential(number), NOW, NOW)))
    wanted = [pending_lease(f"tab-{number}", 100 + number) for number in range(5)]

    opened = await asyncio.gather(*(open_lease(ledger, lease) for lease in wanted))

    assert {lease.device_id for lease in opened} == {lease.device_id for lease in wanted}
    pooled = [lease for lease in opened if lease.credential_id is not None]
    assert {lease.id for lease in pooled} == {lease.id for lease in made}
    assert {lease.credential_name for lease in pooled} == {lease.credential_name for lease in made}
    for lease in opened:
        assert await ledger.find(lease.id) == lease
    assert await ledger.pooled(10) == []


async def test_concurrent_refills_do_not_exceed_the_size_of_the_pool(ledger: SqlLeases) -> None:
    def coming(number: int, connection: str = "77") -> Lease:
        return pending_lease(f"pool-{number}", number, issuer="", subject="", connection_id=connection)

    opened = await asyncio.gather(*(ledger.open_pooled(coming(number), 3) for number in range(1, 11)))

    assert opened.count(True) == 3
    assert len(await ledger.pooled(100)) == 3
    assert await ledger.open_pooled(coming(50, "other"), 3), "another connection has its own pool"


async def test_new_devices_are_counted_by_connection_and_period(ledger: SqlLeases) -> None:
    for number, age in enumerate((10, 50, 100, 200, 400), 1):
        created_at = NOW - timedelta(seconds=age)
        await open_lease(ledger, pending_lease(f"tab-{number}", number, created_at=created_at))
    await open_lease(ledger, pending_lease("tab", 50, connection_id="other"))
    await ledger.open_pooled(pending_lease("pool", 60, issuer="", subject=""), 1)
    times = NOW - timedelta(minutes=1), NOW - timedelta(minutes=5)

    assert await ledger.new_devices("77", *times) == NewDevices(2, 4)
    assert await ledger.new_devices("none", *times) == NewDevices(0, 0)


async def test_ledger_with_pooled_leases_only_is_empty(ledger: SqlLeases) -> None:
    await ledger.open_pooled(pending_lease("pool", issuer="", subject=""), 1)
    assert await ledger.is_empty()
    await open_lease(ledger, pending_lease("tab", 2))
    assert not await ledger.is_empty()


async def test_pooled_lease_that_is_too_new_or_of_another_connection_is_not_claimed(ledger: SqlLeases) -> None:
    cases: list[dict[str, Any]] = [{"connection_id": "other"}, {}, {"expires_at": NOW}]
    for number, changes in enumerate(cases):
        coming = pending_lease(f"pool-{number}", number + 1, issuer="", subject="", **changes)
        await ledger.open_pooled(coming, 10)
        usable_at = NOW + timedelta(seconds=1) if number == 1 else NOW
        await ledger.advance(coming, coming.mark_pooled(credential(number), NOW, usable_at))

    assert (await open_lease(ledger, pending_lease("tab", 100))).credential_id is None
    assert len(await ledger.pooled(10)) == 3


async def run_every_push_statement(push: SqlPush) -> None:
    """Run every statement on push credentials once."""
    objects = [
        PushObject(f"{n}" * 64, PushType.IOS, f"alias-{n}", PushState.PENDING, 1, "app", "f", NOW, NOW, NOW)
        for n in (1, 2)
    ]
    for number, new in enumerate(objects):
        await push.open_object(new)
        objects[number] = await push.advance_object(new, new.activate(f"c{number}", NOW))
    first = PushRegistration("r1", ALICE.issuer, ALICE.subject, "a", objects[0].fingerprint, NOW, NOW)
    await push.register(first, 9)
    await push.registered(ALICE, "r1")
    await push.registered_as(ALICE, "a")
    await push.registered_anywhere("r1")
    await push.registrations(ALICE)
    await push.object_of_credential("c0")
    await push.holders_of(first.fingerprint)
    await push.set_attached("77", PushType.IOS, first.fingerprint)
    await push.connections_of(first.fingerprint)
    moved = replace(first, fingerprint=objects[1].fingerprint)
    await push.reregister(first, moved)
    await push.note_warning(objects[0], 30)
    await push.expiring_objects(10)
    await push.unwanted_objects(NOW, NOW, 10)
    await push.deregister(moved, NOW)
    with pytest.raises(PushConflict):
        await push.retire_object(objects[0], objects[0].start_deleting(NOW))
    await push.set_attached("77", PushType.IOS, None)
    await push.drop_object(await push.retire_object(objects[0], objects[0].start_deleting(NOW)))


async def test_lease_queries_use_indexes(ledger: SqlLeases, database: str, request: pytest.FixtureRequest) -> None:
    """Asserted on SQLite, whose planner needs no statistics. PostgreSQL scans small tables."""
    if not database.startswith("sqlite"):
        return
    plans: list[str] = []
    engine = open_engine(database_url(database))

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
            plans.extend(row[3] for row in cursor.fetchall())

    # On the class, because the ledger's threads have engines of their own.
    sa.event.listen(sa.Engine, "before_cursor_execute", explain)
    request.addfinalizer(lambda: sa.event.remove(sa.Engine, "before_cursor_execute", explain))
    watched = SqlLeases(Database(engine))
    lease = pending_lease()
    await open_lease(watched, lease)
    await watched.live_lease(ALICE, "laptop")
    await watched.find(lease.id)
    await watched.unfinished(ALICE)
    await watched.page(ALICE, (NOW, lease.id), 10)
    await run_every_push_statement(SqlPush(Database(engine)))
    notices = SqlNotBefore(Database(engine))
    await notices.not_before_since(NOW)
    for number, (subject, session) in enumerate([("bob", None), ("bob", "s-1"), (None, "s-1")]):
        await notices.log_out(LogoutClaims(LEASE.issuer, f"{number}", NOW, NOW, subject, session), NOW)
    await watched.advance(lease, lease.mark_failed(NOW))
    sweeping = SqlSweep(Database(engine))
    await sweeping.take_due(NOW, NOW, 10, lambda found: found)
    await sweeping.backlog(8)
    await sweeping.irrevocable(8, 10)
    await sweeping.delete_ended(NOW + timedelta(hours=1), 10)
    await watched.pooled(10)
    await watched.changed_since(NOW)
    await engine.dispose()

    assert len(plans) >= 60
    # The indexes that are read completely hold only pooled leases and pending deletions. A constant row is a SELECT
    # without a table.
    small = {
        "SCAN leases USING INDEX leases_of_nobody",
        "SCAN leases USING INDEX leftover_or_lost_by_retry",
        "SCAN CONSTANT ROW",
    }
    assert {plan for plan in plans if plan.startswith("SCAN")} <= small


# -- failures ---------------------------------------------------------------------------------------------------


async def test_missing_database_is_reported_as_unavailable_without_its_address() -> None:
    for url in ("sqlite:////nonexistent/folder/ledger.db", "postgresql://user:hunter2@127.0.0.1:1/none"):
        engine = open_engine(database_url(url))

        with pytest.raises(LedgerUnavailable) as trouble:
            await SqlLeases(Database(engine)).find("x")

        assert "hunter2" not in str(trouble.value)
        await engine.dispose()


async def test_error_messages_contain_no_values(ledger: SqlLeases) -> None:
    await open_lease(ledger, pending_lease())

    with pytest.raises(LeaseExists) as taken:
        await open_lease(ledger, pending_lease("phone", number=1, label="a private label"))
    with pytest.raises(LedgerUnavailable) as trouble:
        await open_lease(ledger, pending_lease("phone", number=3, label="a private label", platform=None))

    assert "a private label" not in f"{taken.value} {trouble.value}"
