"""`dialtone users`: erase a user from the ledger and at Telnyx."""

from collections import Counter
from typing import Annotated

import typer

from app.cli.leases import await_deletions
from app.cli.output import AsJson, counted, end, note, print_json, say
from app.cli.service_client import JsonObject, ServiceClient, run
from app.vending.telephony.lease import AWAITING_DELETION

commands = typer.Typer(no_args_is_help=True, help="Erase a user's data.")

ERASURES = "/v1/admin/erasures"
COUNTS = ("leases", "credentials", "push_registrations", "audit_events")
PENDING = ("credential_name", "state", "deletion_attempts", "retry_at")
"""Fields of a lease that are printed while Telnyx has not confirmed the deletion of its credential."""

MAX_PENDING = 1000
"""Leases of one state that are listed. A user has a few."""


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

    Exits 3 and lists the credentials if Telnyx has not confirmed their deletion yet; Dialtone then retries it. Run the
    command again until it exits 0, also after an interruption.
    """
    if not issuer or not user:
        end("--issuer and --user must not be empty.", 2)
    if not dry_run and confirm is None:
        end("An erasure cannot be undone. Confirm it: --confirm with the namespace (DIALTONE_NAMESPACE).", 2)
    body = {"issuer": issuer, "subject": user, "dry_run": dry_run, "refuse_tokens": refuse_tokens, "confirm": confirm}

    async def work(client: ServiceClient) -> tuple[Counter[str], str | None, list[JsonObject]]:
        counts, last = await _erase_all(client, body)
        if not last["unconfirmed"]:
            return counts, last["pseudonym"], []
        # Also leases that had ended before the erasure: their credentials are the user's data, too.
        which = {"issuer": issuer, "subject": last["pseudonym"]}
        pending = await await_deletions(client, which, AWAITING_DELETION, MAX_PENDING)
        return counts, last["pseudonym"], [{name: lease[name] for name in PENDING} for lease in pending]

    counts, pseudonym, pending = run(work)
    if as_json:
        values = {name: counts[name] for name in COUNTS}
        report = {"dry_run": dry_run, **values, "pseudonym": pseudonym, "confirmed": not pending, "pending": pending}
        print_json(report)
    elif dry_run:
        say(f"Would erase {_in_words(counts)}.")
    else:
        say(f"Erased {_in_words(counts)}. The audit now names {pseudonym}.")
        for lease in pending:
            attempts = lease["deletion_attempts"]
            say(f"not deleted yet: {lease['credential_name']} ({lease['state']}; deletion attempts: {attempts})")
        say(f"Telnyx {'has not yet' if pending else 'has'} confirmed the deletion of all credentials.")
    if not any(counts.values()) and not pending:
        note("There is no data under this issuer and user. If you expected some, compare both with the user's tokens.")
    if pending:
        note("Dialtone retries the deletion. Run the same command again until it exits with 0.")
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
        f"{counted(counts['leases'], 'lease')} ({counts['credentials']} with a credential at Telnyx), "
        f"{counted(counts['push_registrations'], 'push registration')} and "
        f"{counted(counts['audit_events'], 'audit event')}"
    )
