"""Builds the components of the service, with one function per part. No connection opens before it is used."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

from app import __version__
from app.adapters.http_client import HttpClient, HttpClients
from app.adapters.identity.grant_keys import ActiveGrantKeys
from app.adapters.identity.sign_in import OperatorSignIn
from app.adapters.identity.verifier import TokenVerifier
from app.adapters.ledger.pg_listener import PgListener
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.credentials import TelnyxCredentials
from app.adapters.telnyx.outbound import TelnyxOutbound
from app.adapters.telnyx.push import TelnyxConnections
from app.adapters.telnyx.registrations import TelnyxRegistrations
from app.composition.components import (
    Components,
    EventComponents,
    IdentityComponents,
    LedgerComponents,
    OperatorComponents,
    Overrides,
    PushComponents,
    Telemetry,
    TelephonyComponents,
    TelnyxComponents,
    UpkeepComponents,
    WakeEvents,
)
from app.composition.events import build_events
from app.composition.grants import build_grants
from app.composition.issuers import KeySetRegistry
from app.composition.ledger import build_ledger
from app.composition.login_cache import build_shared_login_cache, cached_devices
from app.composition.observability import (
    build_audit,
    build_metrics,
    build_telemetry,
    log_failed_read,
    log_outbound,
    log_shadow_policy,
)
from app.composition.periodic import TaskRunner, periodic_tasks
from app.composition.push import build_push
from app.composition.rate_limits import build_rate_limiter, build_shared_counts
from app.composition.reload import SettingsReloader
from app.composition.replica import build_replica
from app.config.settings import Settings
from app.observability.audit_log import AuditLog
from app.vending.errors import LedgerUnavailable
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.grants.binding import DeviceBinding
from app.vending.not_before import NotBeforeRegistry
from app.vending.operators.erasure import UserEraser
from app.vending.operators.lease_admin import LeaseAdmin
from app.vending.operators.token_admin import TokenAdmin
from app.vending.policy import ActivePolicy
from app.vending.replica import Replica
from app.vending.service_status import ServiceStatus
from app.vending.single_flight import SingleFlight
from app.vending.telephony.create import LoginFactory
from app.vending.telephony.device_limit import DeviceLimit
from app.vending.telephony.devices import Devices
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.last_use import LastUses
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.presence import Presence
from app.vending.telephony.recover import Recovery
from app.vending.telephony.renew import LeaseRenewer
from app.vending.telephony.revoke import Revoker
from app.vending.upkeep.change_feed import ChangePoller
from app.vending.upkeep.erased_users import CachedUsers
from app.vending.upkeep.outbound_guard import OutboundGuard
from app.vending.upkeep.reconciler import Reconciler
from app.vending.upkeep.sweep_jobs import SweepJobs
from app.vending.upkeep.sweeper import Sweeper
from app.vending.upkeep.warm_pool import WarmPool


def build_components(settings: Settings, overrides: Overrides | None = None) -> Components:
    """All components, connected to each other. Raises SettingsError."""
    overrides = overrides or Overrides()
    replica = build_replica(settings, overrides)
    wake = WakeEvents()
    telemetry = build_telemetry(settings, overrides)
    active = ActiveEndpoints(settings.identity().endpoints)
    ledger = build_ledger(settings, overrides, telemetry, replica, active)
    audit = build_audit(settings, overrides, telemetry, ledger)
    clients = HttpClients(f"dialtone/{__version__}", settings.proxy_url)
    identity = build_identity(settings, overrides, ledger, clients)
    telnyx = build_telnyx(settings, overrides, telemetry, identity, clients.get())
    telephony = build_telephony(settings, overrides, replica, wake, audit, ledger, identity, telnyx)
    push = build_push(overrides, replica, wake, audit, ledger, identity, telnyx)
    events = build_events(settings, overrides, replica, audit, ledger, active)
    upkeep = build_upkeep(settings, overrides, replica, audit, ledger, identity, telnyx, telephony, push)
    operators = build_operators(settings, overrides, wake, audit, ledger, identity, telnyx, telephony, upkeep)
    shared_counts = build_shared_counts(settings, overrides)
    rate_limiter = build_rate_limiter(settings, overrides, shared_counts)
    grants = build_grants(settings, overrides, audit, rate_limiter, ledger, identity, telephony)
    listener = PgListener(ledger.engine, wake.change_feed.set)
    tasks = TaskRunner(
        periodic_tasks(
            wake, listener, audit, identity, telnyx, telephony, push, events, upkeep, operators, shared_counts
        )
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await audit.close()
            if shared_counts is not None:
                await shared_counts.close()
            if telephony.shared_logins is not None:
                await telephony.shared_logins.close()
            await clients.__aexit__(None, None, None)
            await events.sender.close()
            await listener.close()
            await ledger.database.close()
            await asyncio.to_thread(telemetry.shut_down)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with opened():
            if telephony.shared_logins is not None:
                await telephony.shared_logins.maintain()  # connected before the first request
            async with tasks:
                yield
                await _drain(telephony, push, events, upkeep)

    return Components(
        clock=overrides.clock,
        replica=replica,
        telemetry=telemetry,
        audit=audit,
        rate_limiter=rate_limiter,
        shared_counts=shared_counts,
        ledger=ledger,
        identity=identity,
        telnyx=telnyx,
        telephony=telephony,
        push=push,
        grants=grants,
        events=events,
        upkeep=upkeep,
        operators=operators,
        metrics=build_metrics(
            telemetry, overrides, shared_counts, identity, telnyx, telephony, push, events, operators
        ),
        reload=SettingsReloader(
            settings, replica, ledger, identity, telnyx, shared_counts, telephony.shared_logins, clients, active
        ).reload,
        open=opened,
        run=running,
    )


async def _drain(
    telephony: TelephonyComponents, push: PushComponents, events: EventComponents, upkeep: UpkeepComponents
) -> None:
    """Wait for the work that requests have left behind. The background tasks still run."""
    await events.deliverer.drain()
    await telephony.issuer.drain()
    await telephony.presence.drain()
    with suppress(LedgerUnavailable):
        await telephony.last_uses.flush()
    await push.uploads.drain()
    await upkeep.sweep_jobs.stop()


def build_identity(
    settings: Settings, overrides: Overrides, ledger: LedgerComponents, clients: HttpClients
) -> IdentityComponents:
    resolved = settings.identity()
    key_sets = KeySetRegistry(clients, overrides.monotonic)
    not_before = NotBeforeRegistry(ledger.not_before, overrides.clock)
    sign_in = OperatorSignIn(overrides.monotonic)
    key_sets.use_sign_in(resolved, sign_in)
    return IdentityComponents(
        key_sets=key_sets,
        verifier=TokenVerifier(key_sets.build_issuers(resolved), overrides.clock, not_before, cached_devices(settings)),
        policy=ActivePolicy(resolved.policy, log_shadow_policy),
        not_before=not_before,
        sign_in=sign_in,
        grant_keys=ActiveGrantKeys(resolved.grant_keys),
    )


def build_telnyx(
    settings: Settings, overrides: Overrides, telemetry: Telemetry, identity: IdentityComponents, http: HttpClient
) -> TelnyxComponents:
    api = TelnyxApi(
        http,
        base_url=settings.telnyx_base_url,
        api_key=settings.telnyx_api_key.get_secret_value(),
        call_seconds=settings.telnyx_call_seconds,
        count=telemetry.events.call,
        tracer=telemetry.tracer,
    )
    connections = TelnyxConnections(api)
    outbound = TelnyxOutbound(api)
    return TelnyxComponents(
        http=http,
        api=api,
        credentials=TelnyxCredentials(api, overrides.clock),
        connections=connections,
        outbound=outbound,
        outbound_guard=OutboundGuard(outbound, identity.policy, overrides.clock, log_outbound, log_failed_read),
        check=lambda: connections.check(identity.policy.policy.default.connection_id),
    )


def build_telephony(
    settings: Settings,
    overrides: Overrides,
    replica: Replica,
    wake: WakeEvents,
    audit: AuditLog,
    ledger: LedgerComponents,
    identity: IdentityComponents,
    telnyx: TelnyxComponents,
) -> TelephonyComponents:
    clock, policy = overrides.clock, identity.policy
    shared_logins = build_shared_login_cache(settings, overrides)
    login_cache = LoginCache(cached_devices(settings), shared_logins)
    recovery = Recovery(ledger.leases, telnyx.credentials, clock)
    renewer = LeaseRenewer(ledger.leases, telnyx.credentials, login_cache, clock)
    binding = DeviceBinding(ledger.grants, audit)
    revoker = Revoker(
        policy, ledger.leases, recovery, login_cache, identity.not_before, binding, audit, clock, wake.sweeper.set
    )
    last_uses = LastUses(ledger.leases, clock)
    maker = LoginFactory(
        ledger=ledger.leases,
        telnyx=telnyx.credentials,
        recovery=recovery,
        device_limit=DeviceLimit(
            ledger.leases, partial(revoker.on_ended_by_policy, reason="device_limit"), last_uses.last_use
        ),
        renewer=renewer,
        login_cache=login_cache,
        replica=replica,
        clock=clock,
        new_id=overrides.new_id,
        jitter=overrides.jitter,
        wake_pool=wake.warm_pool.set,
        on_replaced=partial(revoker.on_ended_by_policy, reason="max_lease_age"),
    )
    issuer = CredentialIssuer(
        policy=policy,
        ledger=ledger.leases,
        login_factory=maker,
        login_cache=login_cache,
        last_uses=last_uses,
        binding=binding,
        not_before=identity.not_before,
        audit=audit,
        clock=clock,
        monotonic=overrides.monotonic,
        flights=SingleFlight(settings.request_timeout_seconds, telnyx.credentials.admit),
        ensure_outbound=telnyx.outbound_guard.ensure_met,
    )
    devices = Devices(policy, ledger.leases, renewer, binding, audit, clock, telnyx.outbound_guard.ensure_met)
    lookup_seconds = overrides.lookup_seconds
    presence = Presence(TelnyxRegistrations(telnyx.api, lookup_seconds), overrides.monotonic, lookup_seconds)
    return TelephonyComponents(
        issuer, revoker, devices, recovery, renewer, login_cache, shared_logins, last_uses, presence
    )


def build_upkeep(
    settings: Settings,
    overrides: Overrides,
    replica: Replica,
    audit: AuditLog,
    ledger: LedgerComponents,
    identity: IdentityComponents,
    telnyx: TelnyxComponents,
    telephony: TelephonyComponents,
    push: PushComponents,
) -> UpkeepComponents:
    clock, login_cache, verifier = overrides.clock, telephony.login_cache, identity.verifier
    connections = _connections(identity)
    retention = timedelta(days=settings.retention_days)
    sweeper = Sweeper(ledger.sweep, ledger.grants, telephony.revoker, login_cache, audit, clock, retention)
    reconciler = Reconciler(ledger.leases, telnyx.credentials, replica.naming, connections, audit, clock)
    sweep_jobs = SweepJobs(
        sweeper=sweeper,
        sweep_push=push.uploads.sweep,
        reconciler=reconciler,
        ledger=ledger.sweep,
        audit=audit,
        clock=clock,
        new_id=overrides.new_id,
    )
    warm_pool = WarmPool(
        size=settings.warm_pool_size,
        connections=connections,
        ledger=ledger.leases,
        telnyx=telnyx.credentials,
        replica=replica,
        clock=clock,
        new_id=overrides.new_id,
    )
    change_poller = ChangePoller(
        ledger.not_before,
        ledger.leases,
        login_cache,
        identity.not_before,
        verifier.refresh_keys,
        ledger.erasure,
        CachedUsers((login_cache, verifier), replica.naming.user_hashes),
        clock,
    )
    return UpkeepComponents(sweeper, reconciler, warm_pool, sweep_jobs, change_poller)


def build_operators(
    settings: Settings,
    overrides: Overrides,
    wake: WakeEvents,
    audit: AuditLog,
    ledger: LedgerComponents,
    identity: IdentityComponents,
    telnyx: TelnyxComponents,
    telephony: TelephonyComponents,
    upkeep: UpkeepComponents,
) -> OperatorComponents:
    clock = overrides.clock
    leases = LeaseAdmin(ledger.leases, ledger.search, telephony.revoker, ledger.audit, audit, clock, settings.namespace)
    tokens = TokenAdmin(identity.not_before, ledger.not_before, identity.verifier, audit, clock)
    users = UserEraser(
        ledger.erasure, ledger.search, ledger.push, telephony.revoker, audit, clock, wake.push_sweeper.set
    )

    def service_status() -> ServiceStatus:
        return ServiceStatus(
            namespace=settings.namespace,
            leases=leases.lease_counts,
            warm_pool_target=upkeep.warm_pool.targets,
            warm_pool_ready=upkeep.warm_pool.ready,
            sweeper_backlog=upkeep.sweeper.backlog.waiting,
            irrevocable=upkeep.sweeper.backlog.irrevocable,
            orphans=upkeep.reconciler.orphans,
            audit_queued=audit.queued,
            audit_dropped=audit.dropped,
            telnyx=telnyx.api.status(),
        )

    return OperatorComponents(leases, tokens, users, ledger.push, identity.policy, service_status)


def _connections(identity: IdentityComponents) -> Callable[[], frozenset[str]]:
    """The connections that the current policy assigns to users. A reload may change them."""
    return lambda: identity.policy.policy.connections()
