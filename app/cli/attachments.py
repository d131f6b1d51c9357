"""`dialtone push attach`: the push credentials that a connection uses."""

from typing import Annotated

import typer

from app.cli.output import AsJson, end, print_json, say
from app.cli.service_client import JsonObject, run

PLATFORMS = ("ios", "android")

Credential = Annotated[str | None, typer.Option(metavar="ID", help="The `id` of a push credential of any user.")]


def attach(
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="Telnyx's ID of the connection.")],
    ios: Credential = None,
    android: Credential = None,
    detach: Annotated[
        list[str] | None, typer.Option(metavar="ios|android", help="Detach the push credential of this platform.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attach push credentials to a connection, whose calls then wake the apps. Other platforms stay unchanged."""
    wanted: JsonObject = {name: value for name, value in (("ios", ios), ("android", android)) if value is not None}
    for platform in detach or ():
        if platform not in PLATFORMS or platform in wanted:
            end("--detach requires ios or android, and excludes an ID of the same platform.", 2)
        wanted[platform] = None
    if not wanted:
        end("Specify at least one of: --ios, --android, --detach.", 2)
    if not (connection.isascii() and connection.isdigit()):
        end("The ID of a connection has only digits.", 2)
    path = f"/v1/admin/connections/{connection}/push-credentials"
    found = run(lambda client: client.request("PUT", path, body=wanted))
    if as_json:
        print_json(found)
        return
    for platform in PLATFORMS:
        say(f"{platform}: {_name(found[platform]['now'])} (before: {_name(found[platform]['before'])})")


def _name(attached: JsonObject | None) -> str:
    if attached is None:
        return "none"
    return f"{attached['app_id'] or 'not from Dialtone'} {attached['telnyx_id']}"
