"""`dialtone leases`: list, show and revoke leases in the ledger."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, end, instant, print_json, print_table, run
from app.composition.components import Components
from app.vending.models import Platform
from app.vending.not_before import NotBeforeTarget, Reach
from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.telephony.lease import Lease, LeaseState

commands = typer.Typer(no_args_is_help=True, help="List, show and revoke leases: which device holds which credential.")

Issuer = Annotated[str | None, typer.Option(help="The `iss` of the user's tokens.")]
User = Annotated[str | None, typer.Option(help="The user (`sub`, or the configured subject claim).")]
Connection = Annotated[str | None, typer.Option(help="Telnyx's id of the connection.")]


@commands.command("ls")
def ls(
    issuer: Issuer = None,
    user: User = None,
    device: Annotated[str | None, typer.Option(help="The device's `device_id`.")] = None,
    platform: Annotated[Platform | None, typer.Option()] = None,
    state: Annotated[LeaseState | None, typer.Option()] = None,
    connection: Connection = None,
    sip_username: Annotated[str | None, typer.Option(help="As in the `From` header of a call.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List leases, newest first."""
    criteria = LeaseCriteria(issuer, user, device, platform, state, connection, sip_username)
    found = run(lambda components: components.operators.leases.search(criteria, None, limit))
    if as_json:
        print_json([_fields(lease) for lease in found])
        return
    _print_table(found)
    if len(found) == limit:
        typer.echo(f"Showing the first {limit}. Use --limit for more.", err=True)


@commands.command("show")
def show(lease_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one lease. Exits 1 if it does not exist."""
    lease = run(lambda components: components.operators.leases.get(lease_id))
    if as_json:
        print_json(_fields(lease))
        return
    for name, value in _fields(lease).items():
        typer.echo(f"{name:18} {'-' if value is None else value}")


@commands.command("revoke")
def revoke(
    lease_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The lease of one device.")] = None,
    issuer: Issuer = None,
    user: User = None,
    connection: Connection = None,
    everything: Annotated[bool, typer.Option("--everything", help="Revoke all leases.")] = False,
    refuse_tokens: Annotated[
        bool, typer.Option("--refuse-tokens", help="Also reject the user's tokens issued before now.")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(help="The namespace. Required to revoke leases of more than one user.")
    ] = None,
) -> None:
    """Log out one device, a user, a connection or all users. Exits 3 if Telnyx has not confirmed the deletion yet."""
    if [lease_id is not None, user is not None, connection is not None, everything].count(True) != 1:
        end("Specify exactly one of: ID, --issuer with --user, --connection, --everything.", 2)
    if (issuer is None) != (user is None):
        end("--issuer and --user must be given together.", 2)
    if refuse_tokens and user is None:
        end("--refuse-tokens requires --user. `dialtone tokens refuse` rejects all tokens of an issuer.", 2)

    async def work(components: Components) -> tuple[int, bool]:
        if lease_id is not None:
            return 1, await components.operators.leases.revoke(lease_id)
        if user is None:
            components.operators.leases.check_confirmed(confirm)
        elif refuse_tokens and issuer is not None:
            await components.operators.tokens.set_not_before(NotBeforeTarget(issuer, Reach.USER, user), None)
        count = await _revoke_all(components, LeaseCriteria(issuer, user, connection_id=connection))
        while (swept := await components.upkeep.sweeper.sweep()).deleted:
            pass
        return count, not count or (not swept.taken and not components.upkeep.sweeper.backlog.waiting)

    count, is_confirmed = run(work)
    typer.echo(f"{count} logged out; deletion {'confirmed' if is_confirmed else 'not yet confirmed'} by Telnyx.")
    if not is_confirmed:
        raise typer.Exit(3)


async def _revoke_all(components: Components, criteria: LeaseCriteria) -> int:
    count = 0
    while True:
        ended = await components.operators.leases.revoke_matching(criteria)
        count += ended.count
        if ended.is_all:
            return count
        typer.echo(f"{count} ...", err=True)


def _fields(lease: Lease) -> dict[str, Any]:
    """The fields to print. Times are in UTC, and internal fields are omitted."""
    left_out = ("version", "claimed_by", "claimed_until", "attempted_at", "session")
    fields = {name: value for name, value in asdict(lease).items() if name not in left_out}
    return {name: instant(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def _print_table(leases: Iterable[Lease]) -> None:
    print_table(
        ("id", "user", "device", "platform", "state", "sip username", "expires", "last used"),
        (
            (
                lease.id,
                lease.subject,
                lease.device_id,
                lease.platform,
                lease.state,
                lease.sip_username or "-",
                instant(lease.expires_at),
                "-" if lease.last_used_at is None else instant(lease.last_used_at),
            )
            for lease in leases
        ),
    )
