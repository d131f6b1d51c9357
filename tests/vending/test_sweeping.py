"""What time or a crash left behind is cleaned up, and nothing else is touched."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.sandbox.account import DEMO_CONNECTION
from app.vending.errors import DialtoneError
from app.vending.leases import State
from app.vending.nouns import IssueRequest
from app.vending.revoking import LAST_RETRY
from app.vending.sweeping import STALE_PENDING, Swept
from app.wiring import Parts
from tests.stage import DAY, Telnyx, joined, principal

ALICE = principal("alice")
LAPTOP = IssueRequest("laptop")


@pytest.fixture
async def parts(telnyx: Telnyx, database: str) -> AsyncIterator[Parts]:
    async with joined(telnyx, database) as parts:
        yield parts


async def test_an_expired_credential_is_deleted_at_telnyx(parts: Parts, telnyx: Telnyx) -> None:
    login = await parts.issuer.issue(ALICE, LAPTOP)
    telnyx.clock.advance(2 * DAY)

    swept = await parts.sweeper.sweep()

    assert swept == Swept(taken=1, gone=1)
    assert telnyx.sandbox.account.credentials == {}
    assert (await parts.devices.show(ALICE, login.lease.id)).state is State.DELETED


async def test_a_live_credential_and_a_strangers_are_left_alone(parts: Parts, telnyx: Telnyx) -> None:
    await parts.issuer.issue(ALICE, LAPTOP)
    telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION, "name": "somebody else's"})

    swept = await parts.sweeper.sweep()

    assert swept == Swept()
    assert len(telnyx.live()) == 2


async def test_a_deletion_that_failed_is_tried_again_later_and_less_and_less_often(
    parts: Parts, telnyx: Telnyx
) -> None:
    login = await parts.issuer.issue(ALICE, LAPTOP)
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    assert not await parts.revoker.revoke(ALICE, login.lease.id)

    at_once = await parts.sweeper.sweep()
    telnyx.clock.advance(timedelta(seconds=6))
    later = await parts.sweeper.sweep()
    telnyx.sandbox.faults.plans.clear()
    telnyx.clock.advance(LAST_RETRY)
    healed = await parts.sweeper.sweep()

    assert (at_once, later, healed) == (Swept(0, 0), Swept(1, 0), Swept(1, 1))
    assert telnyx.live() == []


async def test_a_create_that_nobody_came_back_for_is_undone(parts: Parts, telnyx: Telnyx) -> None:
    telnyx.fail("drop", method="POST", path="telephony_credentials$", after_commit=True)
    telnyx.fail("status", method="GET", path="telephony_credentials$", status=503, times=3)
    with pytest.raises(DialtoneError):
        await parts.issuer.issue(ALICE, LAPTOP)
    assert len(telnyx.live()) == 1

    telnyx.clock.advance(STALE_PENDING * 1.1)
    swept = await parts.sweeper.sweep()

    assert swept == Swept(taken=1, gone=1)
    assert telnyx.live() == []


async def test_two_replicas_do_not_sweep_the_same_row(telnyx: Telnyx, database: str) -> None:
    async with joined(telnyx, database) as here, joined(telnyx, database) as there:
        for number in range(10):
            await here.issuer.issue(ALICE, IssueRequest(f"tab-{number}"))
        telnyx.clock.advance(2 * DAY)

        first, second = await here.sweeper.sweep(), await there.sweeper.sweep()

        assert first.gone + second.gone == 10
        assert len(telnyx.calls("DELETE")) == 10
