"""The sweeper deletes expired and abandoned credentials, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.pg_listener import PgListener
from app.composition.components import Components
from app.sandbox.account import DEMO_CONNECTION
from app.vending.audit import Decision
from app.vending.errors import DialtoneError, LedgerUnavailable
from app.vending.models import IssueRequest
from app.vending.not_before import NotBefore, NotBeforeRegistry, NotBeforeTarget
from app.vending.telephony.lease import Lease, LeaseState, LeaseVersion
from app.vending.telephony.login_cache import Login, LoginCache
from app.vending.telephony.revoke import MAX_RETRY_DELAY, DeletionOutcome
from app.vending.upkeep.change_feed import ChangePoller, KeyRefresh
from app.vending.upkeep.erased_users import CachedUsers, ErasureNotice
from app.vending.upkeep.sweeper import IRREVOCABLE_ATTEMPTS, STALE_PENDING, Backlog, Sweeper, SweepResult
from tests.support.leases import LEASE
from tests.support.sandbox import Telnyx
from tests.support.service import idle_components, running_components
from tests.support.tokens import principal
from tests.support.waiting import DAY, LoopClock, eventually

ALICE = principal("alice")
LAPTOP = IssueRequest("laptop")


@pytest.fixture
async def components(telnyx: Telnyx, database: str) -> AsyncIterator[Components]:
    async with idle_components(telnyx, database) as components:
        yield components


async def test_expired_credential_is_deleted_at_telnyx(components: Components, telnyx: Telnyx) -> None:
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.clock.advance(2 * DAY)

    swept = await components.upkeep.sweeper.sweep()

    assert swept == SweepResult(taken=1, deleted=1)
    assert telnyx.sandbox.account.credentials == {}
    assert (await components.telephony.devices.get(ALICE, login.lease.id)).state is LeaseState.DELETED


async def test_live_and_foreign_credentials_are_left_alone(components: Components, telnyx: Telnyx) -> None:
    await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION, "name": "foreign"})

    swept = await components.upkeep.sweeper.sweep()

    assert swept == SweepResult()
    assert len(telnyx.live()) == 2


async def test_failed_deletion_is_retried_with_backoff(components: Components, telnyx: Telnyx) -> None:
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    assert not await components.telephony.revoker.revoke(ALICE, login.lease.id)

    at_once = await components.upkeep.sweeper.sweep()
    telnyx.clock.advance(timedelta(seconds=6))
    later = await components.upkeep.sweeper.sweep()
    telnyx.sandbox.faults.plans.clear()
    telnyx.clock.advance(MAX_RETRY_DELAY)
    healed = await components.upkeep.sweeper.sweep()

    assert (at_once, later, healed) == (SweepResult(0, 0), SweepResult(1, 0), SweepResult(1, 1))
    assert telnyx.live() == []


async def test_abandoned_create_is_undone(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("drop", method="POST", path="telephony_credentials$", after_commit=True)
    telnyx.fail("status", method="GET", path="telephony_credentials$", status=503, times=3)
    with pytest.raises(DialtoneError):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    assert len(telnyx.live()) == 1

    telnyx.clock.advance(STALE_PENDING * 1.1)
    swept = await components.upkeep.sweeper.sweep()

    assert swept == SweepResult(taken=1, deleted=1)
    assert telnyx.live() == []


async def test_change_poller_reads_every_logout() -> None:
    """The ledger returns changed leases in batches."""
    now = datetime.now(UTC)
    leases = [replace(LEASE, id=f"{n}", device_id=f"tab-{n}") for n in range(25)]
    ended = [lease.start_revoking(now + timedelta(seconds=n)) for n, lease in enumerate(leases)]
    cache = LoginCache(capacity=100)
    for lease in leases:
        cache.put(Login(lease, now, now, now))

    class BatchLedger:
        async def changed_since(self, moment: datetime) -> list[LeaseVersion]:
            return [version_of(lease) for lease in ended if lease.updated_at >= moment][:10]

        async def not_before_since(self, moment: datetime) -> list[NotBefore]:
            return [mark for mark in made if mark.made_at >= moment][:10]

        async def key_refreshes_since(self, moment: datetime) -> list[KeyRefresh]:
            return []

        async def refresh(self, issuer: str) -> bool:
            raise AssertionError(issuer)

        async def erasures_since(self, moment: datetime) -> list[ErasureNotice]:
            return []

    ledger = BatchLedger()
    made = [NotBefore(NotBeforeTarget(f"{n}"), now, now + timedelta(seconds=n)) for n in range(25)]
    marks = NotBeforeRegistry(cast("Any", ledger), lambda: now)
    await ChangePoller(
        ledger, ledger, cache, marks, ledger.refresh, ledger, CachedUsers((), lambda _: ()), lambda: now
    ).poll()

    assert len(cache) == 0
    assert len(marks) == 25


async def test_issuer_that_does_not_respond_delays_no_poll_and_no_other_issuer() -> None:
    now = datetime.now(UTC)
    begun: list[str] = []

    class Ledger:
        async def changed_since(self, _: datetime) -> list[LeaseVersion]:
            return []

        async def not_before_since(self, _: datetime) -> list[NotBefore]:
            return []

        async def key_refreshes_since(self, _: datetime) -> list[KeyRefresh]:
            return [KeyRefresh(issuer, now) for issuer in ("first", "second")]

        async def erasures_since(self, _: datetime) -> list[ErasureNotice]:
            return []

        async def refresh(self, issuer: str) -> bool:
            begun.append(issuer)
            await asyncio.Event().wait()
            return True

    ledger = Ledger()
    marks = NotBeforeRegistry(cast("Any", ledger), lambda: now)
    poller = ChangePoller(
        ledger, ledger, LoginCache(1), marks, ledger.refresh, ledger, CachedUsers((), lambda _: ()), lambda: now
    )

    await poller.poll()
    await poller.poll()

    await eventually(lambda: begun)
    assert begun == ["first", "second"]


def version_of(lease: Lease) -> LeaseVersion:
    return LeaseVersion(**{field.name: getattr(lease, field.name) for field in fields(LeaseVersion)})


async def test_two_replicas_do_not_sweep_the_same_row(telnyx: Telnyx, database: str) -> None:
    async with idle_components(telnyx, database) as here, idle_components(telnyx, database) as there:
        for number in range(10):
            await here.telephony.issuer.issue(ALICE, IssueRequest(f"tab-{number}"))
        telnyx.clock.advance(2 * DAY)

        first, second = await asyncio.gather(here.upkeep.sweeper.sweep(), there.upkeep.sweeper.sweep())

        third = await here.upkeep.sweeper.sweep()  # one of the two concurrent sweeps may have found nothing to claim
        assert first.deleted + second.deleted + third.deleted == 10
        assert len(telnyx.calls("DELETE")) == 10


async def test_telnyx_outage_does_not_count_as_an_attempt(components: Components, telnyx: Telnyx) -> None:
    for number in range(8):
        await components.telephony.issuer.issue(principal(f"user-{number}"), LAPTOP)
    telnyx.clock.advance(2 * DAY)
    telnyx.fail("status", method="DELETE", status=429, headers={"retry-after": "1"}, times=1000)

    swept = await components.upkeep.sweeper.sweep()
    waiting = (components.upkeep.sweeper.backlog, await components.upkeep.sweeper.irrevocable())
    telnyx.sandbox.faults.plans.clear()
    telnyx.clock.advance(timedelta(seconds=6))
    await asyncio.sleep(1.1)  # the Retry-After of Telnyx
    healed = await components.upkeep.sweeper.sweep()

    assert swept == SweepResult(taken=8)
    assert waiting[0].waiting == 8
    assert waiting[0].irrevocable == 0
    assert healed.deleted == 8
    assert components.upkeep.sweeper.backlog == Backlog()


async def test_irrevocable_lease_is_listed_and_measured(components: Components, telnyx: Telnyx) -> None:
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.fail("status", method="DELETE", status=403, times=1000)
    await components.telephony.revoker.revoke(ALICE, login.lease.id)
    for _ in range(IRREVOCABLE_ATTEMPTS):
        telnyx.clock.advance(MAX_RETRY_DELAY)
        await components.upkeep.sweeper.sweep()

    assert [lease.id for lease in await components.upkeep.sweeper.irrevocable()] == [login.lease.id]
    shown = (await components.metrics.exposition(""))[0].decode()
    assert "dialtone_sweeper_backlog 1.0" in shown
    assert "dialtone_irrevocable_leases 1.0" in shown


async def test_ended_lease_is_removed_after_the_retention(telnyx: Telnyx, database: str) -> None:
    async with idle_components(telnyx, database, retention_days=2) as components:
        login = await components.telephony.issuer.issue(ALICE, LAPTOP)
        await components.telephony.revoker.revoke(ALICE, login.lease.id)
        telnyx.clock.advance(DAY)
        kept = await components.upkeep.sweeper.sweep()
        telnyx.clock.advance(2 * DAY)

        assert (kept.purged, (await components.upkeep.sweeper.sweep()).purged) == (0, 1)


async def test_revocation_reaches_another_replica_at_once_on_postgresql(telnyx: Telnyx, postgres: str) -> None:
    """Most of ten times in half a second, although each replica polls every second only."""
    seconds = []
    async with running_components(telnyx, postgres) as here, running_components(telnyx, postgres) as there:
        for number in range(10):
            device = IssueRequest(f"tab-{number}")
            login = await there.telephony.issuer.issue(ALICE, device)
            assert there.telephony.issuer.cached_login(ALICE, device, telnyx.clock()) is not None

            await here.telephony.revoker.revoke(ALICE, login.lease.id)
            async with LoopClock() as clock:
                while there.telephony.issuer.cached_login(ALICE, device, telnyx.clock()) is not None:
                    await asyncio.sleep(0.01)
            seconds.append(clock.seconds)

    assert sorted(seconds)[7] < 0.5, seconds


async def test_pg_listener_reconnects_after_a_lost_connection(telnyx: Telnyx, postgres: str) -> None:
    heard: list[None] = []
    engine = open_engine(database_url(postgres))
    ear = PgListener(engine, lambda: heard.append(None))

    async def listen_until(count: int) -> None:
        """A check has a time limit, and a backend does not end at once."""
        while len(heard) < count:
            await ear.ensure_listening()

    await listen_until(1)
    assert len(heard) == 1, "changes during the disconnection are polled"
    others = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    async with create_async_engine(database_url(postgres), isolation_level="AUTOCOMMIT").connect() as operator:
        await operator.execute(others)
        await listen_until(2)  # a check detects the lost connection, and the next one listens again
        assert len(heard) == 2
        await operator.execute(sa.text("NOTIFY dialtone"))
        await eventually(lambda: len(heard) == 3)
    await ear.close()
    await engine.dispose()


class DueLedger:
    """A ledger with two leases that are due."""

    async def expire(self, *_: Any) -> list[Lease]:
        return []

    async def take_due(self, *_: Any) -> list[Lease]:
        return [replace(LEASE, id=name, state=LeaseState.REVOKING) for name in ("first", "second")]


class Deletions:
    """Deletes credentials. After the first deletion, the ledger is unavailable. Records decisions."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    async def delete_credential(self, lease: Lease) -> DeletionOutcome:
        if lease.id == "first":
            raise LedgerUnavailable
        return DeletionOutcome.CONFIRMED

    def record_nowait(self, decision: Decision) -> None:
        self.decisions.append(decision)


async def test_confirmed_deletion_is_recorded_although_another_one_failed() -> None:
    ledger, deletions = cast("Any", DueLedger()), cast("Any", Deletions())
    sweeper = Sweeper(ledger, ledger, deletions, LoginCache(1), deletions, lambda: datetime.now(UTC), DAY)

    with pytest.raises(LedgerUnavailable):
        await sweeper.sweep()

    assert [decision.lease_id for decision in deletions.decisions] == ["second"]
