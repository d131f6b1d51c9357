"""`dialtone audit`: what was decided, by whom, for whom; and what is being decided now."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.cli.output import instant, run
from app.composition.components import Components
from app.vending.audit import AuditAction, AuditCriteria, AuditEvent, AuditOutcome

commands = typer.Typer(no_args_is_help=True, help="What was decided, by whom, for whom.")

LOOK_SECONDS = 1.0
LATEST = timedelta(seconds=10)
"""Events come to the ledger a moment after they happen, and not in order: so far back each look begins."""


@commands.callback()
def _audit() -> None:
    """A group, though it has one command yet."""


@commands.command("tail")
def tail(
    count: Annotated[int, typer.Option("-n", "--count", min=0, max=5000, help="How many of the past.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come in, until Ctrl-C.")] = False,
    user: Annotated[str | None, typer.Option(help="Whom it was about, or who did it.")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    lease: Annotated[str | None, typer.Option(help="The lease's id.")] = None,
    action: Annotated[AuditAction | None, typer.Option()] = None,
    outcome: Annotated[AuditOutcome | None, typer.Option()] = None,
    request: Annotated[str | None, typer.Option(help="X-Request-ID of an answer.")] = None,
    token_sha256: Annotated[str | None, typer.Option(help="SHA-256 of a login token that was found somewhere.")] = None,
    since: Annotated[datetime | None, typer.Option(help="In UTC.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
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
        since=None if since is None else since.replace(tzinfo=since.tzinfo or UTC),
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
    decision, circumstances = event.decision, event.context
    whose = "-" if decision.user_key is None else decision.user_key.subject
    words = [instant(event.at), f"{decision.action:12}", f"{decision.outcome:11}", whose, decision.device_id or "-"]
    if decision.reason:
        words.append(decision.reason)
    if circumstances.actor is not None and circumstances.actor != decision.user_key:
        words.append(f"by {circumstances.actor.subject}")
    if circumstances.client_address:
        words.append(f"from {circumstances.client_address}")
    words += [f"{name}={value}" for name, value in decision.details.items()]
    # A user's name may hold anything: it must not begin a line, or colour the terminal.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in "  ".join(words))


def _as_json(event: AuditEvent) -> str:
    return json.dumps({**event.flat(), "at": instant(event.at)}, ensure_ascii=False)
