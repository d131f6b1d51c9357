"""Two replicas with one ledger: a change of a lease at one applies at the other within two seconds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token
from tests.support.waiting import DAY, HOUR, LoopClock

BOUND_SECONDS = 2.0
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)

Pair = tuple[Service, Service]


@pytest.fixture
async def replicas(telnyx: Telnyx, database: str) -> AsyncIterator[Pair]:
    async with running_service(telnyx, database) as here, running_service(telnyx, database) as there:
        yield here, there


async def cached_at_both(here: Service, there: Service, **wishes: Any) -> str:
    """A device whose login both replicas return from their fast path. Returns the id of its lease."""
    lease_id: str = (await here.issue(**wishes)).json()["id"]
    for service in (here, there):
        await service.issue(**wishes)
        before = service.app.requests
        if not wishes:
            assert (await service.issue()).status_code == 200
            assert service.app.requests == before, "the fast path answered"
    return lease_id


async def issue_until(service: Service, is_right: Callable[[dict[str, Any]], bool], **wishes: Any) -> dict[str, Any]:
    """Request logins until one is right. It has to be within the bound, and all later ones have to be right too."""
    async with LoopClock() as clock:
        while not is_right((await service.issue(**wishes)).json()):
            assert clock.seconds < BOUND_SECONDS
            await asyncio.sleep(0.02)
    for _ in range(3):
        body: dict[str, Any] = (await service.issue(**wishes)).json()
        assert is_right(body)
    return body


def ends_within(telnyx: Telnyx, limit: timedelta) -> Callable[[dict[str, Any]], bool]:
    return lambda body: moment(body["expires_at"]) <= telnyx.clock() + limit


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def assert_expires_no_later_than_at_telnyx(telnyx: Telnyx, answer: httpx.Response) -> None:
    (credential,) = telnyx.sandbox.account.credentials.values()
    assert answer.status_code == 200, answer.text
    assert credential.expires_at is not None
    assert moment(answer.json()["expires_at"]) <= credential.expires_at


async def test_shortened_lifetime_applies_to_the_other_replica(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there)

    assert (await here.ask("PATCH", f"/{lease_id}", json={"ttl_seconds": 60})).status_code == 200

    await issue_until(there, ends_within(telnyx, MINUTE))
    await issue_until(here, ends_within(telnyx, MINUTE))


async def test_request_for_a_shorter_lifetime_applies_to_the_other_replica(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    await cached_at_both(here, there)

    assert (await here.issue(ttl_seconds=300)).status_code == 200

    await issue_until(there, ends_within(telnyx, 5 * MINUTE))


async def test_other_platform_with_a_shorter_lifetime_applies_to_the_other_replica(
    replicas: Pair, telnyx: Telnyx
) -> None:
    here, there = replicas
    await cached_at_both(here, there, platform="ios")

    assert (await here.issue()).status_code == 200

    await issue_until(there, ends_within(telnyx, DAY))


async def test_request_for_the_former_lifetime_is_decided_by_the_ledger(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there)
    await here.ask("PATCH", f"/{lease_id}", json={"ttl_seconds": 60})

    answer = await there.issue(ttl_seconds=86_400)

    assert moment(answer.json()["expires_at"]) > telnyx.clock() + DAY - MINUTE
    assert_expires_no_later_than_at_telnyx(telnyx, answer)


async def test_request_for_the_former_label_is_decided_by_the_ledger(replicas: Pair) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there, label="Laptop")
    await here.ask("PATCH", f"/{lease_id}", json={"label": "Desk"})

    assert (await there.issue(label="Laptop")).status_code == 200

    assert (await here.ask("GET", f"/{lease_id}")).json()["label"] == "Laptop"


@pytest.mark.parametrize("wishes", [{"label": "Desk"}, {"ttl_seconds": 3600}, {"platform": "ios"}], ids=str)
async def test_repeated_request_with_terms_of_its_own_needs_no_call_to_telnyx(
    service: Service, wishes: dict[str, Any]
) -> None:
    first = (await service.issue(**wishes)).json()
    calls = len(service.telnyx.calls())

    again = await service.issue(**wishes)

    assert again.json()["login_token"] == first["login_token"]
    assert len(service.telnyx.calls()) == calls
    assert service.components.telephony.login_cache.hits == 1


async def test_request_for_the_former_platform_is_decided_by_the_ledger(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there, platform="ios")
    await here.issue(platform="browser")

    answer = await there.issue(platform="ios")

    assert_expires_no_later_than_at_telnyx(telnyx, answer)
    assert (await here.ask("GET", f"/{lease_id}")).json()["platform"] == "ios"


async def test_rename_does_not_lose_the_device_at_the_other_replica(replicas: Pair) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there)

    await here.ask("PATCH", f"/{lease_id}", json={"label": "Desk"})

    body = await issue_until(there, lambda body: body["id"] == lease_id)
    assert (await there.ask("GET", f"/{lease_id}")).json()["label"] == "Desk"
    assert (await here.issue()).json()["sip_username"] == body["sip_username"]


async def test_renewal_applies_to_the_other_replica(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    headers = {"Authorization": f"Bearer {token('alice', exp=4_000_000_000)}"}

    async def expiry(service: Service) -> datetime:
        return moment((await service.ask("POST", headers=headers, json={"device_id": "laptop"})).json()["expires_at"])

    first = await expiry(there)
    telnyx.clock.advance(DAY / 2)
    assert await expiry(there) == first

    renewed = await expiry(here)

    assert renewed > first + HOUR
    async with LoopClock() as clock:
        while await expiry(there) != renewed:
            assert clock.seconds < BOUND_SECONDS
            await asyncio.sleep(0.02)
    assert await expiry(there) == renewed


async def test_replaced_identity_applies_to_the_other_replica(replicas: Pair) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there)
    await here.ask("DELETE", f"/{lease_id}")

    new = (await here.issue()).json()

    await issue_until(there, lambda body: body["sip_username"] == new["sip_username"])


async def test_mint_in_flight_does_not_return_or_cache_the_former_terms(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    lease_id = (await here.issue()).json()["id"]
    async with telnyx.held("POST", "/token$", after_commit=True) as mint:
        minting = asyncio.create_task(there.issue())
        await mint.arrived.wait()

        await here.ask("PATCH", f"/{lease_id}", json={"ttl_seconds": 60})
        await there.components.upkeep.change_poller.poll()  # it does so at least every 1.25 seconds

    assert ends_within(telnyx, MINUTE)((await minting).json())
    assert ends_within(telnyx, MINUTE)((await there.issue()).json())


async def test_login_during_an_outage_expires_no_later_than_at_telnyx(replicas: Pair, telnyx: Telnyx) -> None:
    here, there = replicas
    lease_id = await cached_at_both(here, there)
    await here.ask("PATCH", f"/{lease_id}", json={"ttl_seconds": 60})
    await issue_until(there, ends_within(telnyx, MINUTE))
    telnyx.fail("status", status=503, times=1000)
    telnyx.clock.advance(15 * SECOND)

    for service in replicas:
        assert_expires_no_later_than_at_telnyx(telnyx, await service.issue())
