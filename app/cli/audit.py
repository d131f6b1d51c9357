"""`dialtone audit`: print audit events, and follow new ones."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated

import typer

from app.cli.moments import parse_moment
from app.cli.output import instant, run
from app.composition.components import Components
from app.vending.audit import AuditAction, AuditCriteria, AuditEvent, AuditOutcome

commands = typer.Typer(no_args_is_help=True, help="Print the audit.")

LOOK_SECONDS = 1.0
LATEST = timedelta(seconds=10)
"""Each poll reads events of this last period, because events reach the ledger with a delay and out of order."""


@commands.callback()
def _audit() -> None:
    """Keeps the group, although it has only one command."""


@commands.command("tail")
def tail(
    count: Annotated[int, typer.Option("-n", "--count", min=0, max=5000, help="Number of past events.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Print new events until Ctrl-C.")] = False,
    user: Annotated[str | None, typer.Option(help="The user whom the event concerns, or who caused it.")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    lease: Annotated[str | None, typer.Option(help="The id of the lease.")] = None,
    action: Annotated[AuditAction | None, typer.Option()] = None,
    outcome: Annotated[AuditOutcome | None, typer.Option()] = None,
    request: Annotated[str | None, typer.Option(help="X-Request-ID of a response.")] = None,
    token_sha256: Annotated[str | None, typer.Option(help="SHA-256 of a login token.")] = None,
    since: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Earliest time, in UTC.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Print events, oldest first."""
    criteria = AuditCriteria(
        subject=user,
        device_id=device,
        lease_id=lease,
        action=action,
        outcome=outcome,
        request_id=request,
        token_sha256=token_sha256,
        since=since,
    )
    line = _as_json if as_json else _as_text
    try:
        run(lambda components: _tail(components, criteria, count, line, follows=follow))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _tail(
    components: Components, criteria: AuditCriteria, count: int, line: Callable[[AuditEvent], str], *, follows: bool
) -> None:
    seen: dict[str, datetime] = {}
    began = components.clock()
    events = await components.operators.leases.audit(criteria, None, count) if count else []
    while True:
        for event in reversed(events):
            if event.id not in seen:
                seen[event.id] = event.at
                typer.echo(line(event))
        if not follows:
            return
        await asyncio.sleep(LOOK_SECONDS)
        horizon = max(began, components.clock() - LATEST)
        seen = {name: at for name, at in seen.items() if at >= horizon}
        events = [
            event for event in await components.operators.leases.audit(criteria, None, 1000) if event.at >= horizon
        ]


def _as_text(event: AuditEvent) -> str:
    decision, context = event.decision, event.context
    whose = "-" if decision.user_key is None else decision.user_key.subject
    words = [instant(event.at), f"{decision.action:12}", f"{decision.outcome:11}", whose, decision.device_id or "-"]
    if decision.reason:
        words.append(decision.reason)
    if context.actor is not None and context.actor != decision.user_key:
        words.append(f"by {context.actor.subject}")
    if context.client_address:
        words.append(f"from {context.client_address}")
    words += [f"{name}={value}" for name, value in decision.details.items()]
    # A user's name may contain any character. It must not start a line or change the terminal's colours.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in "  ".join(words))


def _as_json(event: AuditEvent) -> str:
    return json.dumps({**event.flat(), "at": instant(event.at)}, ensure_ascii=False)
