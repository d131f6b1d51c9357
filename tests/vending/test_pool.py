"""The pool: a new device logs in at once, and nothing is lost on the way from nobody's to somebody's."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.composition.components import Components
from app.sandbox.account import DEMO_CONNECTION
from app.vending.errors import DialtoneError
from app.vending.models import IssueRequest
from app.vending.telephony.lease import State
from app.vending.upkeep.sweeper import STALE_PENDING
from app.vending.upkeep.warm_pool import LEAST_LEFT, LIFE
from tests.stage import DAY, Telnyx, eventually, joined, principal

ALICE, LAPTOP = principal("alice"), IssueRequest("laptop")
PATCH = {"method": "PATCH", "path": "telephony_credentials"}


@pytest.fixture
async def components(telnyx: Telnyx, database: str) -> AsyncIterator[Components]:
    async with joined(telnyx, database, pool_size=3) as components:
        await eventually(lambda: components.upkeep.warm_pool.ready == {DEMO_CONNECTION: 3})
        telnyx.clock.advance(timedelta(seconds=6))
        yield components


async def test_a_new_device_gets_a_credential_that_is_old_enough(components: Components, telnyx: Telnyx) -> None:
    made = set(telnyx.sandbox.account.credentials)

    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    lease = login.lease
    assert login.is_new
    assert lease.usable_at <= telnyx.clock(), "it works at once"
    assert lease.credential_id in made, "nothing was made for it"
    held = telnyx.sandbox.account.credentials[str(lease.credential_id)]
    assert held.name == lease.credential_name, "it is found by its name as any other"
    assert held.expires_at == lease.expires_at
    assert abs(lease.expires_at - telnyx.clock() - DAY) < timedelta(seconds=2), "its owner's lifetime, not the pool's"
    assert (await components.telephony.issuer.issue(ALICE, LAPTOP)).lease == lease


async def test_two_users_never_get_the_same_one_and_tags_are_their_own(components: Components, telnyx: Telnyx) -> None:
    logins = await asyncio.gather(
        *(components.telephony.issuer.issue(principal(f"user-{n}"), LAPTOP) for n in range(8))
    )

    assert len({login.lease.sip_username for login in logins}) == 8
    tags = {telnyx.sandbox.account.credentials[str(login.lease.credential_id)].tag for login in logins}
    assert len(tags) == 8


async def test_what_was_taken_is_made_anew(components: Components, telnyx: Telnyx) -> None:
    await components.telephony.issuer.issue(ALICE, LAPTOP)

    await eventually(lambda: len(telnyx.live()) == 4)


async def test_fifty_new_devices_in_a_row_wait_for_nobody_while_the_pool_keeps_up(telnyx: Telnyx, sqlite: str) -> None:
    async with joined(telnyx, sqlite, pool_size=50) as components:
        await eventually(lambda: components.upkeep.warm_pool.ready.get(DEMO_CONNECTION, 0) >= 10)
        for _ in range(6):
            await components.upkeep.warm_pool.tend()
        telnyx.clock.advance(timedelta(seconds=6))

        logins = [await components.telephony.issuer.issue(ALICE, IssueRequest(f"tab-{n}")) for n in range(10)]
        logins += [await components.telephony.issuer.issue(principal(f"user-{n}"), LAPTOP) for n in range(40)]

        assert all(login.lease.usable_at <= telnyx.clock() for login in logins)
        assert len({login.lease.credential_id for login in logins}) == 50


async def test_a_pooled_credential_that_telnyx_lost_is_passed_over(components: Components, telnyx: Telnyx) -> None:
    telnyx.sandbox.account.credentials.clear()

    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert login.lease.credential_id in telnyx.live()


@pytest.mark.parametrize("kind", ["hang", "drop", "garbage", "status"])
async def test_a_hand_over_whose_answer_is_lost_is_finished_by_the_next_request(
    components: Components, telnyx: Telnyx, kind: str
) -> None:
    telnyx.fail(kind, **PATCH, after_commit=True, **({"status": 500} if kind == "status" else {}))

    with pytest.raises(DialtoneError):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    # One of the three is Alice's, another was made in its place.
    assert login.lease.credential_id in telnyx.live()
    await eventually(lambda: len(telnyx.live()) == 4)
    named = [item.name for item in telnyx.sandbox.account.credentials.values()]
    assert named.count(login.lease.credential_name) == 1


async def test_a_create_for_the_pool_whose_answer_is_lost_leaves_nothing(telnyx: Telnyx, database: str) -> None:
    telnyx.fail("drop", method="POST", path="telephony_credentials$", after_commit=True)
    async with joined(telnyx, database, pool_size=2) as components:
        await eventually(lambda: len(telnyx.live()) >= 1)
        for _ in range(3):
            telnyx.clock.advance(STALE_PENDING)
            await components.upkeep.sweeper.sweep()
            await components.upkeep.warm_pool.tend()

        assert len(telnyx.live()) == 2
        assert len(await _pooled(components)) == 2


async def test_what_gets_old_in_the_pool_is_given_up_and_deleted(components: Components, telnyx: Telnyx) -> None:
    old = set(telnyx.live())
    telnyx.clock.advance(LIFE - LEAST_LEFT + timedelta(minutes=1))

    await components.upkeep.warm_pool.tend()
    await components.upkeep.sweeper.sweep()

    assert not old & set(telnyx.live())
    assert len(telnyx.live()) == 3


async def test_a_smaller_pool_gives_up_the_surplus_and_none_gives_up_all(telnyx: Telnyx, database: str) -> None:
    for size in (4, 2, 0):
        async with joined(telnyx, database, pool_size=size) as components:
            await components.upkeep.warm_pool.tend()
            await components.upkeep.sweeper.sweep()
            assert len(telnyx.live()) == size


async def test_users_do_not_see_the_pool(components: Components) -> None:
    assert await components.telephony.devices.page(ALICE, None, 100) == []


async def test_while_telnyx_is_away_the_pool_asks_seldom_and_users_are_told_so(
    components: Components, telnyx: Telnyx
) -> None:
    telnyx.fail("status", status=503, times=10_000)
    before = len(telnyx.calls())
    for _ in range(20):
        with pytest.raises(DialtoneError):
            await components.upkeep.warm_pool.tend() if (
                await _pooled(components)
            ) == [] else await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert len(telnyx.calls()) - before < 30


async def _pooled(components: Components) -> list[State]:
    return [
        lease.state for lease in await components.upkeep.warm_pool._ledger.pooled(100) if lease.state is State.POOLED
    ]
