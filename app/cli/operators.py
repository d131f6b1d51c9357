"""`dialtone keys`, `tokens`, `sweep` and `warm-pool`: commands that act on all replicas."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli.inputs import parse_moment
from app.cli.output import AsJson, counted, end, print_json, say, working
from app.cli.service_client import JsonObject, RequestFailure, ServiceClient, run

keys = typer.Typer(no_args_is_help=True, help="Refresh the signing keys of issuers.")
tokens = typer.Typer(no_args_is_help=True, help="Reject access tokens before they expire.")

FIRST_POLL_SECONDS = 0.05
MAX_POLL_SECONDS = 2.0


@keys.callback()
def _keys() -> None:
    """Keeps the group, although it has only one command."""


@tokens.callback()
def _tokens() -> None:
    """Keeps the group, although it has only one command."""


@keys.command("refresh")
def refresh(
    issuer: Annotated[str | None, typer.Argument(help="The `iss`; default: every issuer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch issuers' keys on every replica, for example after a key was withdrawn. Exits 1 if a fetch fails."""
    found = run(lambda client: client.request("POST", "/v1/admin/keys/refresh", body={"issuer": issuer}))
    refreshed: dict[str, bool] = found["refreshed"]
    if as_json:
        print_json(found)
    else:
        for name, is_good in refreshed.items():
            say(f"{name}: {'fetched' if is_good else 'fetch FAILED; the cached keys stay in use'}")
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
    as_json: AsJson = False,
) -> None:
    """Reject tokens issued before a given time, on every replica within two seconds. Later tokens are accepted."""
    if user is not None and session is not None:
        end("--user and --session exclude each other.", 2)
    not_before = None if before is None else before.isoformat()
    wanted = {"issuer": issuer, "subject": user, "session": session, "not_before": not_before}
    found = run(lambda client: client.request("PUT", "/v1/admin/not-before", body=wanted))
    if as_json:
        print_json(found)
        return
    target = f"{found['reach']} {found['name']}" if found["name"] else "all users"
    say(f"Tokens of {target} of {issuer} issued before {found['not_before']} are now rejected.")


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be deleted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete even if the ledger has never had a lease.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete ended credentials, leftovers of a crash and orphans at Telnyx now, instead of in the background."""
    with working("Listing the credentials at Telnyx"):
        report = run(lambda client: _sweep(client, {"dry_run": dry_run, "force": force}))
    if as_json:
        print_json(report)
        return
    for row in report["due"]:
        say(f"{'would delete' if dry_run else 'not deleted yet'}: {row['credential']} ({row['state']})")
    for row in report["irrevocable"]:
        say(f"irrevocable: {row['credential']}, {row['attempts']} attempts; the log has Telnyx's responses")
    for row in report["orphans"]:
        say(f"{'would delete orphan' if dry_run else 'orphan'}: {row['credential']} ({row['why']})")
    say(
        f"Checked {counted(report['walked'], 'credential')}: {report['foreign']} with other names, "
        f"{report['young']} less than an hour old, {counted(len(report['orphans']), 'orphan')}. "
        f"Deleted {counted(report['deleted_orphans'], 'orphan')} and {counted(report['ended'], 'ended credential')}."
    )


async def _sweep(client: ServiceClient, body: JsonObject) -> JsonObject:
    """The report of a new sweep. Raises RequestFailure if it fails."""
    found = await client.request("POST", "/v1/admin/sweeps", body=body)
    delay = FIRST_POLL_SECONDS
    while found["state"] == "running":
        await asyncio.sleep(delay)
        delay = min(2 * delay, MAX_POLL_SECONDS)
        found = await client.request("GET", f"/v1/admin/sweeps/{found['id']}")
    if found["state"] != "done":
        raise RequestFailure(_why_failed(found))
    report: JsonObject = found["report"]
    return report


def _why_failed(found: JsonObject) -> str:
    """The message of the error whose class a failed sweep names."""
    from app.vending import errors

    if found["state"] == "lost":
        return "The sweep did not finish, because its replica stopped. Start another sweep."
    error = getattr(errors, found["reason"] or "", None)
    return str(error.__doc__) if isinstance(error, type) else f"The sweep failed ({found['reason']})."


def warm_pool(as_json: AsJson = False) -> None:
    """Show the ready credentials and the target of the warm pool, and the number of leases."""
    state = run(lambda client: client.request("GET", "/v1/admin/state"))
    report: dict[str, Any] = {
        "target": state["warm_pool_target"],
        "ready": state["warm_pool_ready"],
        "leases": state["leases"],
    }
    if as_json:
        print_json(report)
        return
    if not report["target"]:
        say("The warm pool is disabled: DIALTONE_WARM_POOL_SIZE is 0. New devices wait until their credential works.")
    for connection_id, target in report["target"].items():
        say(f"connection {connection_id}: {report['ready'].get(connection_id, 0)} of {target} ready")
    say(", ".join(f"{count} {state}" for state, count in report["leases"].items()) + " leases")
