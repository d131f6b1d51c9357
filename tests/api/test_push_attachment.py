"""Attaching push credentials to connections: by operators, and updated when a certificate is replaced."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.sandbox.account import DEMO_CONNECTION
from app.vending.policy import ADMIN_SCOPE
from tests.support.problems import assert_problem
from tests.support.push_api import push_objects, push_request, register
from tests.support.push_material import android, ios, same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token
from tests.support.waiting import eventually


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, database) as service:
        yield service


async def attach(service: Service, connection: str = DEMO_CONNECTION, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
    return await service.client.put(f"/v1/admin/connections/{connection}/push-credentials", headers=headers, json=body)


def used(telnyx: Telnyx) -> dict[str, Any]:
    connection = telnyx.sandbox.account.connections[DEMO_CONNECTION]
    return {name: connection[f"{name}_push_credential_id"] for name in ("ios", "android")}


async def test_attaching_returns_the_previous_credential(service: Service) -> None:
    apple = (await register(service, same_ios("one"))).json()
    newer = (await register(service, same_ios("two", 2))).json()
    google = (await register(service, android())).json()

    first = await attach(service, ios=apple["id"], android=google["id"])
    second = await attach(service, ios=newer["id"])
    third = await attach(service, android=None)

    assert first.json()["ios"]["before"] is None
    assert first.json()["ios"]["now"]["fingerprint_sha256"] == apple["fingerprint_sha256"]
    assert second.json()["ios"]["before"]["fingerprint_sha256"] == apple["fingerprint_sha256"]
    assert second.json()["android"]["now"]["app_id"] == "softphone-1234"
    assert third.json()["android"]["now"] is None
    shown = {item["alias"]: item["attached"] for item in (await push_request(service, "GET")).json()["data"]}
    assert shown == {"one": False, "two": True, "softphone-android": False}
    assert used(service.telnyx)["android"] is None


async def test_credential_attached_in_the_portal_is_shown_by_its_telnyx_id(service: Service) -> None:
    foreign = service.telnyx.sandbox.account.create_push_credential(
        {"type": "ios", "alias": "by hand", "certificate": "x", "private_key": "y"}
    )["id"]
    service.telnyx.sandbox.account.connections[DEMO_CONNECTION]["ios_push_credential_id"] = foreign
    made = (await register(service, same_ios())).json()

    before = (await attach(service, ios=made["id"])).json()["ios"]["before"]

    assert before == {"telnyx_id": foreign, "app_id": None, "fingerprint_sha256": None, "not_after": None}
    assert foreign in service.telnyx.sandbox.account.push_credentials


@pytest.mark.parametrize(
    ("connection", "body", "status", "code"),
    [
        ("1", {}, 404, "connection_not_found"),
        (DEMO_CONNECTION, {"ios": "0" * 32}, 404, "push_credential_not_found"),
        (DEMO_CONNECTION, {"android": "APPLE"}, 422, "push_type_mismatch"),
        (DEMO_CONNECTION, {"ios": 7}, 422, "invalid_request"),
        (DEMO_CONNECTION, {"windows": None}, 422, "invalid_request"),
        ("x", {}, 422, "invalid_request"),
    ],
    ids=str,
)
async def test_failed_attachment_changes_nothing(
    service: Service, connection: str, body: dict[str, Any], status: int, code: str
) -> None:
    apple = (await register(service, same_ios())).json()["id"]
    wanted = {name: apple if value == "APPLE" else value for name, value in body.items()}

    assert_problem(await attach(service, connection, **wanted), status, code)

    assert used(service.telnyx) == {"ios": None, "android": None}


async def test_users_cannot_attach_push_credentials(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    path = f"/v1/admin/connections/{DEMO_CONNECTION}/push-credentials"

    assert_problem(await service.client.put(path, headers=headers, json={}), 403, "insufficient_scope")


async def test_replaced_certificate_is_attached_without_a_gap(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])
    old = used(service.telnyx)["ios"]

    answer = await push_request(service, "PUT", f"/{made['id']}", body=same_ios(serial=2))

    new = used(service.telnyx)["ios"]
    assert answer.json()["attached"] is True
    assert new not in (None, old)
    assert new in service.telnyx.sandbox.account.push_credentials
    await eventually(lambda: old not in service.telnyx.sandbox.account.push_credentials)
    journal = [
        f"{entry.method} {entry.path.split('/')[2]}"
        for entry in service.telnyx.sandbox.journal.entries
        if entry.method in ("POST", "PATCH", "DELETE")
    ]
    assert journal[-3:] == [
        "POST mobile_push_credentials",
        "PATCH credential_connections",
        "DELETE mobile_push_credentials",
    ]


async def test_one_of_several_users_does_not_change_the_attachment(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await register(service, same_ios(), "bob")
    await attach(service, ios=made["id"])
    before = used(service.telnyx)

    assert (await push_request(service, "PUT", f"/{made['id']}", body=same_ios(serial=2))).json()["attached"] is False

    assert used(service.telnyx) == before
    assert len(push_objects(service.telnyx)) == 2


async def test_certificate_of_another_app_is_not_attached(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])
    before = used(service.telnyx)
    other = ios(uid="com.evil.app.voip", cn="VoIP Services: com.evil.app")

    assert (await push_request(service, "PUT", f"/{made['id']}", body=other)).status_code == 200

    assert used(service.telnyx) == before
    assert before["ios"] in service.telnyx.sandbox.account.push_credentials


async def test_attached_credential_stays_after_its_last_user_leaves(service: Service, telnyx: Telnyx) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])

    await push_request(service, "DELETE", f"/{made['id']}")
    await asyncio.sleep(0.3)

    assert used(telnyx)["ios"] in telnyx.sandbox.account.push_credentials


async def test_credential_attached_in_the_portal_stays(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        made = (await register(service, same_ios())).json()
        (held,) = push_objects(telnyx)
        telnyx.sandbox.account.connections[DEMO_CONNECTION]["ios_push_credential_id"] = held["id"]
        await push_request(service, "DELETE", f"/{made['id']}")
        await asyncio.sleep(0.3)

        assert push_objects(telnyx) == [held]
        assert (await register(service, same_ios(), "bob")).status_code == 201
        assert push_objects(telnyx) == [held]


async def test_interrupted_replacement_is_finished_by_a_retry(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])
    for method, path in (("POST", "mobile_push_credentials"), ("PATCH", "credential_connections")):
        service.telnyx.fail("status", method=method, path=path, status=500, after_commit=method == "PATCH")

    statuses = [
        (await push_request(service, "PUT", f"/{made['id']}", body=same_ios(serial=2))).status_code for _ in range(3)
    ]

    assert statuses == [503, 503, 200]
    assert (await push_request(service, "GET", f"/{made['id']}")).json()["attached"] is True
    await eventually(lambda: len(push_objects(service.telnyx)) == 1)
    assert used(service.telnyx)["ios"] == push_objects(service.telnyx)[0]["id"]
