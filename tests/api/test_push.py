"""Push credentials over HTTP: one object at Telnyx for each material, and nobody sees anybody else's."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from telnyx import AsyncTelnyx

from app.adapters.push_lint import apns
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.vending.policy import ADMIN_SCOPE
from app.vending.registering import MOST_REGISTRATIONS
from tests.api.test_gate import assert_problem
from tests.material import BUNDLE_ID, YEAR, android, cert_pem, ios, key, pem_of, same_ios, secrets_in
from tests.stage import (
    ISSUER,
    Service,
    Telnyx,
    eventually,
    joined,
    pem,
    service_in_front_of,
    telnyx_sandbox,
    token,
)

PATH = "/v1/push-credentials"


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    async with service_in_front_of(telnyx, database) as service:
        yield service


async def ask(
    service: Service, method: str, path: str = "", *, user: str = "alice", scope: str = "phone", body: Any = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user, scope=scope)}"}
    return await service.client.request(method, f"{PATH}{path}", headers=headers, json=body)


async def register(service: Service, body: dict[str, Any], user: str = "alice") -> httpx.Response:
    return await ask(service, "POST", user=user, body=body)


def objects(telnyx: Telnyx) -> list[dict[str, Any]]:
    return list(telnyx.sandbox.account.push_credentials.values())


def uploads(telnyx: Telnyx) -> int:
    entries = telnyx.sandbox.journal.entries
    return sum(e.method == "POST" and e.path.endswith("/mobile_push_credentials") for e in entries)


# -- the six calls --------------------------------------------------------------------------------------------------


async def test_a_certificate_is_registered_and_shown_without_its_key(service: Service) -> None:
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
    assert (await ask(service, "GET", f"/{shown['id']}")).json() == shown
    assert (await ask(service, "GET")).json() == {"data": [shown]}
    (held,) = objects(service.telnyx)
    assert held["type"] == "ios"
    assert held["alias"].startswith("dialtone-push-")


async def test_a_service_account_is_registered_as_the_object_it_is(service: Service) -> None:
    wanted = android()

    answer = await register(service, wanted)

    assert answer.status_code == 201
    assert answer.json()["app_id"] == "softphone-1234"
    assert answer.json()["not_after"] is None
    assert objects(service.telnyx)[0]["project_account_json_file"] == wanted["project_account_json_file"]


async def test_the_same_twice_is_the_same_once(service: Service) -> None:
    first = await register(service, same_ios())
    again = await register(service, same_ios())

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert uploads(service.telnyx) == 1


async def test_other_material_under_the_same_alias_is_refused_and_pointed_to_put(service: Service) -> None:
    first = (await register(service, same_ios())).json()

    refused = await register(service, same_ios(serial=2))

    assert_problem(refused, 409, "push_alias_taken")
    assert refused.headers["location"] == f"{PATH}/{first['id']}"
    assert uploads(service.telnyx) == 1
    replaced = await ask(service, "PUT", f"/{first['id']}", body=same_ios(serial=2))
    assert replaced.status_code == 200


async def test_one_material_may_have_two_aliases_and_still_is_one_object(service: Service) -> None:
    ids = {(await register(service, same_ios(alias))).json()["id"] for alias in ("one", "two")}

    assert len(ids) == 2
    assert len(objects(service.telnyx)) == 1


async def test_a_replacement_keeps_its_id_and_leaves_no_old_object(service: Service) -> None:
    first = (await register(service, same_ios())).json()

    answer = await ask(service, "PUT", f"/{first['id']}", body=same_ios("renamed", serial=2))

    shown = answer.json()
    assert (shown["id"], shown["alias"], shown["created_at"]) == (first["id"], "renamed", first["created_at"])
    assert shown["fingerprint_sha256"] != first["fingerprint_sha256"]
    await eventually(lambda: len(objects(service.telnyx)) == 1)
    assert (await ask(service, "PUT", f"/{first['id']}", body=same_ios("renamed", serial=2))).json() == shown


async def test_a_replacement_may_not_change_the_platform_or_take_anothers_alias(service: Service) -> None:
    first = (await register(service, same_ios("one"))).json()
    await register(service, same_ios("two"))

    assert_problem(await ask(service, "PUT", f"/{first['id']}", body=android("one")), 422, "push_type_mismatch")
    taken = await ask(service, "PUT", f"/{first['id']}", body=same_ios("two"))
    assert_problem(taken, 409, "push_alias_taken")
    assert len(objects(service.telnyx)) == 1


async def test_what_is_deleted_is_gone_at_telnyx_too(service: Service) -> None:
    made = (await register(service, same_ios())).json()

    answer = await ask(service, "DELETE", f"/{made['id']}")

    assert answer.status_code == 204
    assert_problem(await ask(service, "GET", f"/{made['id']}"), 404, "push_credential_not_found")
    await eventually(lambda: objects(service.telnyx) == [])


async def test_foreign_ids_are_unknown_ids(service: Service) -> None:
    made = (await register(service, same_ios())).json()

    for method, body in (("GET", None), ("PUT", same_ios("mine", 2)), ("DELETE", None)):
        foreign = await ask(service, method, f"/{made['id']}", user="bob", body=body)
        unknown = await ask(service, method, f"/{'0' * 32}", user="bob", body=body)
        assert_problem(foreign, 404, "push_credential_not_found")
        assert {**foreign.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert (await ask(service, "GET", user="bob")).json() == {"data": []}
    assert (await ask(service, "GET", f"/{made['id']}")).json() == made


async def test_a_user_has_so_many_and_no_more(service: Service) -> None:
    for number in range(MOST_REGISTRATIONS):
        assert (await register(service, same_ios(f"alias-{number}"))).status_code == 201

    assert_problem(await register(service, same_ios("one more")), 403, "push_limit_reached")


# -- one object for everybody ---------------------------------------------------------------------------------------


async def test_a_hundred_users_share_one_object_and_the_last_one_takes_it_along(service: Service) -> None:
    users = [f"user-{number}" for number in range(100)]
    official = AsyncTelnyx(api_key=DEMO_KEY, base_url=service.telnyx.url)

    answers = await asyncio.gather(*(register(service, same_ios(), user) for user in users))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 100
    assert len((await official.mobile_push_credentials.list()).data or []) == 1
    for user, answer in list(zip(users, answers, strict=True))[:-1]:
        assert (await ask(service, "DELETE", f"/{answer.json()['id']}", user=user)).status_code == 204
    assert len((await official.mobile_push_credentials.list()).data or []) == 1
    await ask(service, "DELETE", f"/{answers[-1].json()['id']}", user=users[-1])
    await eventually(lambda: objects(service.telnyx) == [])
    assert (await official.mobile_push_credentials.list()).data == []
    await official.close()


async def test_nobody_learns_from_the_clock_that_another_has_it(service: Service) -> None:
    service.telnyx.fail("delay", method="POST", path="mobile_push_credentials", seconds=0.3, times=20)
    spent: dict[str, list[float]] = {"first": [], "shared": []}
    for serial in range(10, 14):
        for which, user in (("first", "alice"), ("shared", "bob")):
            began = time.monotonic()
            assert (await register(service, same_ios(f"a-{serial}", serial), user)).status_code == 201
            spent[which].append(time.monotonic() - began)

    assert min(spent["shared"]) > 0.28
    assert abs(sorted(spent["first"])[1] - sorted(spent["shared"])[1]) < 0.1


async def test_whoever_comes_while_the_last_one_leaves_finds_a_working_object(service: Service) -> None:
    for _ in range(5):
        made = (await register(service, same_ios())).json()
        left, joined_in = await asyncio.gather(
            ask(service, "DELETE", f"/{made['id']}"), register(service, same_ios(), "bob")
        )
        assert (left.status_code, joined_in.status_code) == (204, 201)
        await asyncio.sleep(0.2)
        assert len(objects(service.telnyx)) == 1
        await ask(service, "DELETE", f"/{joined_in.json()['id']}", user="bob")
        await eventually(lambda: objects(service.telnyx) == [])


async def test_an_object_that_somebody_deleted_at_telnyx_is_made_anew(service: Service) -> None:
    await register(service, same_ios())
    service.telnyx.sandbox.account.push_credentials.clear()

    assert (await register(service, same_ios(), "bob")).status_code == 201

    assert len(objects(service.telnyx)) == 1


# -- lost answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hang", "drop", "garbage", "status"])
async def test_an_upload_whose_answer_is_lost_leaves_one_object(service: Service, kind: str) -> None:
    plan = {"status": 500} if kind == "status" else {}
    service.telnyx.fail(kind, method="POST", path="mobile_push_credentials", after_commit=True, **plan)

    first = await register(service, same_ios())
    second = first if first.status_code == 201 else await register(service, same_ios())

    assert second.status_code == 201
    assert len(objects(service.telnyx)) == 1
    assert uploads(service.telnyx) == 1


@pytest.mark.parametrize(
    ("plan", "status", "code"),
    [
        ({"status": 422}, 502, "carrier_rejected"),
        ({"status": 500}, 503, "carrier_unavailable"),
        ({"status": 401}, 502, "carrier_key_refused"),
        ({"status": 429}, 503, "carrier_throttled"),
    ],
    ids=str,
)
async def test_what_telnyx_refuses_leaves_nothing_and_can_be_tried_again(
    service: Service, plan: dict[str, Any], status: int, code: str
) -> None:
    service.telnyx.fail("status", method="POST", path="mobile_push_credentials", **plan)

    assert_problem(await register(service, same_ios()), status, code)

    assert objects(service.telnyx) == []
    assert (await ask(service, "GET")).json() == {"data": []}
    await asyncio.sleep(0.6 if status == 503 else 0)  # a limit that was hit is waited out before Telnyx is asked again
    assert (await register(service, same_ios())).status_code == 201


async def test_a_deletion_that_telnyx_does_not_confirm_is_tried_until_it_does(telnyx: Telnyx, database: str) -> None:
    async with service_in_front_of(telnyx, database) as service:
        made = (await register(service, same_ios())).json()
        telnyx.fail("status", method="DELETE", path="mobile_push_credentials", status=503, times=3)
        await ask(service, "DELETE", f"/{made['id']}")
        await eventually(lambda: len(telnyx.sandbox.faults.plans) == 0 or telnyx.sandbox.faults.plans[0].times == 0, 8)
    assert len(objects(telnyx)) == 1
    telnyx.clock.advance(timedelta(minutes=11))

    async with joined(telnyx, database) as parts:
        await parts.push_uploads.sweep()

    assert objects(telnyx) == []


async def test_what_a_crash_left_behind_unregistered_is_swept(telnyx: Telnyx, database: str) -> None:
    wanted = same_ios()
    async with joined(telnyx, database) as parts:
        report = apns.lint(wanted["certificate"], wanted["private_key"], telnyx.clock())
        assert report.material is not None
        await parts.push_uploads.ensure(report.material)
        assert await parts.push_uploads.sweep() == 0, "it may be registered any moment"
        telnyx.clock.advance(timedelta(minutes=11))

        assert await parts.push_uploads.sweep() == 1

    assert objects(telnyx) == []


# -- attaching ------------------------------------------------------------------------------------------------------


async def attach(service: Service, connection: str = DEMO_CONNECTION, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
    return await service.client.put(f"/v1/admin/connections/{connection}/push-credentials", headers=headers, json=body)


def used(telnyx: Telnyx) -> dict[str, Any]:
    connection = telnyx.sandbox.account.connections[DEMO_CONNECTION]
    return {name: connection[f"{name}_push_credential_id"] for name in ("ios", "android")}


async def test_attaching_says_what_was_there_before_and_shows(service: Service) -> None:
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
    shown = {item["alias"]: item["attached"] for item in (await ask(service, "GET")).json()["data"]}
    assert shown == {"one": False, "two": True, "softphone-android": False}
    assert used(service.telnyx)["android"] is None


async def test_what_was_attached_in_the_portal_is_named_by_telnyxs_id(service: Service) -> None:
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
async def test_what_cannot_be_attached_changes_nothing(
    service: Service, connection: str, body: dict[str, Any], status: int, code: str
) -> None:
    apple = (await register(service, same_ios())).json()["id"]
    wanted = {name: apple if value == "APPLE" else value for name, value in body.items()}

    assert_problem(await attach(service, connection, **wanted), status, code)

    assert used(service.telnyx) == {"ios": None, "android": None}


async def test_a_user_attaches_nothing(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    path = f"/v1/admin/connections/{DEMO_CONNECTION}/push-credentials"

    assert_problem(await service.client.put(path, headers=headers, json={}), 403, "insufficient_scope")


async def test_a_renewed_certificate_takes_the_place_of_the_old_one_without_a_gap(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])
    old = used(service.telnyx)["ios"]

    answer = await ask(service, "PUT", f"/{made['id']}", body=same_ios(serial=2))

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


async def test_one_of_many_cannot_turn_the_connection_for_all(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await register(service, same_ios(), "bob")
    await attach(service, ios=made["id"])
    before = used(service.telnyx)

    assert (await ask(service, "PUT", f"/{made['id']}", body=same_ios(serial=2))).json()["attached"] is False

    assert used(service.telnyx) == before
    assert len(objects(service.telnyx)) == 2


async def test_another_apps_certificate_never_takes_the_connection_over(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])
    before = used(service.telnyx)
    other = ios(uid="com.evil.app.voip", cn="VoIP Services: com.evil.app")

    assert (await ask(service, "PUT", f"/{made['id']}", body=other)).status_code == 200

    assert used(service.telnyx) == before
    assert before["ios"] in service.telnyx.sandbox.account.push_credentials


async def test_what_a_connection_uses_stays_when_its_last_user_leaves(service: Service, telnyx: Telnyx) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])

    await ask(service, "DELETE", f"/{made['id']}")
    await asyncio.sleep(0.3)

    assert used(telnyx)["ios"] in telnyx.sandbox.account.push_credentials


async def test_what_the_portal_attached_stays_too(telnyx: Telnyx, database: str) -> None:
    async with service_in_front_of(telnyx, database) as service:
        made = (await register(service, same_ios())).json()
        (held,) = objects(telnyx)
        telnyx.sandbox.account.connections[DEMO_CONNECTION]["ios_push_credential_id"] = held["id"]
        await ask(service, "DELETE", f"/{made['id']}")
        await asyncio.sleep(0.3)

        assert objects(telnyx) == [held]
        assert (await register(service, same_ios(), "bob")).status_code == 201
        assert objects(telnyx) == [held]


async def test_a_replacement_that_broke_off_is_finished_by_the_same_request(service: Service) -> None:
    made = (await register(service, same_ios())).json()
    await attach(service, ios=made["id"])
    for method, path in (("POST", "mobile_push_credentials"), ("PATCH", "credential_connections")):
        service.telnyx.fail("status", method=method, path=path, status=500, after_commit=method == "PATCH")

    statuses = [(await ask(service, "PUT", f"/{made['id']}", body=same_ios(serial=2))).status_code for _ in range(3)]

    assert statuses == [503, 503, 200]
    assert (await ask(service, "GET", f"/{made['id']}")).json()["attached"] is True
    await eventually(lambda: len(objects(service.telnyx)) == 1)
    assert used(service.telnyx)["ios"] == objects(service.telnyx)[0]["id"]


# -- rights ---------------------------------------------------------------------------------------------------------


async def test_policy_may_ask_for_a_scope_or_give_no_right(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "dialtone.toml").write_text(
        f"""
        [[issuers]]
        issuer = "{ISSUER}"
        audiences = ["dialtone"]
        pem = '''{pem()}'''
        [[policy.rules]]
        name = "guests"
        claims.guest = true
        push = false
        [[policy.rules]]
        name = "all"
        push_scopes = ["push:register"]
        """
    )
    async with service_in_front_of(
        telnyx, sqlite, config=str(tmp_path / "dialtone.toml"), issuer=..., audience=..., issuer_pem=...
    ) as service:
        bad = {**same_ios(), "certificate": "CANARY"}
        for body in (same_ios(), bad):
            assert_problem(await ask(service, "POST", body=body), 403, "insufficient_scope")
        assert (await ask(service, "POST", scope="phone push:register", body=same_ios())).status_code == 201
        headers = {"Authorization": f"Bearer {token('gina', guest=True, scope='push:register')}"}
        assert_problem(await service.client.post(PATH, headers=headers, json=same_ios()), 403, "push_not_allowed")


# -- the linter -----------------------------------------------------------------------------------------------------


async def test_refused_material_names_each_fault_and_how_to_mend_it(service: Service) -> None:
    expired = ios(since=service.clock() - 2 * YEAR, until=service.clock() - YEAR)

    answer = await register(service, {**expired, "private_key": pem_of(key("other"))})

    assert_problem(answer, 422, "certificate_expired")
    assert answer.json()["title"].startswith("The certificate has expired; renew it")
    assert [(error["loc"], error["type"]) for error in answer.json()["errors"]] == [
        (["body", "certificate"], "certificate_expired"),
        (["body", "private_key"], "key_mismatch"),
    ]
    assert uploads(service.telnyx) == 0


async def test_a_look_at_material_stores_and_sends_nothing(service: Service) -> None:
    wanted = same_ios()
    wanted.pop("alias")

    good = (await ask(service, "POST", "/lint", body=wanted)).json()
    bad = (await ask(service, "POST", "/lint", body={**wanted, "private_key": "x"})).json()

    assert good["ok"] is True
    assert good["days_left"] == 364
    assert bad["ok"] is False
    assert bad["faults"][0]["code"] == "private_key_unreadable"
    assert service.telnyx.sandbox.journal.entries == []
    assert (await ask(service, "GET")).json() == {"data": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "windows"},
        {"type": "ios", "alias": "x", "certificate": "CANARY"},
        {"type": "ios", "alias": "x\u202e", "certificate": "CANARY", "private_key": "CANARY"},
        {"type": "ios", "alias": "x", "certificate": ["CANARY"], "private_key": {"CANARY": 1}},
        {"type": "android", "alias": "x", "project_account_json_file": {}, "private_key": "CANARY"},
        {"type": "android", "alias": "", "project_account_json_file": {"private_key": "CANARY"}},
        ["CANARY"],
    ],
    ids=lambda value: json.dumps(value)[:50],
)
async def test_a_malformed_request_is_422_and_echoes_nothing(service: Service, body: Any) -> None:
    answer = await ask(service, "POST", body=body)

    assert_problem(answer, 422, "invalid_request")
    assert "CANARY" not in answer.text


async def test_bodies_may_be_larger_here_and_still_are_bounded(service: Service) -> None:
    large = {**same_ios(), "certificate": "x" * 100_000}

    assert_problem(await register(service, large), 422, "material_too_large")
    assert_problem(await register(service, {**large, "private_key": "y" * 100_000}), 413, "body_too_large")


# -- expiry ---------------------------------------------------------------------------------------------------------


async def test_expiry_is_measured_and_warned_of_once_at_each_mark(
    sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings() -> list[int]:
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        return [line["days_left"] for line in lines if line["event"] == "push_credential_expires"]

    async with telnyx_sandbox() as telnyx, service_in_front_of(telnyx, sqlite) as service:
        until = telnyx.clock().replace(microsecond=0) + timedelta(days=40)
        made = await register(service, ios(until=until))
        assert made.status_code == 201
        watch = service.parts.expiry_watch
        heard = []
        for left in (31, 30, 29, 14, 8, 7, 6.5, 1, 0.5, -1, -2):
            telnyx.clock.advance(until - timedelta(days=left) - telnyx.clock())
            for _ in range(2):
                await watch.look()
            heard.append(warnings())
        figures = (await service.client.get("/metrics")).text
        ready = await service.client.get("/readyz")

    assert heard == [[], [29], [], [13], [], [6], [], [0], [], [0], []]
    assert f'dialtone_push_credential_days_left{{app_id="{BUNDLE_ID}"' in figures
    assert ready.status_code == 200


async def test_a_certificate_that_dies_tomorrow_is_not_refused_today(service: Service) -> None:
    soon = cert_pem(until=service.clock() + timedelta(hours=30), serial=77)

    answer = await register(service, {**same_ios(), "certificate": soon})

    assert answer.status_code == 201
    assert not any(secret in answer.text for secret in secrets_in(same_ios()))


# -- the phone that is woken ----------------------------------------------------------------------------------------


async def test_a_phone_woken_by_a_push_gets_its_login_at_once_and_keeps_its_identity(service: Service) -> None:
    async def log_in() -> httpx.Response:
        late = token(iat=int(service.clock().timestamp()), exp=4_000_000_000)
        headers = {"Authorization": f"Bearer {late}"}
        return await service.ask("POST", headers=headers, json={"device_id": "iphone", "platform": "ios"})

    first = (await log_in()).json()
    service.clock.advance(timedelta(hours=8))
    before = len(service.telnyx.calls())
    woken = await log_in()
    calls = len(service.telnyx.calls()) - before
    service.clock.advance(timedelta(days=20))
    after_a_holiday = (await log_in()).json()

    assert woken.status_code == 200
    assert calls == 0
    assert {first["sip_username"], woken.json()["sip_username"], after_a_holiday["sip_username"]} == {
        first["sip_username"]
    }


async def test_material_known_under_another_tag_key_moves_and_is_uploaded_once(telnyx: Telnyx, sqlite: str) -> None:
    """As after the API key, which the tag key derives from unless it is given, was changed."""
    wanted = same_ios()
    async with service_in_front_of(telnyx, sqlite, tag_key="k" * 32) as before:
        first = await register(before, wanted)
    async with service_in_front_of(telnyx, sqlite, tag_key="j" * 32) as after:
        again = [await register(after, wanted) for _ in range(3)]
        telnyx.clock.advance(timedelta(hours=1))
        await after.parts.push_uploads.sweep()
        assert (await register(after, wanted)).status_code == 200

    assert {answer.status_code for answer in again} == {200}
    assert {answer.json()["id"] for answer in again} == {first.json()["id"]}
    assert uploads(telnyx) == 2
    assert len(objects(telnyx)) == 1
