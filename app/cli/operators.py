"""`dialtone keys`, `tokens`, `sweep` and `warm-pool`: commands that act on all replicas through the ledger."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli.moments import parse_moment
from app.cli.output import AsJson, end, print_json, run, working
from app.composition.components import Components
from app.vending.not_before import NotBeforeTarget, Reach

keys = typer.Typer(no_args_is_help=True, help="Refresh the signing keys of issuers.")
tokens = typer.Typer(no_args_is_help=True, help="Reject access tokens before they expire.")


@keys.callback()
def _keys() -> None:
    """Keeps the group, although it has only one command."""


@tokens.callback()
def _tokens() -> None:
    """Keeps the group, although it has only one command."""


@keys.command("refresh")
def refresh(issuer: Annotated[str | None, typer.Argument(help="The `iss`; default: every issuer.")] = None) -> None:
    """Fetch issuers' keys on every replica, for example after a key was withdrawn. Exits 1 if the fetch fails here."""
    refreshed = run(lambda components: components.operators.tokens.refresh_keys(issuer))
    for name, is_good in refreshed.items():
        typer.echo(f"{name}: {'fetched' if is_good else 'fetch FAILED; the cached keys stay in use'}")
    if not all(refreshed.values()):
        raise typer.Exit(1)


@tokens.command("refuse")
def refuse(
    issuer: Annotated[str, typer.Argument(help="The `iss` of the tokens.")],
    user: Annotated[
        str | None, typer.Option(help="Only tokens of this user (`sub`, or the configured subject claim).")
    ] = None,
    session: Annotated[str | None, typer.Option(help="Only tokens of this session (`sid`).")] = None,
    before: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_moment,
            metavar="TIME",
            help="Issued before this moment, in UTC. Default: now.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Reject tokens issued before a given time, on every replica within two seconds. Later tokens are accepted."""
    if user is not None and session is not None:
        end("--user and --session exclude each other.", 2)
    target = NotBeforeTarget(issuer)
    if user is not None or session is not None:
        target = NotBeforeTarget(issuer, Reach.USER if session is None else Reach.SESSION, user or session or "")
    mark = run(lambda components: components.operators.tokens.set_not_before(target, before))
    target_name = f"{mark.target.reach} {mark.target.name}" if mark.target.name else "all users"
    typer.echo(f"Tokens of {target_name} of {issuer} issued before {mark.not_before.isoformat()} are now rejected.")


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be deleted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete even if the ledger never held a lease.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete ended credentials, leftovers of a crash and orphans at Telnyx now, instead of in the background."""
    with working("Listing the credentials at Telnyx"):
        report = asdict(run(lambda components: components.upkeep.sweep_jobs.run(dry_run=dry_run, force=force)))
    if as_json:
        print_json(report)
        return
    for row in report["due"]:
        typer.echo(f"{'would delete' if dry_run else 'not deleted yet'}: {row['credential']} ({row['state']})")
    for row in report["irrevocable"]:
        typer.echo(f"irrevocable: {row['credential']}, {row['attempts']} attempts; the log has Telnyx's responses")
    for row in report["orphans"]:
        typer.echo(f"{'would delete orphan' if dry_run else 'orphan'}: {row['credential']} ({row['why']})")
    typer.echo(
        f"{report['walked']} credentials checked: {report['foreign']} foreign and {report['young']} new ones skipped, "
        f"{len(report['orphans'])} orphans, {report['deleted_orphans']} deleted; {report['ended']} ended ones deleted."
    )


def warm_pool(as_json: AsJson = False) -> None:
    """Show the number of ready credentials in the warm pool, and the number of leases."""

    async def look(components: Components) -> dict[str, Any]:
        await components.operators.leases.refresh_counts()
        ready = await components.upkeep.warm_pool.count()
        return {
            "size": components.upkeep.warm_pool.size,
            "ready": ready,
            "leases": components.operators.leases.lease_counts,
        }

    report = run(look)
    if as_json:
        print_json(report)
        return
    if not report["size"]:
        typer.echo(
            "The warm pool is disabled: DIALTONE_WARM_POOL_SIZE is 0. New devices wait until their credential works."
        )
    for connection_id, count in report["ready"].items():
        typer.echo(f"connection {connection_id}: {count} of {report['size']} ready")
    typer.echo(", ".join(f"{count} {state}" for state, count in report["leases"].items()) + " leases")
