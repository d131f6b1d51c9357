"""`dialtone grants`: revoke the grants of backends."""

from typing import Annotated

import typer

from app.cli.output import AsJson, counted, end, note, print_json
from app.cli.service_client import JsonObject, ServiceClient, run

commands = typer.Typer(no_args_is_help=True, help="Revoke grants, with which backends vouch for users and guests.")


@commands.callback()
def _grants() -> None:
    """Keeps the group, although it has only one command."""


@commands.command("revoke")
def revoke(
    grant: Annotated[str | None, typer.Argument(metavar="[ID]", help="The whole ID of one grant.")] = None,
    backend_issuer: Annotated[str | None, typer.Option(help="The `iss` of the backend's tokens.")] = None,
    backend: Annotated[str | None, typer.Option(help="The backend (`sub`, or the configured subject claim).")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Revoke all grants.")] = False,
    confirm: Annotated[str | None, typer.Option(help="The namespace. Required to revoke more than one grant.")] = None,
    as_json: AsJson = False,
) -> None:
    """Reject one grant, those of a backend or all, and log out the devices that used them."""
    if [grant is not None, backend is not None, everything].count(True) != 1:
        end("Specify exactly one of: ID, --backend-issuer with --backend, --everything.", 2)
    if (backend_issuer is None) != (backend is None):
        end("--backend-issuer and --backend must be given together.", 2)
    if grant is None and confirm is None:
        end("This affects more than one grant. Confirm it: --confirm with the namespace (DIALTONE_NAMESPACE).", 2)
    body = {
        "grant_id": grant,
        "backend_issuer": backend_issuer,
        "backend_subject": backend,
        "everything": everything,
        "confirm": confirm,
    }
    grants, leases = run(lambda client: _revoke_all(client, body))
    if as_json:
        print_json({"revoked": grants, "leases": leases})
    else:
        typer.echo(f"{counted(grants, 'grant')} revoked, {counted(leases, 'device')} logged out.")


async def _revoke_all(client: ServiceClient, body: JsonObject) -> tuple[int, int]:
    """Repeat the request until all grants are revoked. Returns the numbers of grants and of leases."""
    grants = leases = 0
    while True:
        revoked = await client.request("POST", "/v1/admin/grant-revocations", body=body)
        grants, leases = grants + int(revoked["revoked"]), leases + int(revoked["leases"])
        if revoked["complete"]:
            return grants, leases
        note(f"{grants} ...")
