"""`dialtone users`: erase a user from the ledger and at Telnyx."""

from collections import Counter
from typing import Annotated

import typer

from app.cli.leases import are_deleted
from app.cli.output import AsJson, end, note, print_json
from app.cli.service_client import JsonObject, ServiceClient, run

commands = typer.Typer(no_args_is_help=True, help="Erase a user's data.")

ERASURES = "/v1/admin/erasures"
COUNTS = ("leases", "credentials", "push_registrations", "audit_events")


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
    if not dry_run and confirm is None:
        end("An erasure cannot be undone. Confirm it: --confirm with the namespace (DIALTONE_NAMESPACE).", 2)
    body = {"issuer": issuer, "subject": user, "dry_run": dry_run, "refuse_tokens": refuse_tokens, "confirm": confirm}

    async def work(client: ServiceClient) -> tuple[Counter[str], JsonObject, bool]:
        counts, last = await _erase_all(client, body)
        which = {"issuer": issuer, "subject": last["pseudonym"]}
        return counts, last, not last["unconfirmed"] or await are_deleted(client, which)

    counts, last, is_confirmed = run(work)
    values = {name: counts[name] for name in COUNTS}
    if as_json:
        print_json({"dry_run": dry_run, **values, "pseudonym": last["pseudonym"], "confirmed": is_confirmed})
    elif dry_run:
        typer.echo(f"Would erase {_in_words(counts)}.")
    else:
        typer.echo(f"Erased {_in_words(counts)}. The audit now names {last['pseudonym']}.")
        typer.echo(f"Deletion of the credentials {'confirmed' if is_confirmed else 'not yet confirmed'} by Telnyx.")
    if not is_confirmed:
        raise typer.Exit(3)


async def _erase_all(client: ServiceClient, body: JsonObject) -> tuple[Counter[str], JsonObject]:
    """Repeat the request until nothing is left. Returns the sums of the counts, and the last response."""
    counts: Counter[str] = Counter()
    while True:
        erased = await client.request("POST", ERASURES, body=body)
        counts.update({name: int(erased[name]) for name in COUNTS})
        if erased["complete"]:
            return counts, erased
        note(f"{counts['audit_events']} audit events ...")


def _in_words(counts: Counter[str]) -> str:
    return (
        f"{counts['leases']} leases ({counts['credentials']} with a credential at Telnyx), "
        f"{counts['push_registrations']} push registrations and {counts['audit_events']} audit events"
    )
