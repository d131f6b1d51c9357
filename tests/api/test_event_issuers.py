"""An endpoint with `issuers` gets events about users of these issuers only."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.vending.events.models import EventType
from tests.support.push_material import android, key, pem_of, same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service, settings_for
from tests.support.tokens import rsa_key, token
from tests.support.waiting import eventually
from tests.support.webhooks import Receiver, configure_endpoints, stored_events, webhook_receiver

NAMES = ("acme", "globex")
CONFIGURATION = "".join(
    f'[[issuers]]\nname = "{name}"\nissuer = "https://{name}.example.com"\naudiences = ["dialtone"]\n'
    f"pem = '''{rsa_key(name).as_pem(private=False).decode()}'''\n"
    for name in NAMES
)
RULES = """
[[policy.rules]]
name = "suspended"
effect = "deny"
claims.suspended = true
[[policy.rules]]
name = "all"
"""
ONLY_ACME = 'issuers = ["acme"]\n' + CONFIGURATION + RULES
"""For the last endpoint."""


@pytest.fixture
async def acme() -> AsyncIterator[Receiver]:
    async with webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
async def everything() -> AsyncIterator[Receiver]:
    async with webhook_receiver() as receiver:
        yield receiver


async def ask(service: Service, name: str, path: str, body: Any, **claims: Any) -> dict[str, Any]:
    users_token = token(f"{name}-user", iss=f"https://{name}.example.com", key=rsa_key(name), **claims)
    headers = {"Authorization": f"Bearer {users_token}"}
    answer = await service.client.request("POST", f"/v1{path}", headers=headers, json=body)
    found: dict[str, Any] = answer.json()
    return found


async def cause_events(service: Service) -> set[str]:
    """A login, a denial and a push registration in each company. Returns what names globex."""
    canaries = {"globex"}
    for name in NAMES:
        login = await ask(service, name, "/telephony-credentials", {"device_id": f"{name}-laptop"})
        denied = await ask(service, name, "/telephony-credentials", {"device_id": f"{name}-tab"}, suspended=True)
        material = android(project_id=name, private_key=pem_of(key(name), pkcs8=True))
        registered = await ask(service, name, "/push-credentials", material)
        assert denied["code"] == "access_denied"
        if name == "globex":
            canaries |= {login["id"], login["sip_username"], registered["id"], registered["fingerprint_sha256"]}
    return canaries


async def test_endpoint_gets_nothing_of_another_issuer(
    telnyx: Telnyx, database: str, tmp_path: Path, acme: Receiver, everything: Receiver
) -> None:
    config = configure_endpoints(tmp_path, {"everything": everything, "acme": acme}, ONLY_ACME)
    async with running_service(telnyx, database, propagation_seconds=0, **config) as service:
        canaries = await cause_events(service)
        await eventually(lambda: (len(everything.received), len(acme.received)) == (6, 3))
        await service.components.events.deliverer.finish()
        service.clock.advance(timedelta(days=2))
        await service.components.upkeep.sweeper.sweep()
        await eventually(lambda: (len(everything.received), len(acme.received)) == (8, 4))

    received = "".join(str(event.headers) + event.body.decode() for event in acme.received)
    assert [canary for canary in canaries if canary in received] == []
    assert {event.event["data"]["issuer"] for event in acme.received} == {"https://acme.example.com"}


async def test_endpoint_of_an_issuer_gets_no_event_about_the_whole_service(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, acme: Receiver, everything: Receiver
) -> None:
    """A push certificate can belong to users of several issuers."""
    config = configure_endpoints(tmp_path, {"everything": everything, "acme": acme}, ONLY_ACME)
    async with running_service(telnyx, sqlite, propagation_seconds=0, **config) as service:
        await ask(service, "globex", "/push-credentials", same_ios())
        await eventually(lambda: everything.received)
        await service.components.events.deliverer.finish()
        (found,) = await service.components.ledger.push.expiring_objects(10)
        assert found.not_after is not None
        service.clock.advance(found.not_after - service.clock() - timedelta(days=6))
        await service.components.push.expiry_alerts.check()
        await eventually(lambda: EventType.PUSH_EXPIRING in everything.types())

        assert {event["endpoint"] for event in await stored_events(service.components.ledger.database)} <= {
            "everything"
        }
    assert not acme.received


async def test_reload_that_limits_an_endpoint_applies_to_stored_events(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, acme: Receiver
) -> None:
    acme.status = 500
    config = configure_endpoints(tmp_path, {"acme": acme}, CONFIGURATION + RULES)
    async with running_service(telnyx, sqlite, propagation_seconds=0, **config) as service:
        await cause_events(service)
        await eventually(lambda: acme.received)
        config = configure_endpoints(tmp_path, {"acme": acme}, ONLY_ACME)
        await service.components.reload(settings_for(telnyx.url, sqlite, propagation_seconds=0, **config))
        await service.components.events.deliverer.finish()  # a failure after the step would be retried after it
        acme.received.clear()
        acme.status = 204
        service.clock.advance(timedelta(minutes=10))
        await eventually(lambda: len(acme.received) == 3)
        await service.components.events.deliverer.finish()

        assert not await stored_events(service.components.ledger.database)
    assert "globex" not in str([event.body for event in acme.received])
