"""Issuing logins over HTTP: from a user's token to a working login."""

import asyncio
import base64
import json
import time
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token
from tests.support.verification import raw_token
from tests.support.waiting import DAY, HOUR, eventually


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_new_device_gets_a_login_with_a_new_credential(service: Service) -> None:
    answer = await service.issue("laptop")

    body = answer.json()
    payload = body["login_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert answer.status_code == 201
    assert service.telnyx.live() == [claims["sub"]]
    assert body["sip_uri"] == f"sip:{body['sip_username']}@sip.telnyx.com"
    assert answer.headers["cache-control"] == "no-store"


async def test_response_contains_no_telnyx_internals(service: Service) -> None:
    body = (await service.issue("laptop")).json()

    assert set(body) == {
        "id",
        "device_id",
        "login_token",
        "sip_username",
        "sip_uri",
        "issued_at",
        "expires_at",
        "refresh_after",
        "usable_at",
        "server_time",
    }


async def test_refresh_time_leaves_room_for_three_attempts(service: Service) -> None:
    body = (await service.issue("laptop")).json()

    issued, refresh, expires = (moment(body[name]) for name in ("issued_at", "refresh_after", "expires_at"))
    assert issued < refresh < expires
    assert expires - refresh > 3 * timedelta(minutes=1)
    assert moment(body["usable_at"]) - issued <= timedelta(seconds=5)
    assert moment(body["usable_at"]) > issued


async def test_second_request_of_a_device_makes_no_telnyx_call(service: Service) -> None:
    first = await service.issue("laptop")
    calls = len(service.telnyx.calls())

    again = [await service.issue("laptop") for _ in range(20)]

    assert {answer.status_code for answer in again} == {200}
    assert {answer.json()["login_token"] for answer in again} == {first.json()["login_token"]}
    assert len(service.telnyx.calls()) == calls == 2


async def test_two_devices_of_a_user_have_two_sip_identities(service: Service) -> None:
    names = {(await service.issue(device)).json()["sip_username"] for device in ("laptop", "phone")}

    assert len(names) == 2


async def test_equal_device_ids_of_two_users_are_two_devices(service: Service) -> None:
    names = {(await service.issue("laptop", user=user)).json()["sip_username"] for user in ("alice", "bob")}

    assert len(names) == 2


async def test_login_past_its_refresh_time_is_renewed_in_place(service: Service) -> None:
    first = (await service.issue("laptop")).json()
    service.clock.advance(timedelta(hours=20))

    second = await service.issue("laptop", user="alice")

    assert second.status_code == 401  # the user's token has expired by now
    renewed = (await issue_later(service, hours=20)).json()
    assert renewed["sip_username"] == first["sip_username"]
    assert renewed["login_token"] != first["login_token"]
    assert moment(renewed["expires_at"]) - moment(first["expires_at"]) > timedelta(hours=19)
    assert service.telnyx.created() == 1


async def issue_later(service: Service, *, hours: float, device: str = "laptop") -> httpx.Response:
    """Send a request with a token that is valid at the service's advanced clock."""
    now = int(service.clock().timestamp())
    later = token(iat=now, exp=now + 3600)
    return await service.ask("POST", json={"device_id": device}, headers={"Authorization": f"Bearer {later}"})


async def test_device_gets_a_new_credential_after_expiry(service: Service) -> None:
    first = (await service.issue("laptop")).json()
    service.clock.advance(2 * DAY)

    answer = await issue_later(service, hours=48)

    assert answer.status_code == 201
    assert answer.json()["sip_username"] != first["sip_username"]
    assert answer.json()["id"] != first["id"]


async def test_credential_deleted_at_telnyx_is_recreated(service: Service) -> None:
    first = (await service.issue("laptop")).json()
    service.telnyx.sandbox.account.credentials.clear()

    answer = await service.ask("POST", f"/{first['id']}/token")
    again = await service.issue("laptop", label="the same device")

    assert answer.status_code == 410
    assert answer.json()["code"] == "credential_ended"
    assert again.status_code == 201
    assert again.json()["sip_username"] != first["sip_username"]
    assert len(service.telnyx.live()) == 1


async def test_requested_lifetime_is_limited_by_policy(service: Service) -> None:
    short = (await service.issue("short", ttl_seconds=600)).json()
    long = (await service.issue("long", ttl_seconds=80 * 86_400)).json()

    assert moment(short["expires_at"]) - moment(short["issued_at"]) <= timedelta(minutes=10)
    assert moment(long["expires_at"]) - moment(long["issued_at"]) <= DAY


async def test_mobile_logins_live_longer_than_browser_logins(service: Service) -> None:
    phone = (await service.issue("phone", platform="ios")).json()

    shown = (await service.ask("GET", f"/{phone['id']}")).json()
    assert moment(shown["expires_at"]) - moment(shown["issued_at"]) > 29 * DAY


async def test_concurrent_requests_for_one_device_share_one_create(service: Service) -> None:
    answers = await asyncio.gather(*(service.issue("laptop") for _ in range(200)))

    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["login_token"] for answer in answers}) == 1
    assert service.telnyx.created() == 1


async def test_concurrent_requests_with_different_parameters_do_not_race(service: Service) -> None:
    wishes: list[dict[str, Any]] = [{"ttl_seconds": 3600}, {"label": "desk"}, {"platform": "ios"}, {}] * 10

    answers = await asyncio.gather(*(service.issue("laptop", **wish) for wish in wishes))

    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["sip_username"] for answer in answers}) == 1
    assert service.telnyx.created() == 1


async def test_login_is_finished_although_the_caller_disconnects(service: Service) -> None:
    async with service.telnyx.held("POST", "telephony_credentials$") as create:
        asking = asyncio.create_task(service.issue("laptop"))
        await create.arrived.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0.1)  # the service notices the disconnection
    await eventually(lambda: len(service.telnyx.calls("POST", "/token")) == 1)
    answer = await service.issue("laptop")

    assert answer.is_success
    assert service.telnyx.created() == 1
    assert len(service.telnyx.calls("POST", "/token")) == 1


async def test_device_limit_rejects_new_devices_and_keeps_known_ones(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, max_devices=2, at_device_limit="reject") as service:
        await service.issue("one")
        await service.issue("two")

        third = await service.issue("three")
        known = await service.issue("two", label="still mine")

        assert third.status_code == 403
        assert third.json()["code"] == "device_limit_reached"
        assert known.status_code == 200
        assert len(telnyx.live()) == 2


async def test_logged_out_device_frees_its_place_under_the_limit(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, max_devices=1) as service:
        first = (await service.issue("one")).json()
        await service.ask("DELETE", f"/{first['id']}")

        assert (await service.issue("two")).status_code == 201


async def test_concurrent_new_devices_do_not_exceed_the_limit(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, max_devices=5, at_device_limit="reject") as service:
        answers = await asyncio.gather(*(service.issue_with_retries(f"tab-{n}") for n in range(20)))

        assert sorted(answer.status_code for answer in answers) == [201] * 5 + [403] * 15
        assert len(telnyx.live()) == 5


async def test_sip_password_is_issued_if_policy_allows_the_grant(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, sip_password=True) as service:
        body = (await service.issue("desk", grant="sip_password")).json()

        (credential,) = telnyx.sandbox.account.credentials.values()
        assert (body["login"], body["password"]) == (credential.sip_username, credential.sip_password)
        assert "login_token" not in body


async def test_sip_password_is_denied_if_policy_does_not_allow_it(service: Service) -> None:
    answer = await service.issue("desk", grant="sip_password")

    assert answer.status_code == 403
    assert answer.json()["code"] == "grant_not_allowed"
    assert service.telnyx.created() == 0


@pytest.mark.parametrize("body", ["a.b.c", raw_token({"alg": "HS512"}, {"exp": 1_000_000_000})], ids=["junk", "past"])
async def test_login_token_without_a_usable_expiry_is_not_returned_or_cached(service: Service, body: str) -> None:
    service.telnyx.fail("garbage", path="/token$", body=body)

    refused = await service.issue("laptop")
    retried = await service.issue("laptop")
    cached = await service.issue("laptop")

    assert_problem(refused, 503, "telnyx_unavailable")
    assert body not in refused.text
    assert retried.status_code == 200
    assert retried.json()["login_token"] == cached.json()["login_token"] != body
    assert service.telnyx.created() == 1


async def test_cached_login_outlives_an_unreadable_login_token(service: Service) -> None:
    login = (await service.issue("laptop")).json()
    refresh = f"/{login['id']}/token"
    service.telnyx.fail("garbage", path="/token$", body="a.b.c")

    assert_problem(await service.ask("POST", refresh), 503, "telnyx_unavailable")
    assert (await service.issue("laptop")).json()["login_token"] == login["login_token"]


async def test_missing_required_scope_is_named(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, required_scopes="phone:use") as service:
        answer = await service.issue("laptop")

        assert answer.status_code == 403
        assert answer.json()["code"] == "insufficient_scope"
        assert 'scope="phone:use"' in answer.headers["www-authenticate"]


async def test_sandbox_is_marked_in_header_and_log_and_its_host_is_returned(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, rtc_host="ws://127.0.0.1:8099") as service:
        answer = await service.issue("laptop")

        assert answer.json()["rtc"] == {"host": "ws://127.0.0.1:8099"}
        assert answer.headers["x-dialtone-sandbox"] == "true"


@pytest.mark.parametrize("user", ["auth0|5f7c8ec7c33c6c004bbafe82", "用户", "a b", "o'hara"])
async def test_any_printable_subject_is_accepted(service: Service, user: str) -> None:
    assert (await service.issue("laptop", user=user)).status_code == 201


async def test_explicit_token_request_mints_a_new_token_each_time(service: Service) -> None:
    first = (await service.issue("laptop")).json()

    second = (await service.ask("POST", f"/{first['id']}/token")).json()

    assert second["login_token"] != first["login_token"]
    assert second["sip_username"] == first["sip_username"]
    assert set(second) == set(first)
    assert moment(second["expires_at"]) - moment(second["issued_at"]) > HOUR


@pytest.mark.parametrize("step", [-HOUR, -2 * DAY, HOUR], ids=["an hour back", "two days back", "an hour ahead"])
async def test_changing_the_system_clock_creates_no_second_credential(service: Service, step: timedelta) -> None:
    """Waiting times are measured with the monotonic clock; the system clock is used for timestamps only."""
    long_lived = token(iat=int(time.time()) - 3 * 86_400, exp=int(time.time()) + 3 * 86_400)

    async def ask() -> httpx.Response:
        headers = {"Authorization": f"Bearer {long_lived}"}
        return await service.ask("POST", headers=headers, json={"device_id": "laptop"})

    first = await ask()
    service.clock.advance(step)
    answers = [await ask() for _ in range(3)]
    service.clock.advance(-step)
    answers.append(await ask())

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["sip_username"] for answer in answers} == {first.json()["sip_username"]}
    assert service.telnyx.created() == 1
