"""Operators find, show and revoke leases; voice backends look up SIP addresses and users."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.sandbox.account import DEMO_CONNECTION
from app.vending.operators.lease_admin import MAX_REVOKED_PER_CALL
from app.vending.policy import ADMIN_SCOPE
from tests.support.leases import insert_devices
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, token
from tests.support.waiting import DAY


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    """Three users: alice with three devices, bob with one, carol logged out."""
    async with running_service(telnyx, database, propagation_seconds=0, warm_pool_size=1) as service:
        for device in ("laptop", "tab"):
            await service.issue(device)
        await service.issue("phone", platform="ios", label="My phone")
        await service.issue("laptop", user="bob")
        await service.issue("laptop", user="carol")
        await service.ask("DELETE", user="carol")
        yield service


async def operate(service: Service, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
    return await service.client.request(method, f"/v1/admin{path}", headers=headers, json=body, params=params)


async def found(service: Service, **criteria: Any) -> set[tuple[str, str]]:
    answer = await operate(service, "GET", "/leases", **criteria)
    assert answer.status_code == 200, answer.text
    return {(lease["subject"], lease["device_id"]) for lease in answer.json()["data"]}


ALICES = {("alice", "laptop"), ("alice", "tab"), ("alice", "phone")}


CASES: list[tuple[dict[str, str], set[tuple[str, str]]]] = [
    ({}, ALICES | {("bob", "laptop"), ("carol", "laptop")}),
    ({"issuer": ISSUER, "subject": "alice"}, ALICES),
    ({"subject": "alice", "device_id": "tab"}, {("alice", "tab")}),
    ({"platform": "ios"}, {("alice", "phone")}),
    ({"state": "revoked"}, {("carol", "laptop")}),
    ({"state": "active", "connection_id": DEMO_CONNECTION}, ALICES | {("bob", "laptop")}),
    ({"issuer": "https://other.example.com"}, set()),
    ({"state": "pooled"}, set()),
]


@pytest.mark.parametrize(("criteria", "wanted"), CASES, ids=[str(criteria) for criteria, _ in CASES])
async def test_leases_can_be_filtered_by_every_field(
    service: Service, criteria: dict[str, str], wanted: set[tuple[str, str]]
) -> None:
    assert await found(service, **criteria) == wanted


async def test_pages_list_each_lease_once(service: Service) -> None:
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = (await operate(service, "GET", "/leases", limit=2, **more)).json()
        seen += [lease["id"] for lease in page["data"]]
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}

    assert len(seen) == len(set(seen)) == 5


@pytest.mark.parametrize(
    "params", [{"state": "gone"}, {"limit": 0}, {"limit": 101}, {"user": "alice"}, {"sip_username": "a b"}], ids=str
)
async def test_invalid_query_is_rejected(service: Service, params: dict[str, Any]) -> None:
    assert_problem(await operate(service, "GET", "/leases", **params), 422, "invalid_request")


async def test_lease_is_shown_without_secrets(service: Service, telnyx: Telnyx) -> None:
    (lease,) = (await operate(service, "GET", "/leases", device_id="phone")).json()["data"]
    shown = await operate(service, "GET", f"/leases/{lease['id']}")

    assert shown.json() == lease
    assert (lease["subject"], lease["platform"], lease["label"]) == ("alice", "ios", "My phone")
    held = telnyx.sandbox.account.credentials[lease["telnyx_credential_id"]]
    assert (held.name, held.sip_username) == (lease["credential_name"], lease["sip_username"])
    assert held.sip_password not in shown.text
    assert_problem(await operate(service, "GET", f"/leases/{'0' * 32}"), 404, "credential_not_found")


async def test_pooled_credential_cannot_be_shown_or_revoked(service: Service) -> None:
    await service.components.upkeep.warm_pool.refill()  # replaces a credential that a device of the fixture got
    made = service.telnyx.sandbox.account.credentials.values()
    ids = {credential.name.removeprefix("dialtone-") for credential in made}
    shown = {lease["id"] for lease in (await operate(service, "GET", "/leases", limit=100)).json()["data"]}
    (hidden,) = ids - shown

    assert_problem(await operate(service, "DELETE", f"/leases/{hidden}"), 404, "credential_not_found")
    assert_problem(await operate(service, "GET", f"/leases/{hidden}"), 404, "credential_not_found")


async def test_device_can_be_found_and_revoked(service: Service, telnyx: Telnyx) -> None:
    (lease,) = (await operate(service, "GET", "/leases", subject="alice", device_id="laptop")).json()["data"]

    ended = await operate(service, "DELETE", f"/leases/{lease['id']}")

    assert ended.status_code == 204
    assert lease["telnyx_credential_id"] not in telnyx.sandbox.account.credentials
    assert (await operate(service, "GET", f"/leases/{lease['id']}")).json()["state"] == "revoked"
    assert (await operate(service, "DELETE", f"/leases/{lease['id']}")).status_code == 204, (
        "a repeated revocation is not an error"
    )


async def test_revoking_a_user_ends_all_devices_and_tokens(service: Service, telnyx: Telnyx) -> None:
    old = token("alice")
    body = {"issuer": ISSUER, "subject": "alice", "refuse_tokens": True}

    before = {
        lease["sip_username"] for lease in (await operate(service, "GET", "/leases", subject="alice")).json()["data"]
    }
    answer = await operate(service, "POST", "/revocations", body)

    assert (answer.status_code, answer.json()["revoked"]) == (202, 3)
    headers = {"Authorization": f"Bearer {old}"}
    refused = await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": "tab"})
    assert_problem(refused, 401, "invalid_token")
    assert await found(service, state="active") == {("bob", "laptop")}
    deadline = asyncio.get_running_loop().time() + 30
    while await found(service, state="revoking"):  # as `status_url` says
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    assert {lease.sip_username for lease in telnyx.sandbox.account.credentials.values()}.isdisjoint(before)


@pytest.mark.parametrize("whom", [{"everything": True}, {"connection_id": DEMO_CONNECTION}], ids=str)
async def test_revoking_many_leases_requires_confirmation(service: Service, whom: dict[str, Any]) -> None:
    for confirm in ({}, {"confirm": ""}, {"confirm": "yes"}, {"confirm": "Dialtone"}):
        refused = await operate(service, "POST", "/revocations", whom | confirm)
        assert_problem(refused, 422, "not_confirmed")
    assert await found(service, state="active") == ALICES | {("bob", "laptop")}

    answer = await operate(service, "POST", "/revocations", whom | {"confirm": "dialtone"})

    assert (answer.status_code, answer.json()["revoked"]) == (202, 4)
    assert await found(service, state="active") == set()
    assert (await service.issue("laptop", user="bob")).status_code == 201, "their tokens are still valid"


async def test_mass_revocation_ends_leases_of_a_replica_with_a_fast_clock(service: Service) -> None:
    service.clock.advance(timedelta(seconds=30))
    await service.issue("new", user="dave")
    service.clock.advance(timedelta(seconds=-30))

    await operate(service, "POST", "/revocations", {"everything": True, "confirm": "dialtone"})

    assert await found(service, state="active") == set()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"issuer": ISSUER},
        {"subject": "alice"},
        {"issuer": ISSUER, "subject": "alice", "everything": True},
        {"everything": True, "confirm": "dialtone", "refuse_tokens": True},
        {"connection_id": "all"},
    ],
    ids=str,
)
async def test_ambiguous_revocation_is_rejected(service: Service, body: dict[str, Any]) -> None:
    assert_problem(await operate(service, "POST", "/revocations", body), 422, "invalid_request")
    assert await found(service, state="active") == ALICES | {("bob", "laptop")}


async def test_sip_addresses_of_a_user_are_listed(service: Service) -> None:
    answer = await operate(service, "GET", "/dialable", issuer=ISSUER, subject="alice")

    devices = answer.json()["data"]
    assert [device["device_id"] for device in devices] == ["phone", "tab", "laptop"], "the latest first"
    assert all(device["sip_uri"] == f"sip:{device['sip_username']}@sip.telnyx.com" for device in devices)
    await service.ask("DELETE", user="alice")
    assert (await operate(service, "GET", "/dialable", issuer=ISSUER, subject="alice")).json() == {"data": []}
    assert (await operate(service, "GET", "/dialable", issuer=ISSUER, subject="unknown")).json() == {"data": []}


async def test_expired_or_not_yet_usable_lease_is_not_dialable(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, propagation_seconds=60) as service:
        await service.issue()
        for step, reachable in ((0 * DAY, 0), (DAY / 86_400 * 61, 1), (2 * DAY, 0)):
            telnyx.clock.advance(step)
            headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE, exp=9_999_999_999)}"}
            params = {"issuer": ISSUER, "subject": "alice"}
            answer = await service.client.get("/v1/admin/dialable", headers=headers, params=params)
            assert len(answer.json()["data"]) == reachable


async def test_sip_username_leads_to_its_user(service: Service) -> None:
    login = (await service.issue("laptop", user="bob")).json()

    behind = await operate(service, "GET", f"/sip-users/{login['sip_username']}")

    assert (behind.json()["subject"], behind.json()["device_id"]) == ("bob", "laptop")
    assert_problem(await operate(service, "GET", "/sip-users/gencrednobody"), 404, "credential_not_found")


@pytest.mark.timeout(300)
async def test_large_revocation_runs_in_batches(telnyx: Telnyx, sqlite: str) -> None:
    await insert_devices(telnyx, sqlite, MAX_REVOKED_PER_CALL + 300)
    async with running_service(telnyx, sqlite) as service:
        body = {"everything": True, "confirm": "dialtone"}

        answers = [(await operate(service, "POST", "/revocations", body)).json() for _ in range(3)]

        outcomes = [(answer["revoked"], answer["complete"]) for answer in answers]
        assert outcomes == [(MAX_REVOKED_PER_CALL, False), (300, True), (0, True)]
        assert await found(service, state="active") == set()
