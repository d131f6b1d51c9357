"""OIDC back-channel logout over HTTP: the response, and the effect on devices and tokens."""

import time
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.adapters.ledger.engines import database_url, open_engine
from app.vending.models import IssueRequest
from app.vending.telephony.lease import LeaseState
from app.vending.telephony.revoke import MAX_RETRY_DELAY
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_components, running_service
from tests.support.tokens import logout_token, principal, token
from tests.support.waiting import eventually

PATH = "/v1/backchannel-logout"


async def log_out(service: Service, **changes: Any) -> httpx.Response:
    return await service.client.post(PATH, data={"logout_token": logout_token(**changes)})


async def issue_with(service: Service, device: str, **claims: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(**claims)}"}
    return await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


async def test_logout_ends_the_users_devices_and_earlier_tokens(service: Service) -> None:
    before = token("alice")
    for device in ("laptop", "phone"):
        await service.issue(device)
    await service.issue("desk", user="bob")

    answer = await log_out(service)

    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["cache-control"] == "no-store"
    await eventually(lambda: len(service.telnyx.live()) == 1)
    refused = await service.client.get("/v1/telephony-credentials", headers={"Authorization": f"Bearer {before}"})
    assert_problem(refused, 401, "invalid_token")
    assert (await service.issue("desk", user="bob")).status_code == 200
    later = {"Authorization": f"Bearer {token('alice', iat=int(time.time()) + 2)}"}
    page = (await service.client.get("/v1/telephony-credentials", headers=later)).json()
    assert {item["state"] for item in page["data"]} <= {LeaseState.REVOKING.value}


async def test_new_login_works_right_after_the_logout(service: Service) -> None:
    old = (await service.issue("laptop")).json()
    await log_out(service, iat=int(time.time()) - 5)

    new = await issue_with(service, "laptop")

    assert new.status_code == 201
    assert new.json()["sip_username"] != old["sip_username"]


async def test_logout_of_one_session_keeps_the_others(service: Service) -> None:
    for device, session in (("here", "s-1"), ("there", "s-2")):
        assert (await issue_with(service, device, sid=session)).status_code == 201
    earlier = {"Authorization": f"Bearer {token(sid='s-1')}"}

    assert (await log_out(service, sid="s-1", sub=...)).status_code == 200

    ended = await service.client.post("/v1/telephony-credentials", headers=earlier, json={"device_id": "here"})
    assert ended.status_code == 401
    kept = await issue_with(service, "there", sid="s-2")
    assert kept.status_code == 200
    await eventually(lambda: len(service.telnyx.live()) == 1)


async def test_device_belongs_to_the_session_of_its_last_request(service: Service) -> None:
    first = (await issue_with(service, "laptop", sid="s-1")).json()
    second = (await issue_with(service, "laptop", sid="s-2")).json()
    assert first["sip_username"] == second["sip_username"]

    await log_out(service, sid="s-1")

    assert (await issue_with(service, "laptop", sid="s-2")).json()["sip_username"] == second["sip_username"]
    await log_out(service, sid="s-2")
    await eventually(lambda: service.telnyx.live() == [])


async def test_replayed_logout_token_is_rejected_and_changes_nothing(service: Service) -> None:
    sent = {"logout_token": logout_token(iat=int(time.time()) - 5)}
    assert (await service.client.post(PATH, data=sent)).status_code == 200
    again = await service.issue("laptop")
    assert again.status_code == 201

    replayed = await service.client.post(PATH, data=sent)

    assert_problem(replayed, 400, "invalid_logout_token")
    assert (await service.issue("laptop")).json()["sip_username"] == again.json()["sip_username"]


@pytest.mark.parametrize(
    "content",
    [
        {"content": b"", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": {"other": "x"}},
        {"data": {"logout_token": ["a", "b"]}},
        {"data": {"logout_token": "nonsense"}},
        {"data": {"logout_token": token()}},
        {"content": b"logout_token=%ff&\xff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": {f"f{n}": "x" for n in range(50)}},
    ],
    ids=["empty", "another field", "twice", "malformed", "an access token", "not UTF-8", "fifty fields"],
)
async def test_invalid_logout_token_is_400_and_causes_no_calls(service: Service, content: dict[str, Any]) -> None:
    assert_problem(await service.client.post(PATH, **content), 400, "invalid_logout_token")


async def test_only_form_bodies_are_accepted(service: Service) -> None:
    assert_problem(
        await service.client.post(PATH, json={"logout_token": logout_token()}), 415, "unsupported_media_type"
    )
    form = await service.ask("POST", data={"device_id": "laptop"})
    assert_problem(form, 415, "unsupported_media_type")


async def test_oversized_form_is_rejected(service: Service) -> None:
    assert_problem(await service.client.post(PATH, data={"logout_token": "x" * 70_000}), 413, "body_too_large")


async def test_rejection_is_logged_with_its_reason_and_without_the_token(
    telnyx: Telnyx, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spent = logout_token(exp=1)
    async with running_service(telnyx, sqlite) as service:
        await service.client.post(PATH, data={"logout_token": spent})

    log = capsys.readouterr().err
    assert any('"event":"denied"' in line and '"expired"' in line for line in log.splitlines())
    assert not any(part in log for part in spent.split("."))


async def test_logout_succeeds_during_a_telnyx_outage_and_deletion_is_retried(telnyx: Telnyx, sqlite: str) -> None:
    async with running_components(telnyx, sqlite) as components:
        await components.telephony.issuer.issue(principal("alice"), IssueRequest("laptop"))
        telnyx.fail("status", method="DELETE", path="telephony_credentials", status=503, times=50)

        await components.telephony.revoker.log_out(await components.identity.verifier.verify_logout(logout_token()))
        await components.upkeep.sweeper.sweep()  # waits for the sweep that the logout has started

        assert telnyx.calls("DELETE")
        assert len(telnyx.live()) == 1
        telnyx.sandbox.faults.plans.clear()
        telnyx.clock.advance(MAX_RETRY_DELAY)
        await components.upkeep.sweeper.sweep()
        assert telnyx.live() == []


async def test_logout_fails_if_the_ledger_is_unavailable(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        engine = open_engine(database_url(database))
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE logout_tokens RENAME TO hidden"))

        answer = await log_out(service)

        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE hidden RENAME TO logout_tokens"))
        await engine.dispose()
        assert_problem(answer, 503, "ledger_unavailable")
        assert (await service.issue("laptop")).status_code == 201
