"""The events: their types and data, and which changes of the ledger lead to one. No event contains a secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.vending.audit import AuditAction, AuditEvent, AuditOutcome
from app.vending.errors import (
    AccessDenied,
    DeviceLimitReached,
    GrantNotAllowed,
    InsufficientScope,
    PushLimitReached,
    PushNotAllowed,
)
from app.vending.events.payloads import (
    CommonData,
    DenialData,
    LeaseData,
    PushData,
    PushExpiringData,
    PushRegisteredData,
)
from app.vending.models import UserKey
from app.vending.push.models import PushObject, PushRegistration, days_until
from app.vending.telephony.lease import Lease, LeaseState

DELIVERY_PERIOD = timedelta(days=1)
"""How long the delivery of an event is tried. After that, the event is a dead letter."""

NO_USER = UserKey("", "")
"""The user of events that concern no single user. No token has an empty issuer."""

POLICY_DENIALS = frozenset(
    error.__name__
    for error in (
        AccessDenied,
        InsufficientScope,
        GrantNotAllowed,
        DeviceLimitReached,
        PushNotAllowed,
        PushLimitReached,
    )
)
"""The audit's reasons for denials of an authenticated user by policy."""


class EventType(StrEnum):
    """The `type` of an event."""

    # The event reference of the documentation site is generated from these descriptions.
    LEASE_ISSUED = "dialtone.lease.issued"
    """A device got a credential."""
    LEASE_RENEWED = "dialtone.lease.renewed"
    """The expiry of a device's credential changed."""
    LEASE_REVOKED = "dialtone.lease.revoked"
    """A device was logged out by its user, an operator, the identity provider or the device limit, or Telnyx reported
    its credential as gone."""
    LEASE_EXPIRED = "dialtone.lease.expired"
    """A credential reached its expiry, or ended because the policy assigns another connection."""
    PUSH_REGISTERED = "dialtone.push_credential.registered"
    """A user registered a push credential, or replaced its material or alias."""
    PUSH_EXPIRING = "dialtone.push_credential.expiring"
    """A push certificate expires in 30, 14, 7 or 1 days, or has expired."""
    ACCESS_DENIED = "dialtone.access.denied"
    """The policy denied a user's request."""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event before it has an id. It is stored in the transaction of the change."""

    type: EventType
    at: datetime
    about: str
    """The `subject` of the CloudEvent: the path of the resource below the API's version."""
    user_key: UserKey
    device_id: str
    """Empty if the event concerns no device. Events of one user and device are delivered in order."""
    data: Mapping[str, Any]
    lease_id: str | None = None


def lease_event(before: Lease, after: Lease, sip_domain: str) -> OutboxEvent | None:
    """The event of a lease's transition; None if it changes nothing for the user's device."""
    event_type = _type_of(before, after)
    if event_type is None or after.is_unassigned:
        return None
    data: LeaseData = {
        "platform": after.platform.value,
        "connection_id": after.connection_id,
        "sip_username": after.sip_username,
        "sip_address": None if after.sip_username is None else f"sip:{after.sip_username}@{sip_domain}",
        "expires_at": timestamp(after.expires_at),
        "version": after.version,
        "reason": "lost" if after.state is LeaseState.LOST else None,
    }
    return OutboxEvent(
        event_type, after.updated_at, f"leases/{after.id}", after.user_key, after.device_id, data, after.id
    )


def _type_of(before: Lease, after: Lease) -> EventType | None:
    if before.state is LeaseState.PENDING and after.state is LeaseState.ACTIVE:
        return EventType.LEASE_ISSUED
    if before.state is not LeaseState.ACTIVE:
        return None  # a device that never got its credential
    if after.state is LeaseState.ACTIVE:
        return None if after.expires_at == before.expires_at else EventType.LEASE_RENEWED
    return EventType.LEASE_EXPIRED if after.state is LeaseState.EXPIRED else EventType.LEASE_REVOKED


def push_registered_event(registration: PushRegistration, push_object: PushObject) -> OutboxEvent:
    return OutboxEvent(
        EventType.PUSH_REGISTERED,
        registration.updated_at,
        f"push-credentials/{registration.id}",
        registration.user_key,
        "",
        PushRegisteredData(push_credential_id=registration.id, **_push_facts(push_object)),
    )


def push_expiring_event(push_object: PushObject, at: datetime) -> OutboxEvent:
    """The event of an object with `not_after`."""
    expiry = push_object.not_after
    return OutboxEvent(
        EventType.PUSH_EXPIRING,
        at,
        f"push-certificates/{push_object.fingerprint_sha256}",
        NO_USER,
        push_object.fingerprint_sha256[:64],
        PushExpiringData(days_left=0 if expiry is None else days_until(expiry, at), **_push_facts(push_object)),
    )


def _push_facts(push_object: PushObject) -> PushData:
    return {
        "type": push_object.type.value,
        "app_id": push_object.app_id,
        "fingerprint_sha256": push_object.fingerprint_sha256,
        "not_after": None if push_object.not_after is None else timestamp(push_object.not_after),
    }


def denied_event(event: AuditEvent) -> OutboxEvent | None:
    """The event of a denial by policy; None for any other audit event."""
    decision = event.decision
    is_denial = decision.action is AuditAction.DENIED and decision.outcome is AuditOutcome.DENIED
    reason, rule = decision.reason, decision.details.get("rule")
    if not is_denial or decision.user_key is None or reason is None or reason not in POLICY_DENIALS:
        return None
    return OutboxEvent(
        EventType.ACCESS_DENIED,
        event.at,
        f"audit/{event.id}",
        decision.user_key,
        decision.device_id or "",
        DenialData(reason=reason, rule=rule if isinstance(rule, str) else None),
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one endpoint, as stored in the ledger."""

    sequence: int
    """Grows with each event of the ledger."""
    endpoint: str
    event_id: str
    type: str
    at: datetime
    about: str
    issuer: str
    subject: str
    device_id: str
    lease_id: str | None
    data: Mapping[str, Any]
    is_dead: bool
    attempts: int
    failure: str | None
    """Why the last attempt failed, as a short code."""
    expires_at: datetime
    """When the event becomes a dead letter."""
    dead_at: datetime | None


def cloud_event(delivery: Delivery, source: str) -> dict[str, Any]:
    """The event in CloudEvents' JSON format, version 1.0.2."""
    common: CommonData = {
        "issuer": delivery.issuer or None,
        "subject": delivery.subject or None,
        "device_id": delivery.device_id if delivery.issuer and delivery.device_id else None,
        "lease_id": delivery.lease_id,
    }
    return {
        "specversion": "1.0",
        "id": delivery.event_id,
        "source": source,
        "type": delivery.type,
        "subject": delivery.about,
        "time": timestamp(delivery.at),
        "datacontenttype": "application/json",
        "data": common | dict(delivery.data),
    }


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
