"""Operators list the push credentials of all users, and leases by the first characters of an id."""

from app.vending.models import IssueRequest
from tests.support.admin_api import admin_request
from tests.support.push_material import android, secrets_in
from tests.support.service import Service
from tests.support.tokens import principal, token


async def register(service: Service, user: str) -> str:
    headers = {"Authorization": f"Bearer {token(user)}"}
    made = await service.client.post("/v1/push-credentials", headers=headers, json=android())
    assert made.status_code == 201
    return str(made.json()["id"])


async def test_material_of_several_users_is_listed_once(service: Service) -> None:
    ids = {await register(service, user) for user in ("alice", "bob")}

    (row,) = (await admin_request(service, "GET", "/push-credentials")).json()["data"]

    assert (row["type"], row["state"], row["users"], row["attached"]) == ("android", "active", 2, False)
    assert row["id"] in ids


async def test_list_has_no_key_material(service: Service) -> None:
    await register(service, "alice")

    answer = await admin_request(service, "GET", "/push-credentials")

    assert not any(secret in answer.text for secret in secrets_in(android()))


async def test_listed_id_can_be_attached(service: Service) -> None:
    await register(service, "alice")
    (row,) = (await admin_request(service, "GET", "/push-credentials")).json()["data"]
    connection = service.components.identity.policy.policy.connections()

    path = f"/connections/{next(iter(connection))}/push-credentials"
    answer = await admin_request(service, "PUT", path, {"android": row["id"]})

    assert answer.json()["android"]["now"]["telnyx_id"] == row["telnyx_credential_id"]
    (row,) = (await admin_request(service, "GET", "/push-credentials")).json()["data"]
    assert row["attached"] is True


async def test_limit_of_the_list_is_checked(service: Service) -> None:
    for limit in ("0", "1001", "1_0"):
        assert (await admin_request(service, "GET", "/push-credentials", limit=limit)).status_code == 422


async def test_users_without_rights_get_no_list(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token('alice')}"}

    answer = await service.client.get("/v1/admin/push-credentials", headers=headers)

    assert answer.status_code == 403


async def test_leases_are_found_by_the_first_characters_of_an_id(service: Service) -> None:
    for device in ("one", "two", "three"):
        await service.components.telephony.issuer.issue(principal("alice"), IssueRequest(device))
    rows = (await admin_request(service, "GET", "/leases")).json()["data"]

    for row in rows:
        found = (await admin_request(service, "GET", "/leases", id_prefix=row["id"][:12])).json()["data"]
        assert [one["id"] for one in found] == [row["id"]]
