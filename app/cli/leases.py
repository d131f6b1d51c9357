"""`dialtone leases`: list, show and revoke leases."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from app.cli.identifiers import LeaseRef, find_lease_id, whole_lease_id
from app.cli.output import (
    AsJson,
    Column,
    counted,
    end,
    in_seconds,
    note,
    print_fields,
    print_json,
    print_rows,
    say,
)
from app.cli.service_client import JsonObject, ServiceClient, run
from app.vending.models import Platform
from app.vending.telephony.lease import LeaseState

commands = typer.Typer(no_args_is_help=True, help="List, show and revoke leases: which device holds which credential.")

LEASES = "/v1/admin/leases"

DELETION_SECONDS = 10.0
"""How long `revoke` waits for the next confirmation of Telnyx."""

Issuer = Annotated[str | None, typer.Option(help="The `iss` of the user's tokens.")]
User = Annotated[str | None, typer.Option(help="The user (`sub`, or the configured subject claim).")]
Connection = Annotated[str | None, typer.Option(help="Telnyx's ID of the connection.")]
Presence = Annotated[
    bool, typer.Option("--presence", help="Also look up at Telnyx which devices are online, for at most 20 devices.")
]

COLUMNS = (
    Column("ID", lambda lease: lease["id"], is_whole=True),
    Column("USER", lambda lease: lease["subject"]),
    Column("DEVICE", lambda lease: lease["device_id"]),
    Column("STATE", lambda lease: lease["state"], is_whole=True),
    Column("EXPIRES", lambda lease: in_seconds(lease["expires_at"]), is_whole=True),
    Column("PLATFORM", lambda lease: lease["platform"], is_whole=True),
    Column("SIP USERNAME", lambda lease: lease["sip_username"], is_whole=True),
    Column("LAST USED", lambda lease: in_seconds(lease.get("last_used_at")), is_whole=True),
)
ONLINE = Column("ONLINE", lambda lease: lease["online"], is_whole=True)
COLUMNS_WITH_PRESENCE = (*COLUMNS[:4], ONLINE, *COLUMNS[4:])
"""A narrow terminal shows only the first columns."""


@commands.command("ls")
def ls(
    issuer: Issuer = None,
    user: User = None,
    device: Annotated[str | None, typer.Option(help="The device's `device_id`.")] = None,
    platform: Annotated[Platform | None, typer.Option()] = None,
    state: Annotated[LeaseState | None, typer.Option()] = None,
    connection: Connection = None,
    sip_username: Annotated[str | None, typer.Option(help="As in the `From` header of a call.")] = None,
    presence: Presence = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List leases, newest first."""
    filters = {
        "issuer": issuer,
        "subject": user,
        "device_id": device,
        "platform": platform,
        "state": state,
        "connection_id": connection,
        "sip_username": sip_username,
        "presence": "true" if presence else None,
    }
    found = run(lambda client: client.rows(LEASES, filters, limit))
    if as_json:
        print_json(found)
    else:
        print_rows(COLUMNS_WITH_PRESENCE if presence else COLUMNS, found, "No leases match.")
    if len(found) == limit:
        note(f"Showing the first {limit}. Use --limit for more.")


@commands.command("show")
def show(lease: LeaseRef, presence: Presence = False, as_json: AsJson = False) -> None:
    """Show one lease. Exits 1 if it does not exist."""

    async def fetch(client: ServiceClient) -> JsonObject:
        lease_id = await find_lease_id(client, lease)
        params = {"presence": "true" if presence else None}
        found: JsonObject = await client.request("GET", f"{LEASES}/{lease_id}", params=params)
        return found

    found = run(fetch)
    if as_json:
        print_json(found)
    else:
        print_fields({name: in_seconds(value) if name.endswith("_at") else value for name, value in found.items()})


@commands.command("revoke")
def revoke(
    lease: Annotated[str | None, typer.Argument(metavar="[ID]", help="The whole ID of one lease.")] = None,
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
    as_json: AsJson = False,
) -> None:
    """Log out one device, a user, a connection or all users. Exits 3 if Telnyx has not confirmed the deletion yet."""
    if [lease is not None, user is not None, connection is not None, everything].count(True) != 1:
        end("Specify exactly one of: ID, --issuer with --user, --connection, --everything.", 2)
    if (issuer is None) != (user is None):
        end("--issuer and --user must be given together. `dialtone leases show ID` prints the issuer of a lease.", 2)
    if refuse_tokens and user is None:
        end("--refuse-tokens requires --user. `dialtone tokens refuse` rejects all tokens of an issuer.", 2)
    if (connection is not None or everything) and confirm is None:
        end("This affects more than one user. Confirm it: --confirm with the namespace (DIALTONE_NAMESPACE).", 2)
    lease_id = None if lease is None else whole_lease_id(lease, "leases revoke")
    which = {"issuer": issuer, "subject": user, "connection_id": connection}
    body = which | {"everything": everything, "refuse_tokens": refuse_tokens, "confirm": confirm}

    async def work(client: ServiceClient) -> tuple[int, bool]:
        if lease_id is not None:
            answer = await client.exchange("DELETE", f"{LEASES}/{lease_id}")
            return 1, answer.status == 204
        count = await _revoke_all(client, body)
        return count, not count or not await await_deletions(client, which)

    count, is_confirmed = run(work)
    if as_json:
        print_json({"revoked": count, "confirmed": is_confirmed})
    elif not count:
        say("No device was logged in.")
    else:
        confirmed = "has confirmed" if is_confirmed else "has not yet confirmed"
        say(f"{counted(count, 'device')} logged out. Telnyx {confirmed} the deletion.")
    if not is_confirmed:
        raise typer.Exit(3)


async def _revoke_all(client: ServiceClient, body: JsonObject) -> int:
    """Repeat the request until all leases have ended. Returns their number."""
    count = 0
    while True:
        ended = await client.request("POST", "/v1/admin/revocations", body=body)
        count += int(ended["revoked"])
        if ended["complete"]:
            return count
        note(f"{count} ...")


async def await_deletions(
    client: ServiceClient,
    which: dict[str, Any],
    states: Sequence[LeaseState] = (LeaseState.REVOKING,),
    limit: int = 100,
) -> list[JsonObject]:
    """Wait while credentials are deleted. Returns the leases whose deletion Telnyx has not confirmed yet.

    Per state, at most `limit` leases are listed.
    """
    before: set[str] = set()
    deadline = 0.0
    while True:
        left = [row for state in states for row in await client.rows(LEASES, which | {"state": state}, limit)]
        remaining = {row["id"] for row in left}
        if not remaining:
            return []
        if remaining != before:
            before, deadline = remaining, time.monotonic() + DELETION_SECONDS
        if time.monotonic() > deadline or not await client.transport.advance_deletions():
            return left
