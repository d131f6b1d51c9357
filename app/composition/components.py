"""The parts of the service once they are joined: what routes and commands reach into. Joined in `wiring.py`."""

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.adapters.identity.verifier import TokenVerifier
from app.adapters.ledger.push import SqlPush
from app.adapters.rate_limiter import Limiter
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.push import TelnyxConnections
from app.config.settings import Settings
from app.observability.audit_log import AuditTrail
from app.observability.event_metrics import Traffic
from app.observability.metrics import Metrics
from app.observability.tracing import Spans
from app.vending.ids import new_id
from app.vending.operators.lease_admin import Oversight
from app.vending.operators.token_admin import Operations
from app.vending.policy import PolicyInForce
from app.vending.push.attach import Attaching
from app.vending.push.expiry_alerts import ExpiryWatch
from app.vending.push.material_errors import Report
from app.vending.push.register import PushRegistrar
from app.vending.push.upload import Uploads
from app.vending.telephony.devices import Devices
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.revoke import Revoker
from app.vending.upkeep.change_feed import Watch
from app.vending.upkeep.reconciler import Reconciler
from app.vending.upkeep.sweep_jobs import Cleaner
from app.vending.upkeep.sweeper import Sweeper
from app.vending.upkeep.warm_pool import Pool


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Outside:
    """What the parts take from the world that is not configuration: time, chance, traces. Tests bring their own."""

    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = new_id
    jitter: Callable[[], float] = random.random
    spans: Spans | None = None
    """Where traces go; None: where the settings say."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The service, joined up."""

    clock: Callable[[], datetime]
    verifier: TokenVerifier
    policy: PolicyInForce
    issuer: CredentialIssuer
    revoker: Revoker
    devices: Devices
    sweeper: Sweeper
    operations: Operations
    oversight: Oversight
    pool: Pool
    reconciler: Reconciler
    cleaner: Cleaner
    push: PushRegistrar
    push_uploads: Uploads
    attaching: Attaching
    expiry_watch: ExpiryWatch
    watch: Watch
    lint_apns: Callable[[str, str], Awaitable[Report]]
    """Certificate and private key in PEM. On a thread: loading an RSA key takes tens of milliseconds."""
    lint_fcm: Callable[[Any], Awaitable[Report]]
    audit: AuditTrail
    limiter: Limiter
    traffic: Traffic
    spans: Spans | None
    telnyx: TelnyxApi
    connections: TelnyxConnections
    push_ledger: SqlPush
    metrics: Metrics
    check_ledger: Callable[[], Awaitable[None]]
    check_telnyx: Callable[[], Awaitable[None]]
    reload: Callable[[Settings], Awaitable[None]]
    """Put other settings into effect, as far as RELOADED goes: all of them or, when this raises SettingsError, none."""
    open: Callable[[], AbstractAsyncContextManager[None]]
    """For a command: the parts may be used inside, without background work, and everything is closed behind it."""
    running: Callable[[], AbstractAsyncContextManager[None]]
    """For the lifespan: background work goes on inside, and everything is closed behind it."""
