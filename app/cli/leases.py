"""`dialtone leases`: find, show and end leases, beside the service and by the same ledger."""

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

commands = typer.Typer(no_args_is_help=True, help="Who holds which credential, until when.")

Issuer = Annotated[str | None, typer.Option(help="The `iss` of the user's tokens.")]
User = Annotated[str | None, typer.Option(help="The user (`sub`, or what names users here).")]
Connection = Annotated[str | None, typer.Option(help="Telnyx's id of the connection.")]


@commands.command("ls")
def ls(
    issuer: Issuer = None,
    user: User = None,
    device: Annotated[str | None, typer.Option(help="The device's own id.")] = None,
    platform: Annotated[Platform | None, typer.Option()] = None,
    state: Annotated[LeaseState | None, typer.Option()] = None,
    connection: Connection = None,
    sip_username: Annotated[str | None, typer.Option(help="As in `From` of a call.")] = None,
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
        typer.echo(f"The first {limit}; there may be more (--limit).", err=True)


@commands.command("show")
def show(lease_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Everything about one lease. Status 1: there is none of that id."""
    lease = run(lambda components: components.operators.leases.get(lease_id))
    if as_json:
        print_json(_fields(lease))
        return
    for name, value in _fields(lease).items():
        typer.echo(f"{name:18} {'-' if value is None else value}")


@commands.command("revoke")
def revoke(
    lease_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One device.")] = None,
    issuer: Issuer = None,
    user: User = None,
    connection: Connection = None,
    everything: Annotated[bool, typer.Option("--everything", help="Everybody.")] = False,
    refuse_tokens: Annotated[
        bool, typer.Option("--refuse-tokens", help="Refuse the user's tokens from before now, too.")
    ] = False,
    confirm: Annotated[str | None, typer.Option(help="The namespace, where more than a user is meant.")] = None,
) -> None:
    """Log out one device, a user, a connection or everybody. Status 3: done, and Telnyx has yet to confirm."""
    if [lease_id is not None, user is not None, connection is not None, everything].count(True) != 1:
        end("Name one of: an id, --issuer with --user, --connection, --everything.", 2)
    if (issuer is None) != (user is None):
        end("A user is an --issuer and a --user.", 2)
    if refuse_tokens and user is None:
        end("--refuse-tokens goes with a user; `dialtone tokens refuse` ends an issuer's tokens.", 2)

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
    typer.echo(f"{count} logged out; {'gone' if is_confirmed else 'not yet confirmed'} at Telnyx.")
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
    """For people and scripts: times in UTC, and nothing of a claim that is over."""
    left_out = ("version", "claimed_by", "claimed_until", "attempted_at", "session")
    fields = {name: value for name, value in asdict(lease).items() if name not in left_out}
    return {name: instant(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def _print_table(leases: Iterable[Lease]) -> None:
    print_table(
        ("id", "user", "device", "platform", "state", "sip username", "expires"),
        (
            (
                lease.id,
                lease.subject,
                lease.device_id,
                lease.platform,
                lease.state,
                lease.sip_username or "-",
                instant(lease.expires_at),
            )
            for lease in leases
        ),
    )
