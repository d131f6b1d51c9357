"""`dialtone push renew`: replaces the material of a push credential at a running service, from a job."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import remote
from app.cli.output import AsJson, end, note, print_json
from app.cli.push import Files, MinDays, PasswordFile, check_days_left, describe, valid_material
from app.cli.service_client import JsonObject, RequestFailure, ServiceClient, run

if TYPE_CHECKING:
    from app.vending.push.models import PushMaterial

MIN_DAYS = 30

NOT_ATTACHED = 3
"""Exit code if the material is registered, but wakes no device yet."""

_ID = re.compile(r"[0-9a-f]{32}")


def renew(
    credential_id: Annotated[
        str, typer.Argument(metavar="ID", help="The ID of the push credential, which the token's user registered.")
    ],
    files: Files,
    password_file: PasswordFile = None,
    min_days: MinDays = MIN_DAYS,
    as_json: AsJson = False,
) -> None:
    """Replace the material of a push credential.

    Sends the certificate or service account to the service of DIALTONE_URL. The token needs the scopes of push_scopes.
    Repeating the command is safe. Exits 1 if the material is invalid, of another app or expires soon, and 3 if it is
    registered, but an operator must attach it to a connection.
    """
    from app.cli.push_files import read_material

    credential_id = credential_id.lower()
    if not _ID.fullmatch(credential_id):
        end("The ID of a push credential has 32 characters, which are digits and the letters a to f.", 2)
    if password_file == "-" == remote.OPTIONS.get().token_file:  # noqa: S105 - standard input
        end("Standard input cannot be both the token and the password of the .p12. Use a file for one of them.", 2)
    now = datetime.now(UTC)
    report = read_material(files, password_file, now)
    material = valid_material(report)
    check_days_left(report, min_days, now)
    found = run(lambda client: _replace(client, credential_id, material), needs_remote=True)
    if as_json:
        print_json(found)
    else:
        typer.echo("Renewed: " + "\n".join(describe(material, report.days_left(now))))
    if not found["attached"]:
        note(
            "No connection uses it, so it wakes no device. An operator attaches it with: "
            f"dialtone push attach CONNECTION --{material.type.value} {credential_id}"
        )
        raise typer.Exit(NOT_ATTACHED)


async def _replace(client: ServiceClient, credential_id: str, material: "PushMaterial") -> JsonObject:
    path = f"/v1/push-credentials/{credential_id}"
    try:
        before: JsonObject = await client.request("GET", path)
        _check_same_app(before, material)
        _check_not_older(before, material)
        after: JsonObject = await client.request("PUT", path, body={"alias": before["alias"], **material.upload})
    except RequestFailure as failure:
        match failure.code:
            case "insufficient_scope" | "push_not_allowed":
                reason = (
                    "The token's user may not register push credentials. The policy rule of the user must allow push, "
                    "and the token needs the scopes in push_scopes of that rule"
                )
            case "push_credential_not_found":
                reason = (
                    "The token's user has no push credential with this ID. GET /v1/push-credentials with this token "
                    "lists those of the user"
                )
            case _:
                raise
        raise RequestFailure(f"{reason} ({failure.code}).", code=failure.code) from failure
    return after


def _check_same_app(before: JsonObject, material: "PushMaterial") -> None:
    if (before["type"], before["app_id"]) != (material.type.value, material.app_id):
        end(
            f"The push credential is for the {before['type']} app {before['app_id']}, and the files are for the "
            f"{material.type.value} app {material.app_id}."
        )


def _check_not_older(before: JsonObject, material: "PushMaterial") -> None:
    if material.not_after is None or before["not_after"] is None:
        return
    registered = datetime.fromisoformat(before["not_after"])
    if material.not_after < registered:
        end(
            f"The certificate expires before the registered one: on {material.not_after:%Y-%m-%d}, not on "
            f"{registered:%Y-%m-%d}. Specify the new certificate."
        )
