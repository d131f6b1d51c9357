"""Presence on demand: `presence=true` reports which devices are registered with Telnyx, and never fails a request."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.vending.policy import ADMIN_SCOPE
from app.vending.telephony.presence import CACHE_SECONDS, LOOKUP_SECONDS, MAX_LOOKUPS
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.signalling import open_page
from tests.support.tokens import ISSUER, token
from tests.support.waiting import LoopClock, eventually

STATUS = "/v2/sip_registration_status"


class Monotonic:
    """A monotonic clock that stands still until tests advance it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, monotonic: Monotonic) -> AsyncIterator[Service]:
    """Look-ups have time enough for a busy machine."""
    async with running_service(
        telnyx, sqlite, monotonic=monotonic, lookup_seconds=30.0, propagation_seconds=0
    ) as service:
        yield service


async def operate(service: Service, path: str, **params: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
    return await service.client.get(f"/v1/admin{path}", headers=headers, params=params)


async def dialable(service: Service, **params: Any) -> dict[str, bool | None]:
    """`online` of alice's devices."""
    answer = await operate(service, "/dialable", issuer=ISSUER, subject="alice", **params)
    assert answer.status_code == 200, answer.text
    return {device["device_id"]: device["online"] for device in answer.json()["data"]}


async def test_closed_tab_is_offline_within_the_cache_time(
    service: Service, telnyx: Telnyx, monotonic: Monotonic
) -> None:
    first, second = (await service.issue("one")).json(), (await service.issue("two")).json()
    async with open_page(telnyx) as one:
        await one.ask("login", login_token=first["login_token"])
        async with open_page(telnyx) as two:
            await two.ask("login", login_token=second["login_token"])
            both = await dialable(service, presence="true")
        await eventually(lambda: telnyx.sandbox.exchange.registrations() == [first["sip_username"]])
        cached = await dialable(service, presence="true")
        monotonic.now += CACHE_SECONDS
        later = await dialable(service, presence="true")

    assert both == cached == {"one": True, "two": True}
    assert later == {"one": True, "two": False}


async def test_every_resource_of_a_device_reports_presence(service: Service, telnyx: Telnyx) -> None:
    login = (await service.issue("laptop")).json()
    async with open_page(telnyx) as page:
        await page.ask("login", login_token=login["login_token"])
        own = (await service.ask("GET", "", params={"presence": "true"})).json()["data"]
        device = (await service.ask("GET", f"/{login['id']}", params={"presence": "true"})).json()
        leases = (await operate(service, "/leases", presence="true")).json()["data"]
        lease = (await operate(service, f"/leases/{login['id']}", presence="true")).json()

    assert [shown["online"] for shown in (*own, device, *leases, lease)] == [True] * 4
    assert telnyx.lookups() == 1, "the result is cached"


async def test_presence_is_not_looked_up_unless_requested(service: Service, telnyx: Telnyx) -> None:
    await service.issue("laptop")

    assert await dialable(service) == await dialable(service, presence="false") == {"laptop": None}
    assert telnyx.lookups() == 0


@pytest.mark.parametrize("value", ["1", "yes", "True", ""])
async def test_other_values_of_the_parameter_are_rejected(service: Service, value: str) -> None:
    answer = await operate(service, "/dialable", issuer=ISSUER, subject="alice", presence=value)

    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0]["message"] == "presence must be true or false."


FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 404, "body": '{"errors": [{"code": "10005"}]}'},
    {"kind": "status", "status": 400},
    {"kind": "status", "status": 422},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    {"kind": "status", "status": 429, "headers": {"retry-after": "30"}},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 302, "headers": {"location": "https://example.com"}},
    {"kind": "drop"},
    {"kind": "hang"},
    {"kind": "garbage", "body": "<html>"},
    {"kind": "garbage", "body": "[]"},
    {"kind": "garbage", "body": "{}"},
    {"kind": "garbage", "body": '{"registered": "yes", "sip_registration_status": 7}'},
    {"kind": "garbage", "body": '{"sip_registration_status": "trying"}'},
    {"kind": "garbage", "body": '{"registered": true, "credential_username": "gencredother"}'},
    {"kind": "garbage", "body": "[" * 100_000},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault)[:60])
async def test_presence_is_unknown_if_telnyx_does_not_say(telnyx: Telnyx, sqlite: str, fault: dict[str, Any]) -> None:
    async with running_service(telnyx, sqlite, propagation_seconds=0) as service:
        await service.issue("laptop")
        telnyx.fail(**fault, path=STATUS, times=99)

        async with LoopClock() as clock:
            assert await dialable(service, presence="true") == {"laptop": None}
        assert clock.seconds < LOOKUP_SECONDS + 1.5


ODD_BODIES = [
    ('{"registered": true}', True),
    ('{"registered": false, "sip_registration_status": "registered"}', False),
    ('{"data": {"registered": true}}', True),
    ('{"sip_registration_status": "registered"}', True),
    ('{"registered": null, "sip_registration_status": "failed"}', False),
    ('{"sip_registration_status": "connection_disabled", "sip_registration_details": null}', False),
]


@pytest.mark.parametrize(("body", "online"), ODD_BODIES)
async def test_each_form_of_the_status_is_understood(service: Service, telnyx: Telnyx, body: str, online: bool) -> None:
    await service.issue("laptop")
    telnyx.fail("garbage", path=STATUS, body=body)

    assert await dialable(service, presence="true") == {"laptop": online}


async def test_faults_of_the_status_neither_stop_nor_delay_logins(service: Service, telnyx: Telnyx) -> None:
    """More failures than open the circuit breaker."""
    for number in range(MAX_LOOKUPS // 2):
        await service.issue(f"tab-{number}")
    telnyx.fail("status", status=500, path=STATUS, times=99)
    for _ in range(3):
        await dialable(service, presence="true")

    async with LoopClock() as clock:
        answer = await service.issue("laptop", user="bob")

    assert answer.status_code == 201
    assert clock.seconds < 1.0
    assert telnyx.lookups() <= 4, "look-ups pause after a failure"


async def test_rate_limit_of_the_status_does_not_hold_logins(
    service: Service, telnyx: Telnyx, monotonic: Monotonic
) -> None:
    await service.issue("laptop")
    telnyx.fail("status", status=429, headers={"retry-after": "30"}, path=STATUS)
    await dialable(service, presence="true")

    async with LoopClock() as clock:
        assert (await service.issue("laptop", user="bob")).status_code == 201
    assert clock.seconds < 1.0
    monotonic.now += 2 * CACHE_SECONDS
    assert await dialable(service, presence="true") == {"laptop": None}, "look-ups wait for the end of the limit"
    assert telnyx.lookups() == 1


async def test_concurrent_requests_share_one_look_up(service: Service, telnyx: Telnyx) -> None:
    await service.issue("laptop")
    telnyx.fail("delay", seconds=0.3, path=STATUS)

    found = await asyncio.gather(*(dialable(service, presence="true") for _ in range(20)))

    assert found == [{"laptop": False}] * 20
    assert telnyx.lookups() == 1


async def test_look_ups_of_one_request_are_bounded(telnyx: Telnyx, sqlite: str) -> None:
    settings: dict[str, Any] = {"propagation_seconds": 0, "max_devices": 100}
    async with running_service(telnyx, sqlite, lookup_seconds=30.0, **settings) as service:
        for number in range(MAX_LOOKUPS + 3):
            await service.issue(f"tab-{number}")

        found = await dialable(service, presence="true")

    assert telnyx.lookups() == MAX_LOOKUPS
    assert list(found.values()) == [False] * MAX_LOOKUPS + [None] * 3


async def test_logged_out_device_is_unknown(service: Service, telnyx: Telnyx) -> None:
    login = (await service.issue("laptop")).json()
    await service.ask("DELETE", f"/{login['id']}")

    lease = (await operate(service, f"/leases/{login['id']}", presence="true")).json()

    assert (lease["state"], lease["online"], telnyx.lookups()) == ("revoked", None, 0)


async def test_user_learns_nothing_about_devices_of_others(service: Service, telnyx: Telnyx) -> None:
    login = (await service.issue("laptop")).json()

    answer = await service.ask("GET", f"/{login['id']}", user="mallory", params={"presence": "true"})

    assert_problem(answer, 404, "credential_not_found")
    assert telnyx.lookups() == 0
