"""Push credentials over HTTP: one Telnyx object for each certificate or key, visible to its own users only."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from telnyx import AsyncTelnyx

from app.adapters.push_validation import apns
from app.sandbox.account import DEMO_KEY
from app.vending.push.register import MAX_REGISTRATIONS
from tests.support.problems import assert_problem
from tests.support.push_api import PATH, push_objects, push_request, register, upload_count
from tests.support.push_material import BUNDLE_ID, android, ios, same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_components, running_service
from tests.support.waiting import eventually


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, database) as service:
        yield service


async def test_certificate_is_registered_and_shown_without_its_key(service: Service) -> None:
    answer = await register(service, ios())

    shown = answer.json()
    assert answer.status_code == 201
    assert (shown["type"], shown["alias"], shown["app_id"]) == ("ios", "softphone", BUNDLE_ID)
    assert shown["attached"] is False
    assert shown["not_after"].endswith("Z")
    assert set(shown) == {
        "id",
        "type",
        "alias",
        "app_id",
        "fingerprint_sha256",
        "not_after",
        "created_at",
        "attached",
    }
    assert (await push_request(service, "GET", f"/{shown['id']}")).json() == shown
    assert (await push_request(service, "GET")).json() == {"data": [shown]}
    (held,) = push_objects(service.telnyx)
    assert held["type"] == "ios"
    assert held["alias"].startswith("dialtone-push-")


async def test_service_account_is_registered_as_a_json_object(service: Service) -> None:
    wanted = android()

    answer = await register(service, wanted)

    assert answer.status_code == 201
    assert answer.json()["app_id"] == "softphone-1234"
    assert answer.json()["not_after"] is None
    assert push_objects(service.telnyx)[0]["project_account_json_file"] == wanted["project_account_json_file"]


async def test_registration_is_idempotent(service: Service) -> None:
    first = await register(service, same_ios())
    again = await register(service, same_ios())

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert upload_count(service.telnyx) == 1


async def test_other_material_under_a_used_alias_is_rejected_with_a_hint_to_put(service: Service) -> None:
    first = (await register(service, same_ios())).json()

    refused = await register(service, same_ios(serial=2))

    assert_problem(refused, 409, "push_alias_taken")
    assert refused.headers["location"] == f"{PATH}/{first['id']}"
    assert upload_count(service.telnyx) == 1
    replaced = await push_request(service, "PUT", f"/{first['id']}", body=same_ios(serial=2))
    assert replaced.status_code == 200


async def test_one_certificate_under_two_aliases_is_one_object(service: Service) -> None:
    ids = {(await register(service, same_ios(alias))).json()["id"] for alias in ("one", "two")}

    assert len(ids) == 2
    assert len(push_objects(service.telnyx)) == 1


async def test_replacement_keeps_the_id_and_deletes_the_old_object(service: Service) -> None:
    first = (await register(service, same_ios())).json()

    answer = await push_request(service, "PUT", f"/{first['id']}", body=same_ios("renamed", serial=2))

    shown = answer.json()
    assert (shown["id"], shown["alias"], shown["created_at"]) == (first["id"], "renamed", first["created_at"])
    assert shown["fingerprint_sha256"] != first["fingerprint_sha256"]
    await eventually(lambda: len(push_objects(service.telnyx)) == 1)
    assert (await push_request(service, "PUT", f"/{first['id']}", body=same_ios("renamed", serial=2))).json() == shown


async def test_replacement_cannot_change_the_platform_or_use_a_taken_alias(service: Service) -> None:
    first = (await register(service, same_ios("one"))).json()
    await register(service, same_ios("two"))

    assert_problem(
        await push_request(service, "PUT", f"/{first['id']}", body=android("one")), 422, "push_type_mismatch"
    )
    taken = await push_request(service, "PUT", f"/{first['id']}", body=same_ios("two"))
    assert_problem(taken, 409, "push_alias_taken")
    assert len(push_objects(service.telnyx)) == 1


async def test_deletion_removes_the_object_at_telnyx(service: Service) -> None:
    made = (await register(service, same_ios())).json()

    answer = await push_request(service, "DELETE", f"/{made['id']}")

    assert answer.status_code == 204
    assert_problem(await push_request(service, "GET", f"/{made['id']}"), 404, "push_credential_not_found")
    await eventually(lambda: push_objects(service.telnyx) == [])


async def test_ids_of_other_users_are_unknown(service: Service) -> None:
    made = (await register(service, same_ios())).json()

    for method, body in (("GET", None), ("PUT", same_ios("mine", 2)), ("DELETE", None)):
        foreign = await push_request(service, method, f"/{made['id']}", user="bob", body=body)
        unknown = await push_request(service, method, f"/{'0' * 32}", user="bob", body=body)
        assert_problem(foreign, 404, "push_credential_not_found")
        assert {**foreign.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert (await push_request(service, "GET", user="bob")).json() == {"data": []}
    assert (await push_request(service, "GET", f"/{made['id']}")).json() == made


async def test_number_of_push_credentials_per_user_is_limited(service: Service) -> None:
    for number in range(MAX_REGISTRATIONS):
        assert (await register(service, same_ios(f"alias-{number}"))).status_code == 201

    assert_problem(await register(service, same_ios("one more")), 403, "push_limit_reached")


# -- one object for all users ---------------------------------------------------------------------------------------


async def test_shared_object_is_deleted_with_its_last_user(service: Service) -> None:
    users = [f"user-{number}" for number in range(100)]
    official = AsyncTelnyx(api_key=DEMO_KEY, base_url=service.telnyx.url)

    together = asyncio.Semaphore(20)

    async def register_one(user: str) -> httpx.Response:
        async with together:
            return await register(service, same_ios(), user)

    answers = await asyncio.gather(*(register_one(user) for user in users))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 100
    assert len((await official.mobile_push_credentials.list()).data or []) == 1
    for user, answer in list(zip(users, answers, strict=True))[:-1]:
        assert (await push_request(service, "DELETE", f"/{answer.json()['id']}", user=user)).status_code == 204
    assert len((await official.mobile_push_credentials.list()).data or []) == 1
    await push_request(service, "DELETE", f"/{answers[-1].json()['id']}", user=users[-1])
    await eventually(lambda: push_objects(service.telnyx) == [])
    assert (await official.mobile_push_credentials.list()).data == []
    await official.close()


@pytest.mark.no_cover
async def test_response_time_does_not_reveal_other_users_registrations(service: Service) -> None:
    service.telnyx.fail("delay", method="POST", path="mobile_push_credentials", seconds=1.5, times=20)
    spent: dict[str, list[float]] = {"first": [], "shared": []}
    for serial in range(10, 14):
        for which, user in (("first", "alice"), ("shared", "bob")):
            began = time.monotonic()
            assert (await register(service, same_ios(f"a-{serial}", serial), user)).status_code == 201
            spent[which].append(time.monotonic() - began)

    assert min(spent["shared"]) > 1.4
    assert abs(min(spent["first"]) - min(spent["shared"])) < 0.5


async def test_registration_during_the_last_deletion_has_a_working_object(service: Service) -> None:
    for _ in range(5):
        made = (await register(service, same_ios())).json()
        left, joined_in = await asyncio.gather(
            push_request(service, "DELETE", f"/{made['id']}"), register(service, same_ios(), "bob")
        )
        assert (left.status_code, joined_in.status_code) == (204, 201)
        await asyncio.sleep(0.2)
        await eventually(lambda: len(push_objects(service.telnyx)) == 1)
        await push_request(service, "DELETE", f"/{joined_in.json()['id']}", user="bob")
        await eventually(lambda: push_objects(service.telnyx) == [])


async def test_object_deleted_at_telnyx_is_recreated(service: Service) -> None:
    await register(service, same_ios())
    service.telnyx.sandbox.account.push_credentials.clear()

    assert (await register(service, same_ios(), "bob")).status_code == 201

    assert len(push_objects(service.telnyx)) == 1


# -- lost responses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hang", "drop", "garbage", "status"])
async def test_upload_without_a_response_leaves_one_object(service: Service, kind: str) -> None:
    plan = {"status": 500} if kind == "status" else {}
    service.telnyx.fail(kind, method="POST", path="mobile_push_credentials", after_commit=True, **plan)

    first = await register(service, same_ios())
    second = first if first.status_code == 201 else await register(service, same_ios())

    assert second.status_code == 201
    assert len(push_objects(service.telnyx)) == 1
    assert upload_count(service.telnyx) == 1


@pytest.mark.parametrize(
    ("plan", "status", "code"),
    [
        ({"status": 422}, 502, "telnyx_rejected"),
        ({"status": 500}, 503, "telnyx_unavailable"),
        ({"status": 401}, 502, "telnyx_key_rejected"),
        ({"status": 429}, 503, "telnyx_rate_limited"),
    ],
    ids=str,
)
async def test_upload_rejected_by_telnyx_leaves_nothing_and_can_be_retried(
    service: Service, plan: dict[str, Any], status: int, code: str
) -> None:
    service.telnyx.fail("status", method="POST", path="mobile_push_credentials", **plan)

    assert_problem(await register(service, same_ios()), status, code)

    assert push_objects(service.telnyx) == []
    assert (await push_request(service, "GET")).json() == {"data": []}
    await asyncio.sleep(0.6 if status == 503 else 0)  # the rate limit delays the next call to Telnyx
    assert (await register(service, same_ios())).status_code == 201


async def test_unconfirmed_deletion_is_retried_until_confirmed(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        made = (await register(service, same_ios())).json()
        telnyx.fail("status", method="DELETE", path="mobile_push_credentials", status=503, times=3)
        await push_request(service, "DELETE", f"/{made['id']}")
        await eventually(lambda: len(telnyx.sandbox.faults.plans) == 0 or telnyx.sandbox.faults.plans[0].times == 0)
    assert len(push_objects(telnyx)) == 1
    telnyx.clock.advance(timedelta(minutes=11))

    async with running_components(telnyx, database) as components:
        await components.push.uploads.sweep()

    assert push_objects(telnyx) == []


async def test_unregistered_object_left_by_a_crash_is_swept(telnyx: Telnyx, database: str) -> None:
    wanted = same_ios()
    async with running_components(telnyx, database) as components:
        report = apns.validate(wanted["certificate"], wanted["private_key"], telnyx.clock())
        assert report.material is not None
        await components.push.uploads.ensure(report.material)
        assert await components.push.uploads.sweep() == 0, "a registration may be in progress"
        telnyx.clock.advance(timedelta(minutes=11))

        assert await components.push.uploads.sweep() == 1

    assert push_objects(telnyx) == []
