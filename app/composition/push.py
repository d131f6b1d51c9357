"""Builds the components of push credentials."""

import asyncio
import time

from app.adapters.push_validation import apns, fcm
from app.adapters.telnyx.push import TelnyxPush
from app.composition.components import (
    IdentityComponents,
    LedgerComponents,
    Overrides,
    PushComponents,
    TelnyxComponents,
    WakeEvents,
)
from app.composition.observability import log_push_expiry
from app.observability.audit_log import AuditLog
from app.vending.grants.binding import DeviceBinding
from app.vending.push.attach import PushAttacher
from app.vending.push.expiry_alerts import ExpiryAlerts
from app.vending.push.register import PushRegistrar, UploadEstimate
from app.vending.push.upload import PushUploader
from app.vending.replica import Replica


def build_push(
    overrides: Overrides,
    replica: Replica,
    wake: WakeEvents,
    audit: AuditLog,
    ledger: LedgerComponents,
    identity: IdentityComponents,
    telnyx: TelnyxComponents,
) -> PushComponents:
    clock = overrides.clock
    uploads = PushUploader(
        ledger=ledger.push,
        telnyx=TelnyxPush(telnyx.api),
        connections=telnyx.connections,
        known_connections=lambda: identity.policy.policy.connections(),
        replica=replica,
        clock=clock,
    )
    attachments = PushAttacher(ledger.push, telnyx.connections, audit)
    registrar = PushRegistrar(
        policy=identity.policy,
        check_known=DeviceBinding(ledger.grants, audit).check_known,
        ledger=ledger.push,
        uploads=uploads,
        attacher=attachments,
        audit=audit,
        estimate=UploadEstimate(time.monotonic),
        clock=clock,
        new_id=overrides.new_id,
        wake_sweeper=wake.push_sweeper.set,
    )
    return PushComponents(
        registrar=registrar,
        uploads=uploads,
        attachments=attachments,
        expiry_alerts=ExpiryAlerts(ledger.push, clock, log_push_expiry),
        validate_apns=lambda certificate, key: asyncio.to_thread(apns.validate, certificate, key, clock()),
        validate_fcm=lambda account: asyncio.to_thread(fcm.validate, account),
    )
