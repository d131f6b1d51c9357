"""A receiver of webhooks behind TLS, which checks signatures by the text of the specification."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from aiohttp import web

from app.adapters.ledger.database import Database
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.tables import event_deliveries
from app.vending.events.endpoints import ActiveEndpoints, Network, WebhookEndpoint
from app.vending.events.models import Delivery, EventType, OutboxEvent
from app.vending.ids import new_ordered_id
from app.vending.models import UserKey
from tests.support.certificates import certificate_authority
from tests.support.configuration import configured_by
from tests.support.leases import NOW
from tests.support.tokens import ISSUER, pem

SECRET, FORMER_SECRET = b"canary-secret-of-32-bytes-size!!", b"another-canary-secret-of-32-byte"
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"),)
ALL_TYPES = frozenset(event_type.value for event_type in EventType)

EVENT = Delivery(
    sequence=1,
    endpoint="backend",
    event_id="019ab3f0e5d16a7b4c2d9e8f7a6b5c4d",
    type="dialtone.lease.issued",
    at=NOW,
    about="leases/1",
    issuer="https://id.example.com",
    subject="alicé",
    device_id="laptop",
    lease_id="1",
    data={"sip_username": "gencred1"},
    is_dead=False,
    attempts=0,
    failure=None,
    expires_at=NOW,
    dead_at=None,
)


def encoded(secret: bytes) -> str:
    return "whsec_" + base64.b64encode(secret).decode()


@dataclass(frozen=True)
class ReceivedEvent:
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_with(self, secret: bytes) -> bool:
        """By the specification: HMAC-SHA256 of id, timestamp and body; any of the signatures suffices."""
        signed = b".".join([self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        expected = "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
        return expected in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """Records requests, and answers with `status` after `delay_seconds`."""

    url: str = ""
    status: int = 204
    delay_seconds: float = 0.0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    received: list[ReceivedEvent] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.received.append(ReceivedEvent(headers, await request.read()))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_seconds)
        finally:
            self.in_flight -= 1
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    def endpoint(
        self, name: str = "backend", *, types: frozenset[str] = ALL_TYPES, secrets: tuple[bytes, ...] = (SECRET,)
    ) -> WebhookEndpoint:
        return WebhookEndpoint(name, self.url, types, secrets, certificate_authority().pem, LOOPBACK)

    def types(self) -> list[str]:
        return [received.event["type"] for received in self.received]


@asynccontextmanager
async def webhook_receiver(host: str = "localhost") -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate_authority().server)
    await site.start()
    receiver.url = f"https://{host}:{runner.addresses[0][1]}/hooks"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def configure_endpoints(folder: Path, receivers: dict[str, Receiver], more: str = "") -> dict[str, Any]:
    """Write a dialtone.toml with the test's issuer and these endpoints. Returns the changes of settings."""
    (folder / "ca.pem").write_text(certificate_authority().pem)
    (folder / "key.pem").write_text(pem())
    (folder / "webhook-secret").write_text(encoded(SECRET))
    text = f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["dialtone"]\npem_file = "{folder}/key.pem"\n'
    text += (
        "[[policy.rules]]\nname = 'all'\nissuers = ['" + ISSUER + "']\nadmin = true\n" if "[[policy" not in more else ""
    )
    for name, receiver in receivers.items():
        text += f'[[events.endpoints]]\nname = "{name}"\nurl = "{receiver.url}"\n'
        text += f'secret_file = "{folder}/webhook-secret"\nca_file = "{folder}/ca.pem"\n'
        text += 'allowed_networks = ["127.0.0.0/8"]\n'
    return configured_by(folder, text + more)


def outbox_of(database: Database, endpoints: Sequence[WebhookEndpoint], clock: Any = lambda: NOW) -> EventOutbox:
    return EventOutbox(
        ActiveEndpoints(tuple(endpoints)),
        is_sqlite=database.is_sqlite,
        sip_domain="sip.example.com",
        clock=clock,
        new_id=new_ordered_id,
    )


def numbered_event(number: int, device: str, clock: Any = lambda: NOW) -> OutboxEvent:
    user_key = UserKey(ISSUER, "alice")
    return OutboxEvent(EventType.LEASE_RENEWED, clock(), f"leases/{number}", user_key, device, {"number": number})


async def add_events(database: Database, outbox: EventOutbox, events: Sequence[OutboxEvent]) -> None:
    await database.write(lambda connection: outbox.add(connection, events))


async def stored_events(database: Database) -> list[dict[str, Any]]:
    rows = await database.rows(sa.select(event_deliveries).order_by(event_deliveries.c.sequence))
    return [dict(row) for row in rows]
