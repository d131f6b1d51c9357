"""Policy over HTTP: connection, lifetime and grants by rule, device limits, and rules in shadow mode."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.adapters.telnyx.credentials import CREATE_PAUSE
from app.sandbox.faults import Fault, FaultKind
from app.vending.audit import AuditCriteria
from tests.support.configuration import configured_by
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, pem, rsa_key, token
from tests.support.waiting import DAY, eventually

GUESTS = "https://guests.example.com"
Serve = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def serve(telnyx: Telnyx, database: str, tmp_path: Path) -> Serve:
    """The service under a policy, with two issuers: `staff` and `guests`."""

    @asynccontextmanager
    async def under(policy: str, **changes: Any) -> AsyncIterator[Service]:
        own = configured_by(
            tmp_path,
            f"""
            [[issuers]]
            name = "staff"
            issuer = "{ISSUER}"
            audiences = ["dialtone"]
            pem = '''{pem()}'''
            [[issuers]]
            name = "guests"
            issuer = "{GUESTS}"
            audiences = ["dialtone"]
            pem = '''{rsa_key("guests").as_pem(private=False).decode()}'''
            {policy}
            """,
        )
        async with running_service(telnyx, database, **own, **changes) as service:
            yield service

    return under


async def issue(service: Service, device: str, unverified_token: str, **wishes: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {unverified_token}"}
    return await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device, **wishes})


def guest(user: str = "alice", **claims: Any) -> str:
    return token(user, iss=GUESTS, key=rsa_key("guests"), **claims)


async def test_equal_subjects_of_two_issuers_have_separate_devices(serve: Serve) -> None:
    async with serve("") as service:
        ours = await issue(service, "laptop", token("alice"))
        theirs = await issue(service, "laptop", guest("alice"))

        assert (ours.status_code, theirs.status_code) == (201, 201)
        assert ours.json()["sip_username"] != theirs.json()["sip_username"]
        headers = {"Authorization": f"Bearer {guest('alice')}"}
        shown = await service.client.get(f"/v1/telephony-credentials/{ours.json()['id']}", headers=headers)
        assert_problem(shown, 404, "credential_not_found")


async def test_rule_sets_connection_lifetime_and_grant_and_others_are_denied(serve: Serve, telnyx: Telnyx) -> None:
    desk_line = telnyx.sandbox.account.create_connection(
        {"connection_name": "desk", "user_name": "desklines", "password": "long enough"}
    )["id"]
    rules = f"""
    [[policy.rules]]
    name = "desk"
    issuers = ["staff"]
    claims.department = "support"
    connection_id = "{desk_line}"
    ttl_seconds.browser = 3600
    grants = ["sip_password"]
    """
    async with serve(rules) as service:
        desk = token("alice", department="support")
        answer = await issue(service, "laptop", desk, grant="sip_password")

        assert answer.status_code == 201
        (credential,) = telnyx.sandbox.account.credentials.values()
        assert credential.connection_id == desk_line
        assert_problem(await issue(service, "phone", desk), 403, "grant_not_allowed")
        assert_problem(await issue(service, "laptop", token("bob", department="sales")), 403, "access_denied")
        assert_problem(await issue(service, "laptop", guest("carol", department="support")), 403, "access_denied")


async def test_denial_of_a_user_does_not_name_the_operator_scope(serve: Serve) -> None:
    rules = """
    [[policy.rules]]
    name = "operators"
    scopes = ["dialtone:admin"]
    admin = true
    [[policy.rules]]
    name = "staff"
    issuers = ["staff"]
    scopes = ["phone:use"]
    """
    async with serve(rules) as service:
        no_rule = await issue(service, "laptop", guest("carol"))
        no_scope = await issue(service, "laptop", token("alice"))

        assert_problem(no_rule, 403, "access_denied")
        assert "scope=" not in no_rule.headers["www-authenticate"]
        assert_problem(no_scope, 403, "insufficient_scope")
        assert 'scope="phone:use"' in no_scope.headers["www-authenticate"]


async def test_oldest_device_is_evicted_if_policy_allows_it(serve: Serve, telnyx: Telnyx) -> None:
    async with serve('[[policy.rules]]\nname = "all"\nmax_devices = 2\nat_device_limit = "evict_oldest"') as service:
        for device in ("first", "second"):
            await issue(service, device, token("alice"))
            telnyx.clock.advance(DAY / 100)
        telnyx.clock.advance(DAY * 0.75)
        renewed = await issue(service, "first", token("alice", iat=int(telnyx.clock().timestamp()), exp=4_000_000_000))
        assert renewed.status_code == 200
        late = token("alice", iat=int(telnyx.clock().timestamp()), exp=4_000_000_000)

        third = await issue(service, "third", late)

        assert third.status_code == 201
        headers = {"Authorization": f"Bearer {late}"}
        page = (await service.client.get("/v1/telephony-credentials", headers=headers)).json()["data"]
        assert {item["device_id"] for item in page if item["state"] == "active"} == {"first", "third"}
        await eventually(lambda: len(telnyx.live()) == 2)


async def test_concurrent_evictions_end_exactly_at_the_limit(serve: Serve, telnyx: Telnyx) -> None:
    async with serve('[[policy.rules]]\nname = "all"\nmax_devices = 3\nat_device_limit = "evict_oldest"') as service:
        asked = [issue(service, f"tab-{number}", token("alice")) for number in range(20)]

        answers = await asyncio.gather(*asked)

        assert {answer.status_code for answer in answers} <= {201, 403, 503}
        assert sum(answer.status_code == 201 for answer in answers) >= 3
        await eventually(lambda: len(telnyx.live()) == 3)


async def test_without_eviction_the_next_device_is_rejected(serve: Serve, telnyx: Telnyx) -> None:
    async with serve('[[policy.rules]]\nname = "all"\nmax_devices = 1\nat_device_limit = "reject"') as service:
        await issue(service, "first", token("alice"))

        assert_problem(await issue(service, "second", token("alice")), 403, "device_limit_reached")
        assert (await issue(service, "first", token("alice"))).status_code == 200


async def test_shadow_mode_rule_is_only_logged(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    rules = """
    [[policy.rules]]
    name = "no-guests"
    effect = "deny"
    issuers = ["guests"]
    mode = "shadow"
    [[policy.rules]]
    name = "all"
    """
    async with serve(rules) as service:
        assert (await issue(service, "laptop", guest("gina"))).status_code == 201
        assert (await issue(service, "laptop", token("alice"))).status_code == 201

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    noted = [line for line in lines if line["event"] == "policy_shadow"]
    assert {line["subject"] for line in noted} == {"gina"}
    assert (noted[0]["enforced"], noted[0]["shadow"], noted[0]["would_allow"]) == ("all", "no-guests", False)


RTC_RULES = """
[[policy.rules]]
name = "desk"
claims.department = "support"
[policy.rules.rtc]
region = "eu"
caller_id_name = "Example \\"Support\\" ✆"
caller_id_number = "+3224850111"
client_options = { prefetchIceCandidates = true, forceRelayCandidate = false }
[[policy.rules]]
name = "sales"
claims.department = "sales"
rtc = { caller_id_number = "+442079460000" }
[[policy.rules]]
name = "others"
"""
DESK_RTC = {
    "region": "eu",
    "client_options": {"prefetchIceCandidates": True, "forceRelayCandidate": False},
    "call_options": {"callerName": 'Example "Support" ✆', "callerNumber": "+3224850111"},
}
SALES_RTC = {"call_options": {"callerNumber": "+442079460000"}}


async def test_rule_gives_options_of_the_sdk_with_each_login(serve: Serve) -> None:
    async with serve(RTC_RULES) as service:
        desk = token("alice", department="support")
        made = await issue(service, "laptop", desk)
        await issue(service, "laptop", desk)
        before = service.app.requests
        cached = await issue(service, "laptop", desk)
        path = f"/v1/telephony-credentials/{made.json()['id']}/token"
        refreshed = await service.client.post(path, headers={"Authorization": f"Bearer {desk}"})

        assert service.app.requests == before + 1, "the fast path answered"
        assert [answer.json()["rtc"] for answer in (made, cached, refreshed)] == [DESK_RTC] * 3
        assert "rtc" not in (await issue(service, "phone", token("bob"))).json()


async def test_options_are_those_of_the_token_that_asks(serve: Serve) -> None:
    async with serve(RTC_RULES) as service:
        tokens = [token("alice", department=name) for name in ("support", "sales", "none")]
        answers = [(await issue(service, "laptop", each)).json() for each in tokens * 3]

        assert {answer["login_token"] for answer in answers} == {answers[0]["login_token"]}
        assert [answer.get("rtc") for answer in answers] == [DESK_RTC, SALES_RTC, None] * 3


async def test_concurrent_requests_of_a_device_get_their_own_options(serve: Serve) -> None:
    async with serve(RTC_RULES) as service:
        departments = ["support", "sales", "none"] * 4
        answers = await asyncio.gather(
            *(issue(service, "laptop", token("alice", department=name)) for name in departments)
        )

        assert [answer.json().get("rtc") for answer in answers] == [DESK_RTC, SALES_RTC, None] * 4
        assert len({answer.json()["sip_username"] for answer in answers}) == 1


AGED = '[[policy.rules]]\nname = "all"\nmax_lease_age_seconds = 86400\nttl_seconds = { browser = 172800 }'


def lasting_token(user: str = "alice") -> str:
    return token(user, exp=4_000_000_000)


async def test_credential_is_replaced_at_its_maximum_age(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY - timedelta(minutes=1))
        kept = await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(timedelta(minutes=1))
        replaced = await issue(service, "laptop", lasting_token())

        assert (kept.status_code, kept.json()["sip_username"]) == (200, first["sip_username"])
        assert replaced.status_code == 201
        assert replaced.json()["sip_username"] != first["sip_username"]
        assert replaced.json()["id"] != first["id"]
        held, live = telnyx.sandbox.account.credentials, {replaced.json()["sip_username"]}
        await eventually(lambda: {credential.sip_username for credential in held.values()} == live)
        await eventually(lambda: not service.components.audit.queued)
        events = await service.components.operators.leases.audit(AuditCriteria(lease_id=first["id"]), None, 10)
        assert "max_lease_age" in {event.decision.reason for event in events}


async def test_fast_path_does_not_return_a_login_that_is_too_old(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        for _ in range(2):
            await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(DAY)

        answers = [(await issue(service, "laptop", lasting_token())).json() for _ in range(3)]

        assert len({answer["sip_username"] for answer in answers} | {first["sip_username"]}) == 2


async def test_refresh_of_a_login_that_is_too_old_ends_it(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY)

        path = f"/v1/telephony-credentials/{first['id']}/token"
        answer = await service.client.post(path, headers={"Authorization": f"Bearer {lasting_token()}"})

        assert_problem(answer, 410, "credential_ended")
        assert (await issue(service, "laptop", lasting_token())).status_code == 201


async def test_concurrent_requests_replace_a_credential_once(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY)

        answers = await asyncio.gather(*(issue(service, "laptop", lasting_token()) for _ in range(20)))

        assert len({answer.json()["sip_username"] for answer in answers} - {first["sip_username"]}) == 1
        created = [entry for entry in telnyx.sandbox.journal.entries if entry.method == "POST"]
        assert sum(entry.path.endswith("/telephony_credentials") for entry in created) == 2


OUTAGES: list[dict[str, Any]] = [
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "headers": {"retry-after": "30"}},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    {"kind": "drop"},
    {"kind": "hang"},
]


async def outage(service: Service, telnyx: Telnyx, fault: dict[str, Any]) -> None:
    """Telnyx fails, and a login of another user has shown that."""
    telnyx.fail(**{"times": 999, **fault})
    assert (await issue(service, "laptop", lasting_token("bob"))).status_code in (502, 503)


@pytest.mark.parametrize("fault", OUTAGES, ids=str)
async def test_old_credential_is_not_replaced_during_an_outage(
    serve: Serve, telnyx: Telnyx, fault: dict[str, Any]
) -> None:
    async with serve(AGED, telnyx_call_seconds=2.5) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY - timedelta(hours=1))
        await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(timedelta(hours=1))
        await outage(service, telnyx, fault)

        page_load = await issue(service, "laptop", lasting_token())
        path = f"/v1/telephony-credentials/{first['id']}/token"
        refreshed = await service.client.post(path, headers={"Authorization": f"Bearer {lasting_token()}"})

        assert (page_load.status_code, page_load.json()["sip_username"]) == (200, first["sip_username"])
        assert refreshed.status_code in (502, 503), "not 410, so the client keeps its login"
        assert len(telnyx.live()) == 1
        shown = await service.client.get(
            path.removesuffix("/token"), headers={"Authorization": f"Bearer {lasting_token()}"}
        )
        assert shown.json()["state"] == "active"


@pytest.mark.parametrize("status", [422, 503])
async def test_old_credential_is_not_replaced_while_only_creates_fail(
    serve: Serve, telnyx: Telnyx, status: int
) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY)
        telnyx.fail("status", method="POST", path="/telephony_credentials$", status=status)
        assert (await issue(service, "laptop", lasting_token("bob"))).status_code in (502, 503)

        kept = await issue(service, "laptop", lasting_token())
        assert (await issue(service, "laptop", lasting_token("carol"))).status_code == 201
        replaced = await issue(service, "laptop", lasting_token())

        assert (kept.status_code, kept.json()["sip_username"]) == (200, first["sip_username"])
        assert replaced.status_code == 201


async def test_old_credential_is_replaced_although_the_api_key_may_not_read_outbound_limits(
    serve: Serve, telnyx: Telnyx
) -> None:
    telnyx.limit_outbound()
    telnyx.fail("status", path="outbound_voice_profiles|credential_connections", status=403, times=999)
    async with serve(AGED) as service:
        await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(DAY)
        await service.components.telnyx.outbound_guard.check()

        assert (await issue(service, "laptop", lasting_token())).status_code == 201


async def test_old_credential_is_not_replaced_while_minting_is_forbidden(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY - timedelta(hours=1))
        await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(timedelta(hours=1))
        telnyx.fail("status", path="/token$", status=403, times=999)
        assert (await issue(service, "phone", lasting_token("bob"))).status_code in (502, 503)

        kept = await issue(service, "laptop", lasting_token())

        assert (kept.status_code, kept.json()["sip_username"]) == (200, first["sip_username"])


async def test_old_credential_is_replaced_while_creates_fail_on_another_connection(
    serve: Serve, telnyx: Telnyx
) -> None:
    desk_line = telnyx.sandbox.account.create_connection(
        {"connection_name": "desk", "user_name": "desklines", "password": "long enough"}
    )["id"]
    rules = f'[[policy.rules]]\nname = "desk"\nclaims.department = "desk"\nconnection_id = "{desk_line}"\n{AGED}'
    async with serve(rules) as service:
        await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(DAY)
        telnyx.fail("status", method="POST", path="/telephony_credentials$", status=422)
        desk = token("bob", exp=4_000_000_000, department="desk")
        assert (await issue(service, "laptop", desk)).status_code in (502, 503)

        assert (await issue(service, "laptop", lasting_token())).status_code == 201


async def test_old_credential_is_replaced_after_the_outage(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY)
        await outage(service, telnyx, {"kind": "status", "status": 503})
        telnyx.sandbox.faults.plans.clear()
        telnyx.sandbox.journal.clear()

        kept = await issue(service, "laptop", lasting_token())
        extensions = telnyx.calls("PATCH")
        telnyx.clock.advance(CREATE_PAUSE)
        replaced = await issue(service, "laptop", lasting_token())

        assert (kept.status_code, kept.json()["sip_username"]) == (200, first["sip_username"])
        assert extensions == [], "the old credential ends at its expiry at the latest"
        assert replaced.status_code == 201
        assert replaced.json()["sip_username"] != first["sip_username"]


async def test_lifetime_change_does_not_extend_a_credential_that_is_too_old(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY)
        headers = {"Authorization": f"Bearer {lasting_token()}"}
        path = f"/v1/telephony-credentials/{first['id']}"
        before = (await service.client.get(path, headers=headers)).json()["expires_at"]

        longer = await service.client.patch(path, headers=headers, json={"ttl_seconds": 172800})
        shorter = await service.client.patch(path, headers=headers, json={"ttl_seconds": 3600})

        assert (longer.status_code, longer.json()["expires_at"]) == (200, before)
        assert shorter.json()["expires_at"] < before


async def test_device_gets_a_new_credential_after_a_failed_replacement(serve: Serve, telnyx: Telnyx) -> None:
    async with serve(AGED) as service:
        first = (await issue(service, "laptop", lasting_token())).json()
        telnyx.clock.advance(DAY)
        telnyx.sandbox.faults.plans.append(Fault(FaultKind.STATUS, "POST", "/telephony_credentials$", status=503))

        failed = await issue(service, "laptop", lasting_token())
        telnyx.clock.advance(timedelta(seconds=10))
        repeated = await issue(service, "laptop", lasting_token())

        assert failed.status_code in (502, 503)
        assert failed.json()["retryable"] is True
        assert repeated.status_code == 201
        assert repeated.json()["sip_username"] != first["sip_username"]
