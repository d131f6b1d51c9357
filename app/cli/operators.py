"""`dialtone keys` and `dialtone tokens`: an operator with a shell tells every replica something, by the ledger."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, end, print_json, run, working
from app.composition.components import Components
from app.vending.not_before import NotBeforeTarget, Reach

keys = typer.Typer(no_args_is_help=True, help="The keys that issuers sign with.")
tokens = typer.Typer(no_args_is_help=True, help="Access tokens, before their time is over.")


@keys.callback()
def _keys() -> None:
    """A group, though it has one command yet."""


@tokens.callback()
def _tokens() -> None:
    """A group, though it has one command yet."""


@keys.command("refresh")
def refresh(issuer: Annotated[str | None, typer.Argument(help="The `iss`; default: every issuer.")] = None) -> None:
    """Have every replica fetch issuers' keys anew, because one was withdrawn. Status 1 if that fails here."""
    refreshed = run(lambda components: components.operators.tokens.refresh_keys(issuer))
    for name, is_good in refreshed.items():
        typer.echo(f"{name}: {'fetched' if is_good else 'NOT fetched from here; the keys at hand stay'}")
    if not all(refreshed.values()):
        raise typer.Exit(1)


@tokens.command("refuse")
def refuse(
    issuer: Annotated[str, typer.Argument(help="The `iss` of the tokens.")],
    user: Annotated[str | None, typer.Option(help="Only this user's (`sub`, or what names users here).")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session's (`sid`).")] = None,
    before: Annotated[
        datetime | None, typer.Option(help="Issued before this moment, in UTC. Default: now.", show_default=False)
    ] = None,
) -> None:
    """Refuse tokens that were issued before a moment, on every replica within two seconds; new logins are free."""
    if user is not None and session is not None:
        end("Name a user or a session, not both.", 2)
    target = NotBeforeTarget(issuer)
    if user is not None or session is not None:
        target = NotBeforeTarget(issuer, Reach.USER if session is None else Reach.SESSION, user or session or "")
    moment = None if before is None else before.replace(tzinfo=UTC) if before.tzinfo is None else before
    mark = run(lambda components: components.operators.tokens.set_not_before(target, moment))
    whose = f"{mark.target.reach} {mark.target.name}" if mark.target.name else "everybody"
    typer.echo(f"Tokens of {whose} of {issuer} from before {mark.not_before.isoformat()} are refused from now on.")


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete even if the ledger never held a lease.")] = False,
    as_json: AsJson = False,
) -> None:
    """Clean up now: what has ended, what a crash left, and orphans at Telnyx. Replicas do the first two anyway."""
    with working("Walking the credentials at Telnyx"):
        said = asdict(run(lambda components: components.upkeep.sweep_jobs.run(dry_run=dry_run, force=force)))
    if as_json:
        print_json(said)
        return
    for row in said["due"]:
        typer.echo(f"{'would end' if dry_run else 'not yet done'}: {row['credential']} ({row['state']})")
    for row in said["irrevocable"]:
        typer.echo(f"irrevocable: {row['credential']}, tried {row['attempts']} times; the log says what Telnyx answers")
    for row in said["orphans"]:
        typer.echo(f"{'would delete' if dry_run else 'orphan'}: {row['credential']} ({row['why']})")
    typer.echo(
        f"{said['walked']} credentials walked: {said['foreign']} foreign and {said['young']} young left alone, "
        f"{len(said['orphans'])} orphans, {said['deleted_orphans']} deleted; {said['ended']} ended ones deleted."
    )


def warm_pool(as_json: AsJson = False) -> None:
    """Say how many credentials are ready for new devices, and how many leases there are."""

    async def look(components: Components) -> dict[str, Any]:
        await components.operators.leases.refresh_counts()
        ready = await components.upkeep.warm_pool.count()
        return {
            "size": components.upkeep.warm_pool.size,
            "ready": ready,
            "leases": components.operators.leases.lease_counts,
        }

    said = run(look)
    if as_json:
        print_json(said)
        return
    if not said["size"]:
        typer.echo(
            "There is no warm pool: DIALTONE_WARM_POOL_SIZE is 0. A new device waits until its credential works."
        )
    for connection_id, count in said["ready"].items():
        typer.echo(f"connection {connection_id}: {count} of {said['size']} ready")
    typer.echo(", ".join(f"{count} {state}" for state, count in said["leases"].items()) + " leases")
