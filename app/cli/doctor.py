"""`dialtone doctor`: what would fail after going live, said before it does, each with how to mend it."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.text import Text

from app.adapters.telnyx.push import ConnectionInfo
from app.cli.output import AsJson, print_json, run, settings
from app.composition.components import Components
from app.config.settings import Settings
from app.vending.errors import (
    CarrierError,
    CarrierForbidden,
    CarrierKeyRefused,
    CarrierNotFound,
    LedgerUnavailable,
)
from app.vending.push.models import PushType

MOST_SKEW_SECONDS = 5.0
"""A clock further off makes fresh tokens look as if they came from the future, or ends them early."""


class Verdict(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    """It works, and somebody will be surprised."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was seen, and what to do about it."""

    about: str
    verdict: Verdict
    seen: str
    mend: str | None = None


def doctor(
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count, too.")] = False,
) -> None:
    """Say what would fail after going live, and how to mend it. Status 1: something would."""
    where = settings()

    async def examine(components: Components) -> list[Finding]:
        return [finding async for finding in _findings(where, components)]

    findings = run(examine)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    bad = {Verdict.BAD, Verdict.WARNING} if strict else {Verdict.BAD}
    if any(finding.verdict in bad for finding in findings):
        raise typer.Exit(1)


async def _findings(where: Settings, components: Components) -> AsyncIterator[Finding]:
    yield Finding("configuration", Verdict.GOOD, "every setting is understood")
    yield await _ledger(where, components)
    for issuer in components.identity.verifier.issuers():
        yield await _issuer(components, issuer)
    for connection_id in sorted(components.identity.policy.policy.connections()):
        async for finding in _connection(components, connection_id):
            yield finding
    yield _origins(where)
    if where.redis_url is not None:
        yield await _redis(components)
    if where.is_sandboxed:
        mend = "unset TELNYX_BASE_URL, and set a key of the Telnyx portal"
        yield Finding("Telnyx", Verdict.WARNING, "this is the sandbox: credentials made here ring nowhere", mend)


async def _ledger(where: Settings, components: Components) -> Finding:
    kind = where.database_url.get_secret_value().split(":", 1)[0]
    try:
        await components.ledger.check()
    except LedgerUnavailable:
        mend = "run `dialtone migrate`; if that fails too, DIALTONE_DATABASE_URL is wrong or the database is away"
        return Finding("ledger", Verdict.BAD, "it cannot be reached or written, or is not migrated", mend)
    return Finding("ledger", Verdict.GOOD, f"{kind}: reachable, writable and migrated")


async def _issuer(components: Components, issuer: str) -> Finding:
    about = f"issuer {issuer}"
    missing = issuer in await components.identity.verifier.missing_keys()
    status = next(status for status in components.identity.verifier.key_sets() if status.issuer == issuer)
    if missing or not status.keys:
        mend = "can this machine reach the issuer's key set, and does it hold a key for the configured algorithms?"
        return Finding(about, Verdict.BAD, "it has no key that a token could be checked with", mend)
    return Finding(about, Verdict.GOOD, f"{status.keys} usable key{'' if status.keys == 1 else 's'}")


async def _connection(components: Components, connection_id: str) -> AsyncIterator[Finding]:
    about = f"connection {connection_id}"
    try:
        found = await components.telnyx.connections.look(connection_id)
    except CarrierKeyRefused:
        yield Finding("Telnyx key", Verdict.BAD, "Telnyx does not accept it", "make a new one in the portal")
        return
    except CarrierForbidden:
        yield Finding(
            "Telnyx key", Verdict.BAD, "Telnyx forbids it to look at connections", "make one with full rights"
        )
        return
    except CarrierNotFound:
        mend = "TELNYX_CONNECTION_ID is the id of a credential connection of this very account"
        yield Finding(about, Verdict.BAD, "Telnyx does not know it", mend)
        return
    except CarrierError as error:
        yield Finding(about, Verdict.BAD, str(error), "can this machine reach api.telnyx.com over https?")
        return
    yield Finding("Telnyx key", Verdict.GOOD, "Telnyx accepts it")
    for finding in (
        _activity(about, found),
        _calling(about, found),
        *_push(about, found),
        check_clock(components, found),
    ):
        yield finding


def _activity(about: str, found: ConnectionInfo) -> Finding:
    if not found.is_active:
        return Finding(about, Verdict.BAD, "it is switched off: no device can log in", "switch it on in the portal")
    return Finding(about, Verdict.GOOD, "it is there and active")


def _calling(about: str, found: ConnectionInfo) -> Finding:
    if found.sip_uri_calling == "disabled":
        mend = "set its SIP URI calling preference to `internal`"
        return Finding(about, Verdict.WARNING, "users cannot ring each other's SIP addresses", mend)
    return Finding(about, Verdict.GOOD, f"SIP URI calling: {found.sip_uri_calling}")


def _push(about: str, found: ConnectionInfo) -> list[Finding]:
    mend = "register push material, then PUT /v1/admin/connections/{id}/push-credentials; without mobile apps: nothing"
    return [
        Finding(about, Verdict.GOOD, f"{push_type.value} apps are woken by push")
        if found.attached.get(push_type)
        else Finding(about, Verdict.WARNING, f"no push credential is attached: {push_type.value} apps sleep on", mend)
        for push_type in PushType
    ]


def check_clock(components: Components, found: ConnectionInfo) -> Finding:
    """Compare this machine's clock with the `Date` header of Telnyx's answer."""
    if found.answered_at is None:
        return Finding("clock", Verdict.GOOD, "Telnyx's answer has no date to compare with")
    answered_at = found.answered_at if found.answered_at.tzinfo else found.answered_at.replace(tzinfo=UTC)
    skew = (components.clock() - answered_at).total_seconds()
    if abs(skew) > MOST_SKEW_SECONDS:
        return Finding("clock", Verdict.BAD, f"{skew:+.0f} s off Telnyx's", "let NTP keep this machine's time")
    return Finding("clock", Verdict.GOOD, "in step with Telnyx's")


def _origins(where: Settings) -> Finding:
    if not where.cors_origins:
        mend = "list your pages' origins in DIALTONE_CORS_ORIGINS; without browser frontends: nothing"
        return Finding("CORS", Verdict.WARNING, "no page in a browser may call this service", mend)
    plain = [origin for origin in where.cors_origins if urlsplit(origin).scheme == "http"]
    remote = [origin for origin in plain if urlsplit(origin).hostname not in ("localhost", "127.0.0.1", "::1")]
    if remote:
        mend = "serve the page over https: browsers give no microphone to any other"
        return Finding("CORS", Verdict.WARNING, f"{sorted(remote)[0]} is plain http", mend)
    return Finding("CORS", Verdict.GOOD, f"{len(where.cors_origins)} origin(s)")


async def _redis(components: Components) -> Finding:
    if await components.rate_limiter.is_store_there():
        return Finding("limits", Verdict.GOOD, "Redis answers")
    mend = "DIALTONE_REDIS_URL is wrong, or Redis is away; meanwhile each replica counts for itself"
    return Finding("limits", Verdict.BAD, "Redis does not answer", mend)


SIGNS = {Verdict.GOOD: ("ok  ", "green"), Verdict.WARNING: ("warn", "yellow"), Verdict.BAD: ("FAIL", "bold red")}


def _print(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        sign, colour = SIGNS[finding.verdict]
        console.print(Text(sign, colour), Text(f"{finding.about}: {finding.seen}"))
        if finding.mend is not None:
            console.print(Text(f"     -> {finding.mend}"))
