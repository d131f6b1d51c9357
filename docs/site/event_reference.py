"""Generates the reference page of events: when each type occurs, the members of its `data`, and an example.

The service's code generates the examples. The descriptions are those of `EventType` and `app.vending.events.payloads`.
"""

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

from app.vending.audit import NO_REQUEST, AuditEvent, Decision
from app.vending.errors import AccessDenied
from app.vending.events import models, payloads
from app.vending.events.models import (
    Delivery,
    EventType,
    OutboxEvent,
    cloud_event,
    denied_event,
    lease_event,
    push_expiring_event,
    push_registered_event,
)
from app.vending.models import Credential, Platform, UserKey
from app.vending.push.models import PushObject, PushRegistration, PushState, PushType
from app.vending.telephony.lease import Lease, LeaseState

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)
USER = UserKey("https://id.example.com", "alice")
EVENT_ID = "019ab3f0e5d16a7b4c2d9e8f7a6b5c4d"
SOURCE = "/dialtone/production"
SIP_DOMAIN = "sip.telnyx.com"

PENDING_LEASE = Lease(
    id="0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    issuer=USER.issuer,
    subject=USER.subject,
    device_id="tab-7f3a",
    platform=Platform.BROWSER,
    label=None,
    connection_id="1293384261075731499",
    credential_name="production-0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    ttl_seconds=86_400,
    state=LeaseState.PENDING,
    version=1,
    created_at=NOW,
    updated_at=NOW,
    expires_at=NOW + DAY,
    usable_at=NOW,
)
CREDENTIAL = Credential("1", PENDING_LEASE.credential_name, "1293384261075731499", "gencredXhZ5fC0r2P", NOW + DAY, NOW)
LEASE = PENDING_LEASE.activate(CREDENTIAL, NOW, NOW)
CERTIFICATE = PushObject(
    fingerprint="",
    type=PushType.IOS,
    telnyx_alias="",
    state=PushState.ACTIVE,
    version=2,
    app_id="com.example.phone",
    fingerprint_sha256=":".join(["3A", "5F"] * 16),
    not_after=NOW + 365 * DAY,
    created_at=NOW,
    updated_at=NOW,
)
REGISTRATION = PushRegistration("5c2f8a1e9b3d4c7f8e6a0b1c2d3e4f5a", *USER, "phone", "", NOW, NOW)
DENIAL = AuditEvent(
    "8d1c6e0f2b7a49c3a5d4e6f708192a3b", NOW, Decision.denial(AccessDenied("suspended"), USER, "tab-7f3a"), NO_REQUEST
)

JSON_TYPES = {"str": "string", "str | None": "string or null", "int": "integer"}


class Example(NamedTuple):
    """An event of one type, and the class in `payloads` that describes the members of its `data`."""

    event: OutboxEvent
    data: str


class Member(NamedTuple):
    """A member of `data`."""

    name: str
    json_type: str
    description: str


def examples() -> dict[EventType, Example]:
    """An event of each type."""
    later = NOW + timedelta(hours=20)
    leases = (
        (PENDING_LEASE, LEASE),
        (LEASE, LEASE.extend(later + DAY, later)),
        (LEASE, LEASE.start_revoking(later)),
        (LEASE, LEASE.mark_expired(NOW + DAY)),
    )
    expiry = NOW + 364 * DAY
    found = [Example(_made(lease_event(before, after, SIP_DOMAIN)), "LeaseData") for before, after in leases]
    found.append(Example(push_registered_event(REGISTRATION, CERTIFICATE), "PushRegisteredData"))
    found.append(
        Example(push_expiring_event(replace(CERTIFICATE, not_after=expiry), expiry - 7 * DAY), "PushExpiringData")
    )
    found.append(Example(_made(denied_event(DENIAL)), "DenialData"))
    return {example.event.type: example for example in found}


def _made(event: OutboxEvent | None) -> OutboxEvent:
    if event is None:
        raise AssertionError("the change causes no event")
    return event


def body(event: OutboxEvent) -> dict[str, Any]:
    """The event as an endpoint receives it."""
    issuer, subject = event.user_key
    delivery = Delivery(
        sequence=1,
        endpoint="voice-backend",
        event_id=EVENT_ID,
        type=event.type.value,
        at=event.at,
        about=event.about,
        issuer=issuer,
        subject=subject,
        device_id=event.device_id,
        lease_id=event.lease_id,
        data=event.data,
        is_dead=False,
        attempts=0,
        failure=None,
        expires_at=event.at + models.DELIVERY_PERIOD,
        dead_at=None,
    )
    return cloud_event(delivery, SOURCE)


def members(name: str) -> list[Member]:
    """The members that a class of `payloads` describes, with those of its base."""
    node = _class(payloads, name)
    found = [
        member
        for base in node.bases
        if isinstance(base, ast.Name) and base.id != "TypedDict"
        for member in members(base.id)
    ]
    for field, description in _described(node):
        if isinstance(field, ast.AnnAssign):
            annotation = ast.unparse(field.annotation).removeprefix("NotRequired[").removesuffix("]")
            found.append(Member(ast.unparse(field.target), JSON_TYPES[annotation], description))
    return found


def meanings() -> dict[EventType, str]:
    """When each type of event occurs."""
    described = _described(_class(models, "EventType"))
    return {
        EventType[ast.unparse(field.targets[0])]: description
        for field, description in described
        if isinstance(field, ast.Assign)
    }


def _class(module: ModuleType, name: str) -> ast.ClassDef:
    tree = ast.parse(inspect.getsource(module))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _described(node: ast.ClassDef) -> Iterator[tuple[ast.stmt, str]]:
    """The statements of a class that a string follows, each with this string in one line."""
    for field, following in pairwise(node.body):
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            yield field, " ".join(str(following.value.value).split())


def lines() -> Iterator[str]:
    """The page."""
    when = meanings()
    yield from (
        "# Event reference",
        "",
        "[Events](events.md) describes endpoints, signatures and delivery. The service's code generates the examples.",
        "",
        "| type | when |",
        "|---|---|",
        *(f"| [`{event_type.value}`](#{_anchor(event_type)}) | {when[event_type]} |" for event_type in EventType),
        "",
        "## Members of `data` in all events",
        "",
        *_table(members("CommonData")),
    )
    for event_type, example in examples().items():
        yield from (
            f"## {event_type.value}",
            "",
            when[event_type],
            "",
            *_table(members(example.data)),
            "```json",
            json.dumps(body(example.event), indent=2),
            "```",
            "",
        )


def _anchor(event_type: EventType) -> str:
    """The id of the heading, as GitHub and the site make it."""
    return event_type.value.replace(".", "")


def _table(rows: list[Member]) -> Iterator[str]:
    yield "| member | type | value |"
    yield "|---|---|---|"
    for row in rows:
        yield f"| `{row.name}` | {row.json_type} | {row.description} |"
    yield ""
