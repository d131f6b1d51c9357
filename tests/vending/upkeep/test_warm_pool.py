"""The warm pool: new devices get a credential at once, and a failed claim loses nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from app.composition.components import Components
from app.sandbox.account import DEMO_CONNECTION
from app.vending.errors import DialtoneError
from app.vending.models import IssueRequest
from app.vending.telephony.lease import LeaseState
from app.vending.upkeep.sweeper import STALE_PENDING
from app.vending.upkeep.warm_pool import MAX_PAUSE, MIN_REMAINING, POOLED_LIFETIME, SURPLUS_KEPT, TARGETS_KEPT
from app.vending.upkeep.warm_pool_size import MIN_READY
from tests.support.leases import read_leases
from tests.support.sandbox import Telnyx
from tests.support.service import idle_components, running_components
from tests.support.tokens import principal
from tests.support.waiting import DAY, eventually

ALICE, LAPTOP = principal("alice"), IssueRequest("laptop")
PATCH = {"method": "PATCH", "path": "telephony_credentials"}


@pytest.fixture
async def components(telnyx: Telnyx, database: str) -> AsyncIterator[Components]:
    async with running_components(telnyx, database, warm_pool_size=3) as components:
        await eventually(lambda: components.upkeep.warm_pool.ready == {DEMO_CONNECTION: 3})
        telnyx.clock.advance(timedelta(seconds=6))
        yield components


async def test_new_device_gets_a_propagated_credential(components: Components, telnyx: Telnyx) -> None:
    made = set(telnyx.sandbox.account.credentials)

    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    lease = login.lease
    assert login.is_new
    assert lease.usable_at <= telnyx.clock(), "it works at once"
    assert lease.credential_id in made, "no credential was created for it"
    held = telnyx.sandbox.account.credentials[str(lease.credential_id)]
    assert held.name == lease.credential_name, "its name leads back to the lease"
    assert held.expires_at == lease.expires_at
    assert abs(lease.expires_at - telnyx.clock() - DAY) < timedelta(minutes=1), "the user's lifetime, not the pool's"
    assert (await components.telephony.issuer.issue(ALICE, LAPTOP)).lease == lease


async def test_users_get_different_credentials_with_their_own_tags(components: Components, telnyx: Telnyx) -> None:
    logins = await asyncio.gather(
        *(components.telephony.issuer.issue(principal(f"user-{n}"), LAPTOP) for n in range(8))
    )

    assert len({login.lease.sip_username for login in logins}) == 8
    tags = {telnyx.sandbox.account.credentials[str(login.lease.credential_id)].tag for login in logins}
    assert len(tags) == 8


async def test_claimed_credential_is_replaced(components: Components, telnyx: Telnyx) -> None:
    await components.telephony.issuer.issue(ALICE, LAPTOP)

    await eventually(lambda: len(telnyx.live()) == 4)


async def test_fifty_new_devices_get_pooled_credentials_without_a_delay(telnyx: Telnyx, sqlite: str) -> None:
    async with running_components(telnyx, sqlite, warm_pool_size=50) as components:
        await eventually(lambda: components.upkeep.warm_pool.ready.get(DEMO_CONNECTION, 0) >= 10)
        for _ in range(6):
            await components.upkeep.warm_pool.refill()
        telnyx.clock.advance(timedelta(seconds=6))

        logins = [await components.telephony.issuer.issue(ALICE, IssueRequest(f"tab-{n}")) for n in range(10)]
        logins += [await components.telephony.issuer.issue(principal(f"user-{n}"), LAPTOP) for n in range(40)]

        assert all(login.lease.usable_at <= telnyx.clock() for login in logins)
        assert len({login.lease.credential_id for login in logins}) == 50


async def test_missing_pooled_credential_is_skipped(components: Components, telnyx: Telnyx) -> None:
    telnyx.sandbox.account.credentials.clear()

    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert login.lease.credential_id in telnyx.live()


@pytest.mark.parametrize("kind", ["hang", "drop", "garbage", "status"])
async def test_claim_without_a_response_is_finished_by_the_next_request(
    components: Components, telnyx: Telnyx, kind: str
) -> None:
    telnyx.fail(kind, **PATCH, after_commit=True, **({"status": 500} if kind == "status" else {}))

    with pytest.raises(DialtoneError):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    # One of the three was claimed by Alice, and another was created in its place.
    assert login.lease.credential_id in telnyx.live()
    await eventually(lambda: len(telnyx.live()) == 4)
    named = [item.name for item in telnyx.sandbox.account.credentials.values()]
    assert named.count(login.lease.credential_name) == 1


async def test_pool_create_without_a_response_leaves_nothing(telnyx: Telnyx, database: str) -> None:
    telnyx.fail("drop", method="POST", path="telephony_credentials$", after_commit=True)
    async with running_components(telnyx, database, warm_pool_size=2) as components:
        await eventually(lambda: len(telnyx.live()) >= 1)
        for _ in range(3):
            telnyx.clock.advance(STALE_PENDING)
            await components.upkeep.sweeper.sweep()
            await components.upkeep.warm_pool.refill()

        await eventually(lambda: len(telnyx.live()) == 2)
        assert len(await pooled_leases(database)) == 2


async def test_old_pooled_credentials_are_deleted(components: Components, telnyx: Telnyx) -> None:
    old = set(telnyx.live())
    telnyx.clock.advance(POOLED_LIFETIME - MIN_REMAINING + timedelta(minutes=1))

    await components.upkeep.warm_pool.refill()
    await components.upkeep.sweeper.sweep()

    await eventually(lambda: not old & set(telnyx.live()))
    assert len(telnyx.live()) == 3


async def test_smaller_pool_deletes_the_surplus(telnyx: Telnyx, database: str) -> None:
    for size in (4, 2, 0):
        async with idle_components(telnyx, database, warm_pool_size=size) as components:
            await components.upkeep.warm_pool.refill()
            await components.upkeep.sweeper.sweep()
            assert len(telnyx.live()) == size


async def test_pool_has_a_few_credentials_by_default(telnyx: Telnyx, database: str) -> None:
    async with running_components(telnyx, database, warm_pool_size=...) as components:
        await eventually(lambda: components.upkeep.warm_pool.ready == {DEMO_CONNECTION: MIN_READY})
        telnyx.clock.advance(timedelta(seconds=6))

        login = await components.telephony.issuer.issue(ALICE, LAPTOP)

        assert login.lease.usable_at <= telnyx.clock(), "it works at once"
        assert components.operators.service_status().warm_pool_target == {DEMO_CONNECTION: MIN_READY}


async def test_default_pool_grows_with_new_devices_and_shrinks_after_an_hour(telnyx: Telnyx, sqlite: str) -> None:
    async with idle_components(telnyx, sqlite, warm_pool_size=...) as components:
        pool = components.upkeep.warm_pool
        for number in range(30):
            await components.telephony.issuer.issue(principal(f"user-{number}"), LAPTOP)
        telnyx.clock.advance(TARGETS_KEPT)
        for _ in range(3):
            await pool.refill()
        grown = dict(pool.targets), len(await pooled_leases(sqlite))
        telnyx.clock.advance(timedelta(minutes=10))
        await pool.refill()
        kept = dict(pool.targets), len(await pooled_leases(sqlite))
        telnyx.clock.advance(SURPLUS_KEPT)
        await pool.refill()

        assert grown == ({DEMO_CONNECTION: 17}, 17)
        assert kept == ({DEMO_CONNECTION: MIN_READY}, 17)
        assert len(await pooled_leases(sqlite)) == MIN_READY


async def test_two_replicas_create_the_pool_once(telnyx: Telnyx, database: str) -> None:
    async with (
        running_components(telnyx, database, warm_pool_size=8) as one,
        running_components(telnyx, database, warm_pool_size=8) as two,
    ):
        await asyncio.gather(*(each.upkeep.warm_pool.refill() for each in (one, two) for _ in range(2)))
        await eventually(lambda: len(telnyx.live()) == 8)

    assert telnyx.created() == 8


async def test_rejected_creates_are_tried_less_and_less_often(telnyx: Telnyx, sqlite: str) -> None:
    telnyx.fail("status", status=422, method="POST", path="telephony_credentials$", times=10_000)
    async with running_components(telnyx, sqlite, warm_pool_size=...) as components:
        await eventually(lambda: telnyx.calls("POST"))
        for _ in range(360):
            telnyx.clock.advance(timedelta(seconds=10))
            with suppress(DialtoneError):
                await components.upkeep.warm_pool.refill()
        tried = len(telnyx.calls("POST"))
        telnyx.sandbox.faults.plans.clear()
        telnyx.clock.advance(MAX_PAUSE)
        await components.upkeep.warm_pool.refill()

    assert tried < 20, "in an hour"
    assert len(await pooled_leases(sqlite)) == MIN_READY


async def test_pooled_credentials_are_not_listed_as_devices(components: Components) -> None:
    assert await components.telephony.devices.list(ALICE, None, 100) == []


async def test_telnyx_outage_causes_few_pool_calls_and_an_error_to_users(
    components: Components, telnyx: Telnyx, database: str
) -> None:
    telnyx.fail("status", status=503, times=10_000)
    before = len(telnyx.calls())
    for _ in range(20):
        with pytest.raises(DialtoneError):
            await components.upkeep.warm_pool.refill() if (
                await pooled_leases(database)
            ) == [] else await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert len(telnyx.calls()) - before < 30


async def pooled_leases(database: str) -> list[str]:
    """Ids of the leases in the pool."""
    return [lease.id for lease in (await read_leases(database)).values() if lease.state is LeaseState.POOLED]
