"""`dialtone users`: erase a user from the ledger and at Telnyx."""

import sys
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, end, print_json, run
from app.composition.components import Components
from app.vending.models import UserKey
from app.vending.not_before import NotBeforeTarget, Reach
from app.vending.operators.erasure import Erasure, ErasureCounts

commands = typer.Typer(no_args_is_help=True, help="Erase a user's data.")


@commands.callback()
def _users() -> None:
    """Keeps the group, although it has only one command."""


@commands.command("erase")
def erase(
    issuer: Annotated[str, typer.Option(help="The `iss` of the user's tokens.")],
    user: Annotated[str, typer.Option(help="The user (`sub`, or the configured subject claim).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be erased.")] = False,
    refuse_tokens: Annotated[
        bool, typer.Option("--refuse-tokens", help="Also reject the user's tokens issued before now.")
    ] = False,
    confirm: Annotated[str | None, typer.Option(help="The namespace. Required unless --dry-run is given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Log a user out, remove push registrations, and pseudonymize ended leases and the audit. It cannot be undone.

    Exits 3 if Telnyx has not confirmed the deletion of a credential yet; Dialtone then retries it. After an
    interruption, run the command again.
    """
    if not issuer or not user:
        end("--issuer and --user must not be empty.", 2)
    user_key = UserKey(issuer, user)
    if dry_run:
        counts = run(lambda components: components.operators.users.count(user_key))
        _print({"dry_run": True, **asdict(counts)}, f"Would erase {_in_words(counts)}.", as_json=as_json)
        return

    async def work(components: Components) -> Erasure:
        components.operators.leases.check_confirmed(confirm)
        if refuse_tokens:
            await components.operators.tokens.set_not_before(NotBeforeTarget(issuer, Reach.USER, user), None)
        erasure = await components.operators.users.erase(user_key, max_events=sys.maxsize)
        while (await components.upkeep.sweeper.sweep()).deleted:
            pass
        await components.push.uploads.sweep()
        left = await components.operators.users.unconfirmed(user_key, erasure.pseudonym)
        return replace(erasure, unconfirmed=left)

    erasure = run(work)
    confirmed = "confirmed" if not erasure.unconfirmed else "not yet confirmed"
    text = (
        f"Erased {_in_words(erasure.counts)}. The audit now names {erasure.pseudonym}.\n"
        f"Deletion of the credentials {confirmed} by Telnyx."
    )
    shown = {"pseudonym": erasure.pseudonym, "unconfirmed": erasure.unconfirmed}
    _print({"dry_run": False, **asdict(erasure.counts), **shown}, text, as_json=as_json)
    if erasure.unconfirmed:
        raise typer.Exit(3)


def _print(values: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(values)
    else:
        typer.echo(text)


def _in_words(counts: ErasureCounts) -> str:
    return (
        f"{counts.leases} leases ({counts.credentials} with a credential at Telnyx), "
        f"{counts.push_registrations} push registrations and {counts.audit_events} audit events"
    )
