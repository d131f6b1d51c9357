"""Every decision is one audit event: actor, action, reason and the hash of the issued token, without secrets."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.engines import database_url
from app.observability.audit_log import UNAUTHENTICATED_PER_SECOND
from app.vending.audit import AuditAction, Decision
from tests.support.admin_api import admin_request, current_token
from tests.support.push_material import android
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, claims_of, token
from tests.support.waiting import DAY


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, database) as service:
        yield service


async def issue(service: Service, device: str = "laptop", **headers: str) -> httpx.Response:
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    own["Authorization"] = f"Bearer {current_token(service)}"
    return await service.client.post("/v1/telephony-credentials", headers=own, json={"device_id": device})


async def events(service: Service, **criteria: Any) -> list[dict[str, Any]]:
    """Events, newest first, after pending events have been written."""
    while service.components.audit.queued:
        await asyncio.sleep(0.02)
    answer = await admin_request(service, "GET", "/audit", **criteria)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def summaries(found: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    return [(event["action"], event["outcome"], event["reason"]) for event in found]


async def test_lifecycle_of_a_device_is_recorded(service: Service) -> None:
    first = (await issue(service, user_agent="a browser")).json()
    await service.issue("laptop")
    await service.ask("POST", f"/{first['id']}/token")
    await service.ask("PATCH", f"/{first['id']}", json={"label": "Work"})
    await service.ask("DELETE", f"/{first['id']}")

    told = await events(service, subject="alice")

    assert summaries(told) == [
        ("revoked", "done", "asked_by_user"),
        ("renewed", "done", "changed_by_user"),
        ("renewed", "done", "login_token"),
        ("reused", "done", "login_token"),
        ("issued", "done", "login_token"),
    ]
    assert {event["lease_id"] for event in told} == {first["id"]}
    assert {event["actor_subject"] for event in told} == {"alice"}
    assert {event["client_address"] for event in told} == {"127.0.0.1"}


async def test_hash_of_a_found_token_leads_to_its_request(service: Service) -> None:
    answer = await issue(service, user_agent="a browser", x_request_id="the-request")
    await service.issue("tab")
    fingerprint = hashlib.sha256(answer.json()["login_token"].encode()).hexdigest()

    told = await events(service, token_sha256=fingerprint)

    assert [(event["device_id"], event["request_id"], event["user_agent"]) for event in told] == [
        ("laptop", "the-request", "a browser")
    ]


async def test_rejections_are_recorded_with_their_reason(service: Service) -> None:
    await service.client.get("/v1/telephony-credentials", headers={"Authorization": "Bearer rubbish"})
    await service.client.get("/v1/telephony-credentials")
    expired = {"Authorization": f"Bearer {token(exp=claims_of()['exp'] - 9000)}"}
    await service.client.get("/v1/telephony-credentials", headers=expired)
    await service.issue("phone", grant="sip_password")
    plain = {"Authorization": f"Bearer {token()}"}
    await service.client.get("/v1/admin/leases", headers=plain)

    told = await events(service, action="denied")

    assert summaries(told) == [
        ("denied", "denied", "InsufficientScope"),
        ("denied", "denied", "GrantNotAllowed"),
        ("denied", "denied", "expired"),
        ("denied", "denied", "missing_token"),
        ("denied", "denied", "not_three_parts"),
    ]
    assert [event["subject"] for event in told] == ["alice", "alice", None, None, None]
    assert told[1]["device_id"] == "phone"


async def test_errors_are_recorded_as_failed(service: Service, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=500, method="POST", times=9)

    await service.issue("laptop")

    assert summaries(await events(service, subject="alice")) == [("denied", "failed", "TelnyxServerError")]


async def test_push_credentials_are_recorded_without_key_material(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    made = (await service.client.post("/v1/push-credentials", headers=headers, json=android())).json()
    await admin_request(
        service, "PUT", "/connections/1000000000000000001/push-credentials", {"android_push_credential_id": made["id"]}
    )
    await service.client.delete(f"/v1/push-credentials/{made['id']}", headers=headers)

    told = await events(service, action="push_changed")

    assert [event["reason"] for event in told if event["reason"] != "attached"] == ["removed", "registered"]
    assert told[-1]["details"]["app_id"] == made["app_id"]
    assert "PRIVATE KEY" not in json.dumps(told)


async def test_operator_actions_are_recorded_with_the_operator(service: Service) -> None:
    lease = (await service.issue("laptop")).json()["id"]
    await service.issue("tab")
    await admin_request(service, "DELETE", f"/leases/{lease}")
    await admin_request(service, "POST", "/revocations", {"issuer": ISSUER, "subject": "alice", "refuse_tokens": True})
    await admin_request(service, "POST", "/keys/refresh", {})
    run = (await admin_request(service, "POST", "/sweeps", {})).json()
    async with asyncio.timeout(30):
        while (await admin_request(service, "GET", f"/sweeps/{run['id']}")).json()["state"] == "running":
            await asyncio.sleep(0.02)

    told = await events(service, subject="olga")

    assert summaries(told) == [
        ("admin_action", "done", "dry_sweep"),
        ("admin_action", "done", "keys_refreshed"),
        ("revoked", "unconfirmed", "asked_by_operator"),
        ("admin_action", "done", "tokens_refused"),
        ("revoked", "done", "asked_by_operator"),
    ]
    assert told[2]["details"] == {"issuer": ISSUER, "subject": "alice", "leases": 1}
    assert told[-1]["subject"] == "alice"


async def test_expiry_is_recorded_when_the_credential_is_deleted(service: Service) -> None:
    lease = (await service.issue("laptop")).json()["id"]
    await service.components.upkeep.sweeper.sweep()  # the sweep at the start must not find the lease
    service.telnyx.clock.advance(DAY * 2)

    await service.components.upkeep.sweeper.sweep()

    told = await events(service, lease_id=lease, action="swept")
    assert summaries(told) == [("swept", "done", "expired")]
    assert told[0]["actor_subject"] is None


async def test_pages_have_no_gaps(service: Service) -> None:
    for number in range(7):
        await service.issue(f"device-{number}")
    everything = await events(service, subject="alice")

    pages: list[list[str]] = []
    place: dict[str, str] = {}
    while len(pages) < 9:
        page = (await admin_request(service, "GET", "/audit", subject="alice", limit=3, **place)).json()
        pages.append([event["id"] for event in page["data"]])
        if page["next_cursor"] is None:
            break
        place = {"cursor": page["next_cursor"]}

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [name for page in pages for name in page] == [event["id"] for event in everything]


async def test_events_of_the_last_hour_are_counted_by_minute(service: Service) -> None:
    for user in ("alice", "bob"):
        await service.issue("laptop", user=user)
    await service.client.get("/v1/telephony-credentials", headers={"Authorization": "Bearer rubbish"})
    await events(service)

    counted = (await admin_request(service, "GET", "/activity")).json()["data"]

    totals: dict[str, int] = {}
    for minute in counted:
        totals[minute["action"]] = totals.get(minute["action"], 0) + minute["events"]
    assert totals == {"issued": 2, "denied": 1}


async def test_old_events_are_deleted(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, audit_retention_days=7) as service:
        await issue(service, "old")
        await events(service)
        telnyx.clock.advance(DAY * 8)
        await issue(service, "new")

        await service.components.audit.delete_expired()

        told = await events(service, action="issued")
        assert {event["device_id"] for event in told} == {"new"}


async def break_audit(database: str) -> None:
    """Inserts into the audit fail; the other tables work."""
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE audit_events RENAME TO elsewhere"))
    await engine.dispose()


async def restore_audit(database: str) -> None:
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO audit_events"))
    await engine.dispose()


async def test_login_is_issued_although_the_audit_write_fails(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        await break_audit(database)

        answer = await service.issue("laptop")

        assert answer.status_code == 201
        assert service.components.audit.queued == 1


async def test_required_audit_rejects_logins_it_cannot_record(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, audit_required=True) as service:
        good = await service.issue("laptop")
        await break_audit(database)

        refused = await service.issue("laptop")

        assert good.status_code == 201
        assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
        assert refused.json()["retryable"] is True
        assert telnyx.created() == 1
        await restore_audit(database)
        told = await events(service, subject="alice")
        assert [event["action"] for event in told] == ["reused", "issued"], "the decision is recorded later"


async def test_every_eviction_is_recorded_although_a_required_audit_fails(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, audit_required=True) as service:
        for device in ("first", "second", "third"):
            await service.issue(device)
        policy = service.components.identity.policy
        policy.policy = replace(policy.policy, default=replace(policy.policy.default, max_devices=1))
        await break_audit(database)

        refused = await service.issue("fourth")

        assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
        await restore_audit(database)
        told = await events(service, action="revoked")
        assert {event["device_id"] for event in told} == {"first", "second", "third"}


async def test_repeated_requests_of_a_device_are_one_event_in_ten_seconds(telnyx: Telnyx, sqlite: str) -> None:
    now = 1000.0
    async with running_service(telnyx, sqlite, monotonic=lambda: now) as service:
        await issue(service)
        for _ in range(5):
            await issue(service)
        now += 11.0
        await issue(service)

        told = await events(service, action="reused")
        figures = (await service.client.get("/metrics")).text

    assert [event["details"] for event in told] == [{"folded": 4}, {}]
    assert 'dialtone_decisions_total{action="reused",outcome="done"} 6.0' in figures


async def test_same_login_returned_to_another_address_is_a_new_event(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, monotonic=lambda: 1000.0) as service:
        await issue(service)
        for agent in ("phone", "phone", "thief", "phone"):
            headers = {"Authorization": f"Bearer {token('alice')}", "User-Agent": agent}
            await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": "laptop"})

        told = await events(service, action="reused")

    assert [event["user_agent"] for event in told] == ["thief", "phone"]


async def test_required_audit_records_every_repeat(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, audit_required=True) as service:
        for _ in range(4):
            await issue(service)

        assert len(await events(service, action="reused")) == 3


async def test_unwritable_event_does_not_block_later_events(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite) as service:
        service.components.audit.record_nowait(Decision(AuditAction.ADMIN_ACTION, details={"odd": object()}))  # type: ignore[dict-item]
        while service.components.audit.queued:
            await asyncio.sleep(0.02)

        await issue(service)

        assert summaries(await events(service)) == [("issued", "done", "login_token")]
        assert service.components.audit.dropped == 1


async def test_invalid_tokens_are_counted_in_metrics_and_not_stored(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database, monotonic=lambda: 1000.0) as service:
        for _ in range(60):
            await service.client.get("/v1/telephony-credentials", headers={"Authorization": "Bearer rubbish"})

        assert len(await events(service, action="denied")) == UNAUTHENTICATED_PER_SECOND
        assert 'dialtone_denials_total{reason="not_three_parts"} 60.0' in (await service.client.get("/metrics")).text


async def test_each_event_is_logged_as_well(telnyx: Telnyx, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_service(telnyx, sqlite) as service:
        answer = (await issue(service)).json()

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (told,) = [line for line in lines if line.get("audit")]
    assert (told["subject"], told["device_id"], told["lease_id"]) == ("alice", "laptop", answer["id"])
    assert told["token_sha256"] == hashlib.sha256(answer["login_token"].encode()).hexdigest()
    assert answer["login_token"] not in json.dumps(lines)


async def test_names_of_32_hex_digits_are_logged(
    telnyx: Telnyx, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    user, device = "5f0c2d9be1a4483fb1b7f4b6b0e2a9d3", "tab-0b8f9d4e5a6c47d1a2b3c4d5e6f70812"
    async with running_service(telnyx, sqlite) as service:
        await service.issue(device, user=user)

    (told,) = [line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line.get("audit")]
    assert (told["subject"], told["device_id"]) == (user, device)


async def test_secret_in_the_user_agent_is_masked(service: Service) -> None:
    stolen = token()

    await issue(service, user_agent=f"curl {stolen}")

    told = await events(service, subject="alice")
    assert told[0]["user_agent"] == "curl [redacted]"
