"""Builds metrics, traces and the audit log, and writes the log entries of two domain events."""

from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry

from app import __version__
from app.adapters.shared_counts import SharedCounts
from app.composition.components import (
    EventComponents,
    IdentityComponents,
    LedgerComponents,
    OperatorComponents,
    Overrides,
    PushComponents,
    Telemetry,
    TelephonyComponents,
    TelnyxComponents,
)
from app.config.settings import Settings
from app.observability import logging as logs
from app.observability.audit_log import AuditLog
from app.observability.metrics import EventMetrics, Metrics
from app.observability.tracing import export_spans, tracer_of
from app.vending.ids import new_ordered_id
from app.vending.models import Principal
from app.vending.outbound import exposure
from app.vending.policy import PolicyResult
from app.vending.push.models import PushObject
from app.vending.upkeep.outbound_guard import FailedRead, OutboundStatus

_log = structlog.get_logger("dialtone.composition")


def build_telemetry(settings: Settings, overrides: Overrides) -> Telemetry:
    registry = CollectorRegistry()
    events = EventMetrics(registry)
    if settings.tracing and overrides.tracer is None:
        provider = export_spans(__version__)
        return Telemetry(registry, events, tracer_of(provider, __version__), provider.shutdown)
    return Telemetry(registry, events, overrides.tracer, lambda: None)


def build_audit(settings: Settings, overrides: Overrides, telemetry: Telemetry, ledger: LedgerComponents) -> AuditLog:
    return AuditLog(
        write=ledger.audit.add,
        forget=ledger.audit.delete_expired,
        count=telemetry.events.decision,
        count_repeat=telemetry.events.repeat,
        clock=overrides.clock,
        new_id=new_ordered_id,
        monotonic=overrides.monotonic,
        is_required=settings.audit_required,
        retention=timedelta(days=settings.audit_retention_days),
    )


def build_metrics(
    telemetry: Telemetry,
    overrides: Overrides,
    shared_counts: SharedCounts | None,
    identity: IdentityComponents,
    telnyx: TelnyxComponents,
    telephony: TelephonyComponents,
    push: PushComponents,
    events: EventComponents,
    operators: OperatorComponents,
) -> Metrics:
    return Metrics(
        telemetry.registry,
        service_status=operators.service_status,
        key_sets=identity.verifier.key_sets,
        login_cache=lambda: telephony.login_cache.status,
        shared_login_cache=lambda: None if telephony.shared_logins is None else telephony.shared_logins.status,
        outbound=telnyx.outbound_guard.statuses,
        clock=overrides.clock,
        push_days_left=push.expiry_alerts.days_left,
        deliveries=lambda: events.deliverer.status(),
        limiter_failures=lambda: 0 if shared_counts is None else shared_counts.failures,
        log_lines_dropped=logs.dropped,
    )


def log_shadow_policy(principal: Principal, enforced: PolicyResult, shadow: PolicyResult) -> None:
    """Log the decision that a rule or a policy in shadow mode would have made for this user."""
    _log.info(
        "policy_shadow",
        issuer=principal.issuer,
        subject=principal.subject,
        enforced=enforced.rule,
        allowed=enforced.allowance is not None,
        shadow=shadow.rule,
        would_allow=shadow.allowance is not None,
    )


def log_push_expiry(found: PushObject, days: int) -> None:
    """Log an expiry. Telnyx does not report an expired certificate, but its pushes no longer arrive."""
    _log.warning(
        "push_credential_expires",
        type=found.type.value,
        app_id=found.app_id,
        fingerprint_sha256=found.fingerprint_sha256,
        days_left=days,
    )


def log_outbound(status: OutboundStatus) -> None:
    """Log that users of rules cannot log in, or that a stolen login could spend without a daily limit."""
    cost = exposure(status.profile)
    for unmet in status.unmet:
        _log.error(
            "outbound_requirement_not_met",
            connection_id=status.connection_id,
            rule=unmet.rule,
            outbound=unmet.requirement.value,
            reason=unmet.why,
            exposure=cost,
        )
    if status.is_unlimited and not status.unmet:
        _log.warning("outbound_spend_not_limited", connection_id=status.connection_id, exposure=cost)


def log_failed_read(failed: FailedRead) -> None:
    """Log that the outbound limits of a connection could not be read: users of the rules may be unable to log in."""
    if failed.has_earlier_result:
        log, event = _log.warning, "outbound_limits_outdated"
    else:
        log, event = _log.error, "outbound_limits_unknown"
    log(event, connection_id=failed.connection_id, rules=list(failed.rules), reason=failed.why)
