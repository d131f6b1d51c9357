"""The checks of `dialtone doctor`: the configuration and its dependencies, with fixes."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from app.adapters.addresses import is_loopback
from app.adapters.http_client import PROXY_FAILURES, ConnectFailed, FailureReason, ResponseFailed
from app.adapters.identity.key_faults import fix_of
from app.adapters.ledger.failure_reasons import NO_FILE, reason_of
from app.adapters.login_cache.shared import SharedLoginCache
from app.adapters.telnyx.push import ConnectionInfo
from app.cli.check_result import CheckResult, CheckVerdict
from app.cli.deployment_checks import check_deployment
from app.cli.outbound_checks import check_outbound, check_spend_limits
from app.cli.output import counted
from app.composition.components import Components
from app.config.settings import ISSUER_VARIABLES, Settings
from app.vending.errors import (
    LedgerUnavailable,
    TelnyxError,
    TelnyxForbidden,
    TelnyxKeyRejected,
    TelnyxNotFound,
)
from app.vending.events.endpoints import WebhookEndpoint
from app.vending.push.models import PushType
from app.vending.service_status import KeySetStatus

PROXY_SECONDS = 3.0
"""Deadline of the request that checks the egress proxy."""

MAX_SKEW = timedelta(seconds=5)
"""A larger clock difference makes new tokens appear not yet valid, or expires them early."""


async def check_all(where: Settings, components: Components) -> AsyncIterator[CheckResult]:
    """The results one by one, because some checks take seconds."""
    yield CheckResult("configuration", CheckVerdict.OK, "all settings are valid")
    for warning in where.warnings():
        yield CheckResult(warning.place, CheckVerdict.WARNING, warning.seen, warning.fix)
    yield await _ledger(where, components)
    async for finding in check_deployment(where, components):
        yield finding
    if where.proxy_url is not None:
        yield await _egress_proxy(where, components)
    for issuer in components.identity.verifier.issuers():
        yield await _issuer(where, components, issuer)
    for connection_id in sorted(components.identity.policy.policy.connections()):
        async for finding in _connection(components, connection_id):
            yield finding
    yield await check_spend_limits(components)
    yield _origins(where)
    for endpoint in components.events.active.endpoints:
        yield await _webhook(components, endpoint)
    if where.redis_url is not None:
        yield await _redis(components)
    if components.telephony.shared_logins is not None:
        yield await _shared_login_cache(components.telephony.shared_logins)
    if where.is_sandboxed:
        fix = "unset TELNYX_BASE_URL, and set a key from the Telnyx portal"
        yield CheckResult(
            "Telnyx", CheckVerdict.WARNING, "this is the sandbox: its credentials cannot make real calls", fix
        )


async def _ledger(where: Settings, components: Components) -> CheckResult:
    kind = where.database_url.get_secret_value().split(":", 1)[0]
    try:
        await components.ledger.check()
        is_pooled = await components.ledger.database.is_behind_pooler()
    except LedgerUnavailable as error:
        reason = reason_of(error)
        is_unmigrated = reason is None or "not migrated" in reason or reason == NO_FILE
        fix = "run `dialtone migrate`" if is_unmigrated else "make the database available at DIALTONE_DATABASE_URL"
        seen = "unreachable, read-only or not migrated" + (f": {reason}" if reason else "")
        return CheckResult("ledger", CheckVerdict.FAILED, seen, fix)
    return CheckResult(
        "ledger",
        CheckVerdict.OK,
        f"{kind}: reachable, writable and migrated{_notifications(components, is_pooled=is_pooled)}",
    )


def _notifications(components: Components, *, is_pooled: bool) -> str:
    """How replicas learn about each other's changes, which only PostgreSQL can notify."""
    if components.ledger.database.is_sqlite:
        return ""
    if is_pooled:
        return ", through a connection pooler: replicas poll for each other's changes"
    return "; replicas use LISTEN for each other's changes"


async def _egress_proxy(where: Settings, components: Components) -> CheckResult:
    """Whether the proxy opens a connection to Telnyx. The check of each issuer has its own request."""
    if where.is_sandboxed:
        return CheckResult(
            "egress proxy", CheckVerdict.OK, "not used for Telnyx, because the sandbox is on this machine"
        )
    try:
        await components.telnyx.http.send("HEAD", where.telnyx_base_url, deadline_seconds=PROXY_SECONDS, max_bytes=0)
    except (ConnectFailed, ResponseFailed) as error:
        if error.reason in PROXY_FAILURES:
            return CheckResult("egress proxy", CheckVerdict.FAILED, str(error), fix_of(error.reason))
    return CheckResult("egress proxy", CheckVerdict.OK, "it opens connections to Telnyx")


async def _issuer(where: Settings, components: Components, issuer: str) -> CheckResult:
    about = f"issuer {issuer}"
    verifier = components.identity.verifier
    is_missing = issuer in await verifier.missing_keys()
    if _key_set(components, issuer).is_on_demand and await verifier.refresh_keys(issuer):
        return CheckResult(about, CheckVerdict.OK, "its keys are fetched when tokens name them")
    status = _key_set(components, issuer)
    if is_missing or not status.keys:
        reason = f": {status.last_failure}" if status.last_failure else ""
        fix = (
            _with_variables(where, status.fix) if status.fix else "check that this machine reaches the issuer's key set"
        )
        return CheckResult(about, CheckVerdict.FAILED, f"no usable key to verify tokens{reason}", fix)
    seen = counted(status.keys, "usable key")
    faulty = [f"{key.kid or 'a key without kid'}: {key.reason}" for key in status.skipped if key.is_fault]
    if faulty:
        fix = "ask the operator of the identity provider to correct or remove these keys"
        return CheckResult(about, CheckVerdict.WARNING, f"{seen}; skipped {'; '.join(faulty)}", fix)
    return CheckResult(about, CheckVerdict.OK, seen)


def _key_set(components: Components, issuer: str) -> KeySetStatus:
    return next(status for status in components.identity.verifier.key_sets() if status.issuer == issuer)


def _with_variables(where: Settings, fix: str) -> str:
    """The fix with the names that the operator's configuration has: fields of the file, or variables."""
    if where.config is not None:
        return fix
    return re.sub(r"`([a-z_]+)`", lambda match: ISSUER_VARIABLES.get(match[1], match[0]), fix)


async def _connection(components: Components, connection_id: str) -> AsyncIterator[CheckResult]:
    about = f"connection {connection_id}"
    sent_at = components.clock()
    try:
        found = await components.telnyx.connections.get_info(connection_id)
    except TelnyxKeyRejected:
        yield CheckResult("Telnyx key", CheckVerdict.FAILED, "Telnyx rejects it", "create a new key in the portal")
        return
    except TelnyxForbidden:
        yield CheckResult(
            "Telnyx key", CheckVerdict.FAILED, "it may not read connections", "create a key with full rights"
        )
        return
    except TelnyxNotFound:
        fix = "set TELNYX_CONNECTION_ID to the ID of a credential connection of this account"
        yield CheckResult(about, CheckVerdict.FAILED, "it does not exist in this Telnyx account", fix)
        return
    except TelnyxError as error:
        yield CheckResult(
            about, CheckVerdict.FAILED, str(error), "check that this machine can reach api.telnyx.com over https"
        )
        return
    arrived_at = components.clock()
    yield CheckResult("Telnyx key", CheckVerdict.OK, "Telnyx accepts it")
    for finding in (
        _activity(about, found),
        _calling(about, found),
        *await check_outbound(components, connection_id),
        *_push(about, found),
        check_clock(sent_at, found.answered_at, arrived_at),
    ):
        yield finding


def _activity(about: str, found: ConnectionInfo) -> CheckResult:
    if not found.is_active:
        return CheckResult(
            about, CheckVerdict.FAILED, "it is disabled: no device can log in", "enable it in the portal"
        )
    return CheckResult(about, CheckVerdict.OK, "it exists and is active")


def _calling(about: str, found: ConnectionInfo) -> CheckResult:
    if found.sip_uri_calling == "disabled":
        fix = "set its SIP URI calling preference to `internal`"
        return CheckResult(about, CheckVerdict.WARNING, "users cannot call each other's SIP addresses", fix)
    return CheckResult(about, CheckVerdict.OK, f"SIP URI calling: {found.sip_uri_calling}")


def _push(about: str, found: ConnectionInfo) -> list[CheckResult]:
    fix = "register push material and PUT /v1/admin/connections/{id}/push-credentials; not needed without mobile apps"
    return [
        CheckResult(about, CheckVerdict.OK, f"push wakes {push_type.value} apps")
        if found.attached.get(push_type)
        else CheckResult(
            about,
            CheckVerdict.WARNING,
            f"no push credential is attached: calls do not wake {push_type.value} apps",
            fix,
        )
        for push_type in PushType
    ]


def check_clock(sent_at: datetime, answered_at: datetime | None, arrived_at: datetime) -> CheckResult:
    """Compare this machine's clock with the `Date` header of Telnyx's response, which may have taken seconds."""
    if answered_at is None:
        return CheckResult("clock", CheckVerdict.OK, "not checked, because Telnyx's response has no date")
    answered_at = answered_at if answered_at.tzinfo else answered_at.replace(tzinfo=UTC)
    skew = max(sent_at - answered_at, timedelta(0)) or min(arrived_at - answered_at, timedelta(0))
    if abs(skew) > MAX_SKEW:
        return CheckResult(
            "clock",
            CheckVerdict.FAILED,
            f"differs from Telnyx's by {skew.total_seconds():+.0f} s",
            "synchronize this machine's clock with NTP",
        )
    return CheckResult("clock", CheckVerdict.OK, "matches Telnyx's")


def _origins(where: Settings) -> CheckResult:
    if not where.cors_origins:
        fix = "list your pages' origins in DIALTONE_CORS_ORIGINS; not needed without browser frontends"
        return CheckResult("CORS", CheckVerdict.WARNING, "no web page may call this service", fix)
    remote = [origin for origin in where.cors_origins if not _is_secure(origin)]
    if remote:
        fix = "serve the page over https: browsers allow the microphone only there"
        return CheckResult("CORS", CheckVerdict.WARNING, f"{sorted(remote)[0]} is plain http", fix)
    return CheckResult("CORS", CheckVerdict.OK, counted(len(where.cors_origins), "origin"))


def _is_secure(origin: str) -> bool:
    """Whether browsers allow the microphone to pages of this origin: https, apps, and pages on the device itself."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    return parts.scheme != "http" or is_loopback(host) or host.endswith(".localhost")


async def _webhook(components: Components, endpoint: WebhookEndpoint) -> CheckResult:
    """Whether the endpoint's host can be connected to at an allowed address. The request has no event."""
    about = f"endpoint {endpoint.name}"
    failure = await components.events.sender.check(endpoint)
    if failure is None:
        return CheckResult(about, CheckVerdict.OK, "its host responds over TLS at an allowed address")
    if failure.reason.startswith("status_"):
        fix = "set `url` to the final address, because redirects are not followed"
        return CheckResult(about, CheckVerdict.WARNING, "it responds to HEAD with a redirect", fix)
    reason = FailureReason[failure.reason.upper()]
    is_timeout = reason in (FailureReason.CONNECT_TIMEOUT, FailureReason.DEADLINE)
    fix = "let this machine connect to the host directly, without DIALTONE_EGRESS_PROXY"
    return CheckResult(about, CheckVerdict.FAILED, reason.value, fix if is_timeout else fix_of(reason))


async def _redis(components: Components) -> CheckResult:
    if components.shared_counts is None or await components.shared_counts.is_reachable():
        return CheckResult("limits", CheckVerdict.OK, "Redis responds")
    seen = "Redis does not respond, so each replica counts only its own requests"
    return CheckResult("limits", CheckVerdict.FAILED, seen, "check DIALTONE_REDIS_URL, and that Redis is available")


async def _shared_login_cache(shared: SharedLoginCache) -> CheckResult:
    reason = await shared.check()
    if reason is None:
        return CheckResult("shared login cache", CheckVerdict.OK, "the store can be written and read")
    seen = f"the store cannot be used ({reason}), so each replica mints its own logins"
    fix = "check DIALTONE_LOGIN_CACHE_URL, and that the server is available"
    return CheckResult("shared login cache", CheckVerdict.FAILED, seen, fix)
