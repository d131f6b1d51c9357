"""`dialtone audit`: print audit events, and follow new ones."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.identifiers import find_lease_id
from app.cli.inputs import parse_moment
from app.cli.output import in_seconds, json_text, note, printable, say
from app.cli.service_client import JsonObject, RequestFailure, ServiceClient, run
from app.vending.audit import AuditAction, AuditOutcome

commands = typer.Typer(no_args_is_help=True, help="Print the audit.")

AUDIT = "/v1/admin/audit"

POLL_SECONDS = 1.0
LATEST = timedelta(seconds=10)
"""Each poll reads events of this last period, because events reach the ledger with a delay and out of order."""

MAX_EVENTS = 1_000_000
"""More events than one poll finds."""


@commands.callback()
def _audit() -> None:
    """Keeps the group, although it has only one command."""


@commands.command("tail")
def tail(
    count: Annotated[int, typer.Option("-n", "--count", min=0, max=5000, help="Number of past events.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Print new events until Ctrl-C.")] = False,
    user: Annotated[str | None, typer.Option(help="The user whom the event concerns, or who caused it.")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    lease: Annotated[str | None, typer.Option(help="The ID of the lease, or its first characters.")] = None,
    action: Annotated[AuditAction | None, typer.Option(metavar="ACTION", help=f"{', '.join(AuditAction)}.")] = None,
    outcome: Annotated[AuditOutcome | None, typer.Option()] = None,
    request: Annotated[str | None, typer.Option(help="X-Request-ID of a response.")] = None,
    token_sha256: Annotated[str | None, typer.Option(help="SHA-256 of a login token.")] = None,
    since: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Earliest time, in UTC.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Print events, oldest first."""
    filters = {
        "subject": user,
        "device_id": device,
        "action": action,
        "outcome": outcome,
        "request_id": request,
        "token_sha256": token_sha256,
        "since": None if since is None else since.isoformat(),
    }
    line = json_text if as_json else _as_text

    async def work(client: ServiceClient) -> None:
        if lease is not None:
            filters["lease_id"] = await find_lease_id(client, lease)
        events = await client.rows(AUDIT, filters, max(count, 1))
        window = await _window_of(client, filters, events) if follow else None
        for event in reversed(events[:count]):
            say(line(event))
        if window is not None:
            await _follow(client, filters, window, line)
        elif not events:
            note("No events match.")

    run(work)


@dataclass(frozen=True)
class _Window:
    """The period that the next poll reads, from `since`, and the events of it that need not be printed."""

    since: str | None
    seen: frozenset[str]


async def _window_of(client: ServiceClient, filters: dict[str, Any], latest: list[JsonObject]) -> _Window:
    """The window that ends with the latest event. Older events than this one are not printed again."""
    if not latest:
        return _Window(filters["since"], frozenset())
    newest_at = latest[0]["at"]
    since = _begin(newest_at)
    events = await client.rows(AUDIT, filters | {"since": since}, MAX_EVENTS)
    return _Window(since, frozenset(event["id"] for event in events if event["at"] <= newest_at))


async def _follow(
    client: ServiceClient, filters: dict[str, Any], window: _Window, line: Callable[[JsonObject], str]
) -> None:
    """Print the events that come after the latest ones. During an outage of the service, print a message and retry."""
    is_interrupted = False
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            events = await client.rows(AUDIT, filters | {"since": window.since}, MAX_EVENTS)
        except RequestFailure as failure:
            if not failure.is_retryable:
                raise
            if not is_interrupted:
                note(f"{failure} Retrying ...")
            is_interrupted = True
            continue
        is_interrupted = False
        for event in reversed(events):
            if event["id"] not in window.seen:
                say(line(event))
        if events:
            window = _Window(_begin(events[0]["at"]), frozenset(event["id"] for event in events))


def _begin(newest_at: str) -> str:
    """The earliest time at which events may still appear, by the clock of the service."""
    return (datetime.fromisoformat(newest_at) - LATEST).isoformat()


def _as_text(event: JsonObject) -> str:
    actor = (event["actor_issuer"], event["actor_subject"])
    words = [
        in_seconds(event["at"]) or "-",
        f"{event['action']:12}",
        f"{event['outcome']:11}",
        event["subject"] or "-",
        event["device_id"] or "-",
    ]
    if event["reason"]:
        words.append(event["reason"])
    if actor[1] is not None and actor != (event["issuer"], event["subject"]):
        words.append(f"by {actor[1]}")
    if event["client_address"]:
        words.append(f"from {event['client_address']}")
    words += [f"{name}={value}" for name, value in event["details"].items()]
    return printable("  ".join(words))
