"""What time or a crash left behind is cleaned up, and nothing else is touched."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from app.sandbox.account import DEMO_CONNECTION
from app.vending.at_hand import Login, LoginsAtHand
from app.vending.errors import DialtoneError
from app.vending.leases import Lease, State
from app.vending.marks import Mark, Marks, Target
from app.vending.nouns import IssueRequest
from app.vending.revoking import LAST_RETRY
from app.vending.sweeping import STALE_PENDING, Swept
from app.vending.watching import KeyRefresh, Watch
from app.wiring import Parts
from tests.stage import DAY, Telnyx, joined, principal
from tests.vending.test_rules import LEASE

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


async def test_the_watch_hears_of_every_logout_however_many_there_are() -> None:
    """The ledger tells of a part at a time."""
    now = datetime.now(UTC)
    ended = [replace(LEASE, id=f"{n}", device_id=f"tab-{n}", updated_at=now + timedelta(seconds=n)) for n in range(25)]
    at_hand = LoginsAtHand(capacity=100)
    for lease in ended:
        at_hand.keep(Login(lease, now, now, now))

    class Told:
        async def ended_since(self, moment: datetime) -> list[Lease]:
            return [lease for lease in ended if lease.updated_at >= moment][:10]

        async def marks_since(self, moment: datetime) -> list[Mark]:
            return [mark for mark in made if mark.made_at >= moment][:10]

        async def key_refreshes_since(self, moment: datetime) -> list[KeyRefresh]:
            return []

        async def refresh(self, issuer: str) -> bool:
            raise AssertionError(issuer)

    told = Told()
    made = [Mark(Target(f"{n}"), now, now + timedelta(seconds=n)) for n in range(25)]
    marks = Marks(cast("Any", told), lambda: now)
    await Watch(told, told, at_hand, marks, told.refresh, lambda: now).look()

    assert len(at_hand) == 0
    assert len(marks) == 25


async def test_two_replicas_do_not_sweep_the_same_row(telnyx: Telnyx, database: str) -> None:
    async with joined(telnyx, database) as here, joined(telnyx, database) as there:
        for number in range(10):
            await here.issuer.issue(ALICE, IssueRequest(f"tab-{number}"))
        telnyx.clock.advance(2 * DAY)

        first, second = await here.sweeper.sweep(), await there.sweeper.sweep()

        assert first.gone + second.gone == 10
        assert len(telnyx.calls("DELETE")) == 10
