"""The components of a running service, grouped by part. `build.py` builds them; routes and commands use them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from app.adapters.http_client import HttpClient
from app.adapters.identity.grant_keys import ActiveGrantKeys
from app.adapters.identity.sign_in import OperatorSignIn
from app.adapters.identity.verifier import TokenVerifier
from app.adapters.ledger.audit import SqlAudit
from app.adapters.ledger.database import Database
from app.adapters.ledger.deliveries import SqlDeliveries
from app.adapters.ledger.erasure import SqlErasure
from app.adapters.ledger.grants import SqlGrants
from app.adapters.ledger.lease_search import SqlLeaseSearch
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.not_before import SqlNotBefore
from app.adapters.ledger.pg_login import PgLogin
from app.adapters.ledger.push import SqlPush
from app.adapters.ledger.sweep import SqlSweep
from app.adapters.login_cache.shared import SharedLoginCache
from app.adapters.rate_limiter import RateLimiter
from app.adapters.shared_counts import SharedCounts
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.credentials import TelnyxCredentials
from app.adapters.telnyx.outbound import TelnyxOutbound
from app.adapters.telnyx.push import TelnyxConnections
from app.adapters.webhooks import WebhookSender
from app.composition.issuers import KeySetRegistry
from app.config.settings import Settings
from app.observability.audit_log import AuditLog
from app.observability.metrics import EventMetrics, Metrics
from app.vending.events.admin import EventAdmin
from app.vending.events.delivery import EventDeliverer
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.grants.mint import GrantMinter
from app.vending.grants.revoke import GrantRevoker
from app.vending.ids import new_id
from app.vending.not_before import NotBeforeRegistry
from app.vending.operators.erasure import UserEraser
from app.vending.operators.lease_admin import LeaseAdmin
from app.vending.operators.token_admin import TokenAdmin
from app.vending.policy import ActivePolicy
from app.vending.push.attach import PushAttacher
from app.vending.push.expiry_alerts import ExpiryAlerts
from app.vending.push.material_errors import MaterialReport
from app.vending.push.models import PushObjectUse
from app.vending.push.register import PushRegistrar
from app.vending.push.upload import PushUploader
from app.vending.replica import Replica
from app.vending.service_status import ServiceStatus
from app.vending.telephony.devices import Devices
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.last_use import LastUses
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.presence import LOOKUP_SECONDS, Presence
from app.vending.telephony.recover import Recovery
from app.vending.telephony.renew import LeaseRenewer
from app.vending.telephony.revoke import Revoker
from app.vending.upkeep.change_feed import ChangePoller
from app.vending.upkeep.outbound_guard import OutboundGuard
from app.vending.upkeep.reconciler import Reconciler
from app.vending.upkeep.sweep_jobs import SweepJobs
from app.vending.upkeep.sweeper import Sweeper
from app.vending.upkeep.warm_pool import WarmPool
from app.vending.visibility import ALL_ISSUERS, Visibility


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Overrides:
    """Sources of time, randomness and traces, and a deadline, which tests replace."""

    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = new_id
    jitter: Callable[[], float] = random.random
    lookup_seconds: float = LOOKUP_SECONDS
    tracer: Tracer | None = None
    """None means that the settings decide."""


@dataclass(frozen=True, slots=True)
class WakeEvents:
    """Setting an event runs the background task of that name immediately."""

    sweeper: asyncio.Event = field(default_factory=asyncio.Event)
    warm_pool: asyncio.Event = field(default_factory=asyncio.Event)
    push_sweeper: asyncio.Event = field(default_factory=asyncio.Event)
    change_feed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Metrics and traces, which other parts write to."""

    registry: CollectorRegistry
    events: EventMetrics
    tracer: Tracer | None
    """None if tracing is off."""
    shut_down: Callable[[], None]
    """Sends the remaining spans. Blocks, so call it in a thread."""


@dataclass(frozen=True, slots=True)
class LedgerComponents:
    """The database and its tables, with one object per group of tables."""

    engine: AsyncEngine
    database: Database
    login: PgLogin
    leases: SqlLeases
    search: SqlLeaseSearch
    sweep: SqlSweep
    not_before: SqlNotBefore
    push: SqlPush
    audit: SqlAudit
    erasure: SqlErasure
    grants: SqlGrants
    deliveries: SqlDeliveries
    check: Callable[[], Awaitable[None]]
    """Raises LedgerUnavailable unless the database is reachable, writable and migrated."""


@dataclass(frozen=True, slots=True)
class IdentityComponents:
    """Authentication and policy."""

    key_sets: KeySetRegistry
    verifier: TokenVerifier
    policy: ActivePolicy
    not_before: NotBeforeRegistry
    sign_in: OperatorSignIn
    grant_keys: ActiveGrantKeys


@dataclass(frozen=True, slots=True)
class TelnyxComponents:
    """Operations of Telnyx's API."""

    http: HttpClient
    api: TelnyxApi
    credentials: TelnyxCredentials
    connections: TelnyxConnections
    outbound: TelnyxOutbound
    outbound_guard: OutboundGuard
    check: Callable[[], Awaitable[None]]
    """Raises a TelnyxError unless Telnyx accepts the key and knows the default connection."""


@dataclass(frozen=True, slots=True)
class TelephonyComponents:
    """Logins and leases of devices."""

    issuer: CredentialIssuer
    revoker: Revoker
    devices: Devices
    recovery: Recovery
    renewer: LeaseRenewer
    login_cache: LoginCache
    shared_logins: SharedLoginCache | None
    last_uses: LastUses
    presence: Presence


@dataclass(frozen=True, slots=True)
class PushComponents:
    """Push credentials."""

    registrar: PushRegistrar
    uploads: PushUploader
    attachments: PushAttacher
    expiry_alerts: ExpiryAlerts
    validate_apns: Callable[[str, str], Awaitable[MaterialReport]]
    """Certificate and private key in PEM. Runs in a thread: loading an RSA key takes tens of milliseconds."""
    validate_fcm: Callable[[Any], Awaitable[MaterialReport]]
    """The service account as parsed JSON."""


@dataclass(frozen=True, slots=True)
class GrantComponents:
    """Grants of backends."""

    minter: GrantMinter
    revoker: GrantRevoker


@dataclass(frozen=True, slots=True)
class EventComponents:
    """Events for backends."""

    active: ActiveEndpoints
    sender: WebhookSender
    deliverer: EventDeliverer
    admin: EventAdmin


@dataclass(frozen=True, slots=True)
class UpkeepComponents:
    """Background work on the ledger and at Telnyx."""

    sweeper: Sweeper
    reconciler: Reconciler
    warm_pool: WarmPool
    sweep_jobs: SweepJobs
    change_poller: ChangePoller


@dataclass(frozen=True, slots=True)
class OperatorComponents:
    """Operator actions, and the status of the service."""

    leases: LeaseAdmin
    tokens: TokenAdmin
    users: UserEraser
    push: SqlPush
    policy: ActivePolicy
    service_status: Callable[[], ServiceStatus]
    visibility: Visibility = ALL_ISSUERS

    def visible_to(self, visibility: Visibility) -> "OperatorComponents":
        """The same for an operator that may see these issuers only."""
        if visibility.issuers is None:
            return self
        return replace(
            self,
            leases=self.leases.visible_to(visibility),
            tokens=self.tokens.visible_to(visibility),
            users=self.users.visible_to(visibility),
            visibility=visibility,
        )

    async def push_objects(self, limit: int) -> list[PushObjectUse]:
        """The push credentials at Telnyx that visible users registered. Raises LedgerUnavailable."""
        return await self.push.objects_in_use(self.visibility, limit)


@dataclass(frozen=True, slots=True)
class Components:
    """The service, ready to run."""

    clock: Callable[[], datetime]
    replica: Replica
    telemetry: Telemetry
    audit: AuditLog
    rate_limiter: RateLimiter
    shared_counts: SharedCounts | None
    ledger: LedgerComponents
    identity: IdentityComponents
    telnyx: TelnyxComponents
    telephony: TelephonyComponents
    push: PushComponents
    grants: GrantComponents
    events: EventComponents
    upkeep: UpkeepComponents
    operators: OperatorComponents
    metrics: Metrics
    reload: Callable[[Settings], Awaitable[None]]
    """Apply changed settings (`reload.RELOADABLE`). If it raises SettingsError, no setting was changed."""
    open: Callable[[], AbstractAsyncContextManager[None]]
    """Context of a command: the components without background tasks. Closes all connections at the end."""
    run: Callable[[], AbstractAsyncContextManager[None]]
    """Context of the server: runs the background tasks. Closes all connections at the end."""
