"""Backends receive events of leases, push credentials and denials, and operators replay dead letters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.tables import event_deliveries
from app.vending.events.models import DELIVERY_PERIOD, EventType
from tests.support.admin_api import admin_request
from tests.support.push_api import register
from tests.support.push_material import android, same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service, settings_for
from tests.support.tokens import ISSUER, token
from tests.support.waiting import eventually
from tests.support.webhooks import SECRET, Receiver, configure_endpoints, encoded, stored_events, webhook_receiver

DENIES_MALLORY = """
[[policy.rules]]
name = "suspended"
effect = "deny"
claims.sub = "mallory"

[[policy.rules]]
name = "all"
admin = true
"""


@asynccontextmanager
async def service_with(
    telnyx: Telnyx,
    database: str,
    folder: Path,
    receivers: dict[str, Receiver],
    more: str = DENIES_MALLORY,
    **changes: Any,
) -> AsyncIterator[Service]:
    changes = configure_endpoints(folder, receivers, more) | changes
    async with running_service(telnyx, database, propagation_seconds=0, **changes) as service:
        yield service


async def finish_deliveries(service: Service) -> None:
    """Before a step of the clock: the retry of a failure that is recorded after it would be later than the step."""
    await service.components.events.deliverer.finish()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with webhook_receiver() as receiver:
        yield receiver


async def test_backend_receives_the_events_of_a_device_in_order(
    telnyx: Telnyx, database: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with service_with(telnyx, database, tmp_path, {"backend": receiver}) as service:
        lease = (await service.issue("laptop")).json()["id"]
        await service.ask("PATCH", f"/{lease}", json={"ttl_seconds": 3600})
        await service.ask("DELETE", f"/{lease}")
        await eventually(lambda: len(receiver.received) == 3)

    assert receiver.types() == [EventType.LEASE_ISSUED, EventType.LEASE_RENEWED, EventType.LEASE_REVOKED]
    assert all(received.is_signed_with(SECRET) for received in receiver.received)
    event = receiver.received[0].event
    (credential,) = telnyx.sandbox.account.credentials.values() or [None]
    assert event["subject"] == f"leases/{lease}"
    assert event["data"]["device_id"] == "laptop"
    assert event["data"]["sip_address"].endswith("@sip.telnyx.com")
    assert credential is None or credential.sip_username == event["data"]["sip_username"]


async def test_denial_and_push_registration_are_events(
    telnyx: Telnyx, database: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with service_with(telnyx, database, tmp_path, {"backend": receiver}) as service:
        assert (await service.issue("laptop", user="mallory")).status_code == 403
        assert (await register(service, same_ios())).status_code == 201
        await eventually(lambda: len(receiver.received) == 2)

    events = {received.event["type"]: received.event["data"] for received in receiver.received}
    assert events[EventType.ACCESS_DENIED]["rule"] == "suspended"
    assert events[EventType.PUSH_REGISTERED]["type"] == "ios"


async def test_expiry_of_a_push_certificate_is_an_event(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with service_with(telnyx, sqlite, tmp_path, {"backend": receiver}) as service:
        assert (await register(service, same_ios())).status_code == 201
        await eventually(lambda: receiver.received)
        await finish_deliveries(service)
        found = await service.components.ledger.push.expiring_objects(10)
        assert found[0].not_after is not None
        service.clock.advance(found[0].not_after - service.clock() - timedelta(days=6))
        await service.components.push.expiry_alerts.check()
        await eventually(lambda: EventType.PUSH_EXPIRING in receiver.types())

    data = next(received.event["data"] for received in receiver.received if "days_left" in received.event["data"])
    assert (data["days_left"], data["subject"]) == (6, None)


async def test_no_secret_is_in_events_or_in_the_ledger(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    users_token = token("alice", jti="USER-TOKEN-CANARY")
    headers = {"Authorization": f"Bearer {users_token}"}
    receiver.body = b"RESPONSE-CANARY"
    async with service_with(telnyx, sqlite, tmp_path, {"backend": receiver}, log_level="debug") as service:
        login = (
            await service.ask("POST", json={"device_id": "laptop", "label": "LABEL-CANARY"}, headers=headers)
        ).json()
        material = android("pushed")
        assert (await register(service, material)).status_code == 201
        await service.issue("laptop", user="mallory")
        await eventually(lambda: len(receiver.received) == 3)
        receiver.status = 500
        await service.ask("DELETE")
        await eventually(lambda: len(receiver.received) > 3)
        metrics = (await service.client.get("/metrics")).text
        passwords = [credential.sip_password for credential in telnyx.sandbox.account.credentials.values()]
        listed = await admin_request(service, "GET", "/events", state="pending")

    bodies = "".join(received.body.decode() + str(received.headers) for received in receiver.received)
    outputs = {
        "events": bodies,
        "ledger": "".join(path.read_bytes().decode("latin-1") for path in tmp_path.glob("ledger.db*")),
        "log": capsys.readouterr().err,
        "metrics": metrics,
        "list": listed.text,
    }
    secrets = [login["login_token"], users_token, encoded(SECRET), SECRET.decode(), "RESPONSE-CANARY", *passwords]
    secrets += [users_token.split(".")[2], "PRIVATE KEY"]
    for place, text in outputs.items():
        assert [secret for secret in secrets if secret in text] == [], place
    assert "LABEL-CANARY" not in bodies


async def test_login_does_not_wait_for_a_slow_endpoint(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.delay_seconds = 120.0
    async with service_with(telnyx, sqlite, tmp_path, {"backend": receiver}) as service:
        async with asyncio.timeout(90):
            for number in range(20):
                assert (await service.issue(f"device-{number}", user=f"user-{number}")).status_code == 201
        await eventually(lambda: receiver.in_flight)


async def test_erased_user_is_not_named_in_later_deliveries(
    telnyx: Telnyx, database: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.status = 503
    async with service_with(telnyx, database, tmp_path, {"backend": receiver}) as service:
        lease = (await service.issue("canary-laptop", user="alice-canary")).json()["id"]
        await service.issue("canary-laptop", user="mallory")
        await eventually(lambda: receiver.received)
        body = {"issuer": ISSUER, "subject": "alice-canary", "confirm": "dialtone"}
        assert (await admin_request(service, "POST", "/erasures", body)).status_code in (200, 202)
        stored = str(await stored_events(service.components.ledger.database))
        assert "alice-canary" not in stored
        await finish_deliveries(service)
        receiver.received.clear()
        receiver.status = 200
        service.clock.advance(timedelta(minutes=10))
        await eventually(lambda: len({received.event["type"] for received in receiver.received}) >= 3)

    events = {received.id: received.event for received in receiver.received}.values()
    of_lease = [event for event in events if event["data"]["lease_id"] == lease]
    assert [event["type"] for event in of_lease] == [EventType.LEASE_ISSUED, EventType.LEASE_REVOKED]
    assert "alice-canary" not in str(of_lease)


async def test_erasure_includes_events_that_another_transaction_has_locked(
    telnyx: Telnyx, postgres: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.status = 503
    async with service_with(telnyx, postgres, tmp_path, {"backend": receiver}) as service:
        await service.issue("laptop", user="alice-canary")
        await eventually(lambda: receiver.received)
        body = {"issuer": ISSUER, "subject": "alice-canary", "confirm": "dialtone"}
        async with service.components.ledger.database.writing() as connection:
            await connection.execute(sa.select(event_deliveries.c.sequence).with_for_update())
            erasing = asyncio.create_task(admin_request(service, "POST", "/erasures", body))
            await asyncio.sleep(0.5)
        assert (await erasing).status_code in (200, 202)

        assert "alice-canary" not in str(await stored_events(service.components.ledger.database))


async def test_operator_lists_and_replays_dead_letters(
    telnyx: Telnyx, database: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.status = 500
    async with service_with(telnyx, database, tmp_path, {"backend": receiver}) as service:
        for device in ("laptop", "phone"):
            await service.issue(device)
        await eventually(lambda: receiver.received)
        await finish_deliveries(service)
        service.clock.advance(DELIVERY_PERIOD + timedelta(minutes=1))
        await service.components.events.deliverer.maintain()

        page = (await admin_request(service, "GET", "/events", limit=1)).json()
        rest = (await admin_request(service, "GET", "/events", cursor=page["next_cursor"])).json()
        metrics = (await service.client.get("/metrics")).text
        await finish_deliveries(service)
        receiver.status = 200
        receiver.received.clear()
        replayed = await admin_request(service, "POST", "/events/replays", {"endpoint": "backend"})
        await eventually(lambda: len(receiver.received) == 2)

        assert [event["device_id"] for event in [*page["data"], *rest["data"]]] == ["phone", "laptop"]
        assert {event["state"] for event in [*page["data"], *rest["data"]]} == {"dead"}
        assert replayed.json() == {"replayed": 2, "complete": True, "remaining": 0, "endpoint_removed": 0}
        assert 'dialtone_events_dead{endpoint="backend"} 2.0' in metrics
        assert 'dialtone_events_failed_total{endpoint="backend",reason="status_500"}' in metrics


async def test_replay_reports_dead_letters_that_another_transaction_changes(
    telnyx: Telnyx, postgres: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.status = 500
    async with service_with(telnyx, postgres, tmp_path, {"backend": receiver}) as service:
        await service.issue("laptop")
        await eventually(lambda: receiver.received)
        await finish_deliveries(service)
        service.clock.advance(DELIVERY_PERIOD + timedelta(minutes=1))
        await service.components.events.deliverer.maintain()
        async with service.components.ledger.database.writing() as connection:
            await connection.execute(sa.select(event_deliveries.c.sequence).with_for_update())
            during = await admin_request(service, "POST", "/events/replays", {})
        after = await admin_request(service, "POST", "/events/replays", {})

    assert during.json() == {"replayed": 0, "complete": False, "remaining": 1, "endpoint_removed": 0}
    assert after.json() == {"replayed": 1, "complete": True, "remaining": 0, "endpoint_removed": 0}


@pytest.mark.parametrize("body", [{"event_id": "1"}, {"endpoint": "Backend!"}, {"unknown": 1}])
async def test_invalid_replay_is_rejected(service: Service, body: dict[str, Any]) -> None:
    assert (await admin_request(service, "POST", "/events/replays", body)).status_code == 422


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_user_without_the_admin_scope_cannot_use_events(service: Service, method: str) -> None:
    path = "/v1/admin/events" + ("/replays" if method == "POST" else "")
    answer = await service.client.request(method, path, headers={"Authorization": f"Bearer {token()}"}, json={})
    assert answer.status_code == 403


async def test_reload_changes_endpoints_and_secrets(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with service_with(telnyx, sqlite, tmp_path, {}) as service:
        await service.issue("laptop")
        changes = configure_endpoints(tmp_path, {"added": receiver}, DENIES_MALLORY)
        new_secret = b"n" * 32
        (tmp_path / "webhook-secret").write_text(encoded(new_secret))
        await service.components.reload(settings_for(telnyx.url, sqlite, propagation_seconds=0, **changes))

        await service.issue("phone")
        await eventually(lambda: receiver.received)

    assert [received.event["data"]["device_id"] for received in receiver.received] == ["phone"]
    assert receiver.received[0].is_signed_with(new_secret)
