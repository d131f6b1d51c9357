"""Wiring: every part is opened, joined to the others and closed here, and nowhere else."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry

from app import __version__
from app.adapters.http_client import Outbound
from app.adapters.identity.verifier import TokenVerifier
from app.adapters.ledger.audit import SqlAudit
from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.lease_search import SqlSearch
from app.adapters.ledger.leases import SqlLedger
from app.adapters.ledger.migrate import newest_revision
from app.adapters.ledger.not_before import SqlMarks
from app.adapters.ledger.pg_listener import Announcements
from app.adapters.ledger.push import SqlPush
from app.adapters.ledger.sweep import SqlSweeping
from app.adapters.push_validation import apns, fcm
from app.adapters.rate_limiter import Limiter, Rates, rate
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.credentials import TelnyxClient
from app.adapters.telnyx.push import TelnyxConnections, TelnyxPush
from app.composition.components import Outside, Parts
from app.composition.issuers import KeySets
from app.composition.periodic import Background, Work
from app.config.settings import Settings, variable_of
from app.observability import logging as logs
from app.observability.audit_log import AuditTrail
from app.observability.event_metrics import Traffic
from app.observability.metrics import Metrics
from app.observability.tracing import Tracing, no_spans
from app.vending.ids import new_id
from app.vending.models import Principal
from app.vending.not_before import Marks
from app.vending.operators.lease_admin import Oversight
from app.vending.operators.token_admin import Operations
from app.vending.policy import Outcome, PolicyInForce
from app.vending.push.attach import Attaching
from app.vending.push.expiry_alerts import ExpiryWatch
from app.vending.push.models import PushObject
from app.vending.push.register import Pace, PushRegistrar
from app.vending.push.upload import Uploads
from app.vending.telephony.create import LoginMaker
from app.vending.telephony.devices import Devices
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.login_cache import LoginsAtHand
from app.vending.telephony.naming import Naming
from app.vending.telephony.recover import Recovery
from app.vending.telephony.renew import Expiry
from app.vending.telephony.revoke import Revoker
from app.vending.telephony.timing import Timing
from app.vending.upkeep.change_feed import Watch
from app.vending.upkeep.reconciler import Reconciler
from app.vending.upkeep.sweep_jobs import Cleaner
from app.vending.upkeep.sweeper import Sweeper
from app.vending.upkeep.warm_pool import Pool

LOGINS_AT_HAND = 20_000
"""Devices whose login is kept in memory: about 2 KB each."""

CALLS_A_FLIGHT = 5
"""Telnyx calls that the longest flight makes: create, look, look again, extend, mint."""

CLAIM_MARGIN = timedelta(seconds=3)
"""What a create may take beside its call: two commits on a busy database."""

WATCH_SECONDS = 1.0
LISTEN_SECONDS = 5.0
"""How often the ear for announcements is looked after."""

SWEEP_SECONDS = 15.0
POOL_SECONDS = 10.0
RECONCILE_SECONDS = 3600.0
EXPIRY_SECONDS = 60.0
CENSUS_SECONDS = 15.0
TIDY_SECONDS = 600.0
KEYS_SECONDS = 5.0
"""How often key sets are asked whether their time has come."""

RELOADED = frozenset(
    {"config", "telnyx_api_key", "max_devices", "at_device_limit", "sip_password", "required_scopes"}
    | {"credential_ttl_seconds", "mobile_credential_ttl_seconds", "telnyx_connection_id"}
    | {"issuer", "audience", "jwks_url", "issuer_pem", "issuer_secret", "algorithms", "subject_claim", "scope_claim"}
    | {"scope_list", "token_types", "leeway_seconds", "max_token_age_seconds", "logout_audience"}
    | {name for name in Settings.model_fields if name.endswith("_file")}
)
"""Settings whose change a reload puts into effect; all others wait for a restart."""

_log = structlog.get_logger("dialtone.wiring")


def join(settings: Settings, outside: Outside | None = None) -> Parts:
    """All parts, made but idle: nothing connects before `running` is entered or a part is used."""
    outside = outside or Outside()
    clock = outside.clock
    api_key = settings.telnyx_api_key.get_secret_value()
    outbound = Outbound(f"dialtone/{__version__}")
    engine = open_engine(database_url(settings.database_url.get_secret_value()))
    tracing = Tracing.exporting(__version__) if settings.tracing and outside.spans is None else None
    spans = outside.spans or tracing
    database = Database(engine, spans or no_spans)
    ledger, marks_ledger = SqlLedger(database), SqlMarks(database)
    marks = Marks(marks_ledger, clock)
    resolved = settings.identity()
    key_sets = KeySets(outbound, outside.monotonic)
    verifier = TokenVerifier(key_sets.issuers_of(resolved), clock, marks)
    policy = PolicyInForce(resolved.policy, _note_proposal)
    registry = CollectorRegistry()
    traffic = Traffic(registry)
    api = TelnyxApi(
        outbound,
        base_url=settings.telnyx_base_url,
        api_key=api_key,
        call_seconds=settings.telnyx_call_seconds,
        count=traffic.call,
        span=spans or no_spans,
    )
    audit_ledger = SqlAudit(database)
    audit = AuditTrail(
        write=audit_ledger.add,
        forget=audit_ledger.forget,
        count=traffic.decision,
        count_repeat=traffic.repeat,
        clock=clock,
        new_id=new_id,
        monotonic=outside.monotonic,
        is_required=settings.audit_required,
        retention=timedelta(days=settings.audit_retention_days),
    )
    rates = Rates(rate(settings.limit_user), rate(settings.limit_issuer), rate(settings.limit_failures))
    redis_url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    limiter = Limiter(rates, redis_url, outside.monotonic, settings.namespace)
    telnyx, connections = TelnyxClient(api, clock), TelnyxConnections(api)
    at_hand = LoginsAtHand(LOGINS_AT_HAND)
    recovery = Recovery(ledger, telnyx, clock)
    expiry = Expiry(ledger, telnyx, at_hand, clock)
    has_work, has_pool_work = asyncio.Event(), asyncio.Event()
    replica, naming = outside.new_id(), Naming(settings.namespace, _tag_key(settings, api_key))
    timing = Timing(
        patience_seconds=settings.patience_seconds,
        flight_seconds=CALLS_A_FLIGHT * settings.telnyx_call_seconds + CLAIM_MARGIN.total_seconds(),
        claim=timedelta(seconds=settings.telnyx_call_seconds) + CLAIM_MARGIN,
        propagation=timedelta(seconds=settings.propagation_seconds),
    )
    revoker = Revoker(policy, ledger, recovery, at_hand, marks, audit, clock, has_work.set)
    maker = LoginMaker(
        ledger=ledger,
        carrier=telnyx,
        recovery=recovery,
        revoker=revoker,
        expiry=expiry,
        at_hand=at_hand,
        naming=naming,
        replica=replica,
        clock=clock,
        new_id=outside.new_id,
        jitter=outside.jitter,
        timing=timing,
        wake_pool=has_pool_work.set,
    )
    issuer = CredentialIssuer(
        policy=policy,
        ledger=ledger,
        maker=maker,
        at_hand=at_hand,
        audit=audit,
        clock=clock,
        monotonic=outside.monotonic,
        patience_seconds=settings.patience_seconds,
        admit=telnyx.admit,
    )
    pool = Pool(
        size=settings.pool_size,
        connections=lambda: policy.policy.connections(),
        ledger=ledger,
        carrier=telnyx,
        naming=naming,
        replica=replica,
        clock=clock,
        new_id=outside.new_id,
        timing=timing,
    )
    reconciler = Reconciler(ledger, telnyx, naming, lambda: policy.policy.connections(), audit, clock)
    push_ledger = SqlPush(database)
    uploads = Uploads(
        ledger=push_ledger,
        carrier=TelnyxPush(api),
        connections=connections,
        known_connections=lambda: policy.policy.connections(),
        naming=naming,
        replica=replica,
        clock=clock,
        timing=timing,
    )
    attaching = Attaching(push_ledger, connections, audit)
    has_push_work = asyncio.Event()
    push = PushRegistrar(
        policy=policy,
        ledger=push_ledger,
        uploads=uploads,
        attaching=attaching,
        audit=audit,
        pace=Pace(time.monotonic),
        clock=clock,
        new_id=outside.new_id,
        wake_sweeper=has_push_work.set,
    )
    expiry_watch = ExpiryWatch(push_ledger, clock, _warn_of_expiry)
    retention, sweeping = timedelta(days=settings.retention_days), SqlSweeping(database)
    sweeper = Sweeper(sweeping, revoker, at_hand, audit, clock, retention)
    oversight = Oversight(ledger, SqlSearch(database), revoker, audit_ledger, audit, clock, settings.namespace)
    cleaner = Cleaner(
        sweeper=sweeper,
        sweep_push=uploads.sweep,
        reconciler=reconciler,
        ledger=sweeping,
        audit=audit,
        clock=clock,
        new_id=outside.new_id,
    )
    has_news = asyncio.Event()
    announcements = Announcements(engine, has_news.set)
    watch = Watch(marks_ledger, ledger, at_hand, marks, verifier.refresh_keys, clock)
    revision = newest_revision()

    async def reload(wanted: Settings) -> None:
        renewed = wanted.identity()
        issuers = key_sets.issuers_of(renewed)
        # From here on nothing can fail, and nothing is awaited: no request sees half of it.
        verifier.replace(issuers)
        policy.policy = renewed.policy
        api.use_key(wanted.telnyx_api_key.get_secret_value())
        changed = [name for name in Settings.model_fields if getattr(wanted, name) != getattr(settings, name)]
        waiting = [variable_of(name) for name in changed if name not in RELOADED]
        _log.info("reloaded", issuers=len(issuers), rules=len(renewed.policy.rules), waiting_for_a_restart=waiting)
        await verifier.refresh_all_keys()

    works = [
        Work(watch.look, WATCH_SECONDS, has_news, at_once=True),
        Work(announcements.tend, LISTEN_SECONDS, at_once=True),
        Work(sweeper.sweep, SWEEP_SECONDS, has_work, at_once=True),
        Work(pool.tend, POOL_SECONDS, has_pool_work, at_once=True),
        Work(reconciler.walk, RECONCILE_SECONDS),
        Work(verifier.tend, KEYS_SECONDS, at_once=True),
        Work(uploads.sweep, SWEEP_SECONDS, has_push_work),
        Work(expiry_watch.look, EXPIRY_SECONDS, at_once=True),
        Work(oversight.count, CENSUS_SECONDS, at_once=True),
        Work(audit.tidy, TIDY_SECONDS),
    ]

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await audit.close()
            await outbound.__aexit__(None, None, None)
            await announcements.close()
            await database.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with opened(), Background(works):
            yield
            await issuer.drain()
            await uploads.drain()
            await cleaner.stop()

    return Parts(
        clock=clock,
        verifier=verifier,
        issuer=issuer,
        revoker=revoker,
        devices=Devices(policy, ledger, expiry, at_hand, audit, clock),
        sweeper=sweeper,
        policy=policy,
        operations=Operations(marks, marks_ledger, verifier, audit, clock),
        oversight=oversight,
        audit=audit,
        limiter=limiter,
        traffic=traffic,
        spans=spans,
        telnyx=api,
        connections=connections,
        push_ledger=push_ledger,
        pool=pool,
        reconciler=reconciler,
        cleaner=cleaner,
        push=push,
        push_uploads=uploads,
        attaching=attaching,
        expiry_watch=expiry_watch,
        watch=watch,
        lint_apns=lambda certificate, key: asyncio.to_thread(apns.lint, certificate, key, clock()),
        lint_fcm=lambda account: asyncio.to_thread(fcm.lint, account),
        metrics=Metrics(
            key_sets=verifier.key_sets,
            push_days_left=expiry_watch.days_left,
            carrier=api.guard.status,
            pool_ready=lambda: pool.ready,
            orphans=lambda: reconciler.orphans,
            backlog=lambda: sweeper.backlog,
            live_leases=lambda: oversight.live,
            audit=audit,
            limiter_failures=lambda: limiter.failures,
            log_lines_dropped=logs.dropped,
            registry=registry,
        ),
        check_ledger=lambda: database.check_ready(revision),
        check_telnyx=lambda: connections.check(policy.policy.default.connection_id),
        reload=reload,
        open=opened,
        running=running,
    )


def _note_proposal(principal: Principal, in_force: Outcome, proposed: Outcome) -> None:
    """What a rule or a policy under audit would have changed, for this user, now."""
    _log.info(
        "policy_audit",
        issuer=principal.issuer,
        subject=principal.subject,
        in_force=in_force.rule,
        allowed=in_force.allowance is not None,
        proposed=proposed.rule,
        would_allow=proposed.allowance is not None,
    )


def _warn_of_expiry(found: PushObject, days: int) -> None:
    """Telnyx will not say so, and devices will only no longer wake."""
    _log.warning(
        "push_credential_expires",
        type=found.type.value,
        app_id=found.app_id,
        fingerprint_sha256=found.fingerprint_sha256,
        days_left=days,
    )


def _tag_key(settings: Settings, api_key: str) -> bytes:
    """The key of the users' tags. Derived from the API key unless given: nothing is ever looked up by a tag of ours."""
    if settings.tag_key is not None:
        return settings.tag_key.get_secret_value().encode()
    return hmac.new(api_key.encode(), b"dialtone tag key", hashlib.sha256).digest()
