"""The device limit over HTTP, while creates fail, hang and run in parallel."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from app.sandbox.account import DEMO_CONNECTION
from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.telephony.lease import LIVE
from tests.support.admin_api import admin_request
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER
from tests.support.waiting import HOUR, eventually

CREATE: dict[str, Any] = {"method": "POST", "path": "telephony_credentials$"}
FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 503, "after_commit": True},
    {"kind": "status", "status": 429, "headers": {"x-ratelimit-reset": "1"}},
    {"kind": "drop"},
    {"kind": "drop", "after_commit": True},
    {"kind": "garbage", "body": "{"},
]


@pytest.mark.parametrize("action", ["reject", "evict_oldest", ...])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_failed_create_does_not_occupy_the_only_place(
    telnyx: Telnyx, sqlite: str, fault: dict[str, Any], action: Any
) -> None:
    async with running_service(telnyx, sqlite, max_devices=1, at_device_limit=action) as service:
        telnyx.fail(**CREATE, **fault)
        telnyx.fail("status", status=500, method="GET", times=4)  # the lost credential is not found at once either
        first = await service.issue("first")
        telnyx.sandbox.faults.plans.clear()

        second = await service.issue_with_retries("second")

        assert first.status_code == 503
        assert second.status_code == 201
        telnyx.clock.advance(timedelta(minutes=1))
        await service.components.upkeep.sweeper.sweep()
        assert len(telnyx.live()) == 1, "the credential of the failed create was found by its name and deleted"


async def second_device_while_a_create_is_held(
    service: Service, telnyx: Telnyx
) -> tuple[httpx.Response, httpx.Response]:
    """The responses to a device whose create Telnyx delays, and to a second one, which waits for that."""
    async with telnyx.held(**CREATE) as create:
        first = asyncio.create_task(service.issue("first"))
        await create.arrived.wait()
        second = asyncio.create_task(service.issue_with_retries("second"))
        await eventually(lambda: service.app.requests == 2)
        await asyncio.sleep(0.2)
        assert not second.done()
    return await first, await second


@pytest.mark.parametrize("action", ["evict_oldest", ...])
async def test_new_device_waits_for_a_create_in_progress_and_replaces_it(
    telnyx: Telnyx, database: str, action: Any
) -> None:
    async with running_service(telnyx, database, max_devices=1, at_device_limit=action) as service:
        first, second = await second_device_while_a_create_is_held(service, telnyx)

        assert first.status_code == 201
        assert second.status_code == 201


async def test_new_device_is_rejected_once_the_create_in_progress_is_active(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, max_devices=1, at_device_limit="reject") as service:
        first, second = await second_device_while_a_create_is_held(service, telnyx)

        assert first.status_code == 201
        assert_problem(second, 403, "device_limit_reached")


async def test_new_device_gets_a_retryable_answer_while_a_create_hangs(telnyx: Telnyx, sqlite: str) -> None:
    slow: dict[str, Any] = {"telnyx_call_seconds": 60.0, "max_devices": 1, "at_device_limit": "reject"}
    async with running_service(telnyx, sqlite, **slow) as service:
        async with telnyx.held(**CREATE) as create:
            first = asyncio.create_task(service.issue("first"))
            await create.arrived.wait()

            second = await service.issue("second")

        assert_problem(second, 503, "issue_in_progress")
        assert second.json()["retryable"]
        assert 1 <= int(second.headers["retry-after"]) <= 3
        await first


async def test_replaced_create_that_succeeds_late_leaves_no_credential(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, max_devices=1, telnyx_call_seconds=30.0) as service:
        async with telnyx.held(**CREATE, after_commit=True) as create:
            first = asyncio.create_task(service.issue("first"))
            await create.arrived.wait()
            telnyx.clock.advance(HOUR / 2)  # the claim expires, as if the replica had stopped for that time

            second = await service.issue("second")

        assert second.status_code == 201
        await first
        telnyx.clock.advance(timedelta(minutes=1))
        await service.components.upkeep.sweeper.sweep()
        assert len(telnyx.live()) == 1


async def test_credential_that_telnyx_creates_after_the_timeout_is_deleted(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, max_devices=1) as service:
        telnyx.fail("drop", **CREATE)
        await service.issue("first")
        lease_id = (await service.ask("GET")).json()["data"][0]["id"]
        telnyx.clock.advance(timedelta(seconds=6))  # the length of a timeout

        assert (await service.issue("second")).status_code == 201
        await service.components.upkeep.sweeper.sweep()
        assert telnyx.calls("GET", path="telephony_credentials")
        late = {"connection_id": DEMO_CONNECTION, "name": service.components.replica.naming.credential_name(lease_id)}
        telnyx.sandbox.account.create_credential(late)

        for _ in range(5):
            telnyx.clock.advance(timedelta(minutes=2))
            await service.components.upkeep.sweeper.sweep()
        assert len(telnyx.live()) == 1


async def test_closed_browser_tabs_make_room_by_default(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite) as service:
        for number in range(10):
            assert (await service.issue(f"tab-{number}")).status_code == 201
            telnyx.clock.advance(timedelta(minutes=2))

        eleventh = await service.issue("tab-10")

        assert eleventh.status_code == 201
        await eventually(lambda: len(telnyx.live()) == 10)
        assert await active_devices(service) == {f"tab-{number}" for number in range(1, 11)}


@pytest.mark.parametrize("platform", ["ios", "android"])
async def test_phone_is_rejected_at_the_limit_by_default(telnyx: Telnyx, sqlite: str, platform: str) -> None:
    async with running_service(telnyx, sqlite, max_devices=1) as service:
        await service.issue("first", platform=platform)

        assert_problem(await service.issue("second", platform=platform), 403, "device_limit_reached")
        assert_problem(await service.issue("tab"), 403, "device_limit_reached")


@pytest.mark.parametrize("action", ["reject", ...])
async def test_hundred_parallel_devices_never_exceed_the_limit(telnyx: Telnyx, database: str, action: Any) -> None:
    async with running_service(telnyx, database, max_devices=5, at_device_limit=action) as service:
        most = 0

        async def look() -> None:
            nonlocal most
            leases = await service.components.ledger.search.matching(LeaseCriteria(), None, 200)
            most = max(most, sum(lease.state in LIVE for lease in leases))

        async def watch() -> None:
            while True:
                await look()
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*(service.issue(f"tab-{number}") for number in range(100)))
        await look()
        watching.cancel()
        census = await service.components.ledger.search.census()

        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= ({201, 403, 503} if action == "reject" else {201, 503})
        assert most == 5
        assert census["active"] + census["pending"] == 5


async def test_used_device_outlives_one_that_was_created_later(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, max_devices=2) as service:
        for device in ("first", "second"):
            await service.issue(device)
            telnyx.clock.advance(timedelta(minutes=10))
        before = service.app.requests
        await service.issue("first")
        assert service.app.requests == before, "the fast path answered"

        await service.issue("third")

        assert await active_devices(service) == {"first", "third"}


async def test_device_used_at_another_replica_outlives_an_unused_one(telnyx: Telnyx, database: str) -> None:
    async with (
        running_service(telnyx, database, max_devices=2) as here,
        running_service(telnyx, database, max_devices=2) as there,
    ):
        for device in ("first", "second"):
            await here.issue(device)
            telnyx.clock.advance(timedelta(minutes=10))
        await there.issue("first")
        await there.components.telephony.last_uses.flush()  # it does so every twenty seconds

        await here.issue("third")

        assert await active_devices(here) == {"first", "third"}


async def active_devices(service: Service) -> set[str]:
    page = (await service.ask("GET")).json()["data"]
    return {item["device_id"] for item in page if item["state"] == "active"}


async def test_last_use_is_shown_to_users_and_operators(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        lease_id = (await service.issue()).json()["id"]
        telnyx.clock.advance(timedelta(minutes=5))
        await service.issue()
        used_at = telnyx.clock()
        telnyx.clock.advance(timedelta(minutes=5))
        await service.ask("PATCH", f"/{lease_id}", json={"label": "Desk"})
        await service.components.telephony.last_uses.flush()

        answers = [
            (await service.ask("GET")).json()["data"][0],
            (await service.ask("GET", f"/{lease_id}")).json(),
            (await admin_request(service, "GET", "/leases")).json()["data"][0],
            (await admin_request(service, "GET", f"/leases/{lease_id}")).json(),
            (await admin_request(service, "GET", "/dialable", issuer=ISSUER, subject="alice")).json()["data"][0],
        ]

        for answer in answers:
            assert abs(datetime.fromisoformat(answer["last_used_at"]) - used_at) < timedelta(minutes=1)
