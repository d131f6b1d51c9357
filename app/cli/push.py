"""`dialtone push`: validate and convert push material, and list push credentials."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.output import AsJson, Column, counted, end, in_seconds, print_json, print_rows
from app.cli.service_client import JsonObject, ServiceClient, rows_of, run

if TYPE_CHECKING:
    from app.vending.push.material_errors import MaterialReport
    from app.vending.push.models import PushMaterial

commands = typer.Typer(no_args_is_help=True, help="Validate, convert, list and renew push credentials.")

SOON_DAYS = 30

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        help="A .p12, or the certificate and its key in one or two files (PEM or DER), or Google's JSON file.",
    ),
]
PasswordFile = Annotated[
    str | None,
    typer.Option(metavar="FILE|-", help="The file with the password of the .p12, or - for standard input."),
]
MinDays = Annotated[
    int, typer.Option(min=0, metavar="DAYS", help="Exit 1 if the certificate expires in fewer days than this.")
]

COLUMNS = (
    Column("ID", lambda row: row["id"], is_whole=True),
    Column("TYPE", lambda row: row["type"], is_whole=True),
    Column("APP", lambda row: row["app_id"]),
    Column("STATE", lambda row: row["state"], is_whole=True),
    Column("EXPIRES", lambda row: in_seconds(row["not_after"]), is_whole=True),
    Column("USERS", lambda row: row["users"], is_whole=True),
    Column("ATTACHED", lambda row: row["attached"], is_whole=True),
    Column("TELNYX ID", lambda row: row["telnyx_credential_id"], is_whole=True),
    Column("FINGERPRINT SHA-256", lambda row: row["fingerprint_sha256"], is_whole=True),
)


@commands.command("lint")
def lint(files: Files, password_file: PasswordFile = None, min_days: MinDays = 0, as_json: AsJson = False) -> None:
    """Validate push material, and print its faults with fixes.

    Sends nothing. Exits 1 if the material is invalid.
    """
    from app.cli.push_files import read_material

    now = datetime.now(UTC)
    report = read_material(files, password_file, now)
    if as_json:
        print_json(_as_json(report, now))
    elif report.material is None:
        typer.echo("\n".join(_fault_lines(report)))
    else:
        typer.echo("Valid: " + "\n".join(describe(report.material, report.days_left(now))))
    if report.material is None:
        raise typer.Exit(1)
    check_days_left(report, min_days, now)


@commands.command("convert")
def convert(
    files: Files,
    out_dir: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the new files. It may exist.")],
    password_file: PasswordFile = None,
) -> None:
    """Write push material as PEM or JSON without a password.

    The files are cert.pem and key.pem, or service-account.json. Existing files are not replaced.
    Exits 1 if the material is invalid.
    """
    from app.cli.push_files import read_material, write_material

    material = valid_material(read_material(files, password_file, datetime.now(UTC)))
    typer.echo("\n".join(f"Wrote {path}" for path in write_material(material, out_dir)))


@commands.command("ls")
def ls(limit: Annotated[int, typer.Option(min=1, max=1000)] = 100, as_json: AsJson = False) -> None:
    """List the push credentials at Telnyx: app, expiry, number of users, and whether a connection uses them."""
    found = run(lambda client: _list(client, limit))
    if as_json:
        print_json(found)
    else:
        print_rows(COLUMNS, found, "There are no push credentials.")


async def _list(client: ServiceClient, limit: int) -> list[JsonObject]:
    return rows_of(await client.request("GET", "/v1/admin/push-credentials", params={"limit": limit}))


def valid_material(report: "MaterialReport") -> "PushMaterial":
    """The material. Exits 1 with its faults if it is invalid."""
    if report.material is None:
        end("\n".join(_fault_lines(report)))
    return report.material


def check_days_left(report: "MaterialReport", min_days: int, now: datetime) -> None:
    """Exits 1 if the certificate expires in fewer days."""
    left = report.days_left(now)
    if left is not None and left < min_days:
        end(f"The certificate expires in {counted(left, 'day')}, and --min-days is {min_days}. Renew it at Apple.")


def _fault_lines(report: "MaterialReport") -> list[str]:
    """One line per code. A file with both the certificate and the key may have the same fault in both fields."""
    fields: dict[str, list[str]] = {}
    for fault in report.faults:
        fields.setdefault(fault.code, []).append(fault.field)
    messages = {fault.code: fault.message for fault in report.faults}
    return [f"{code} ({', '.join(fields[code])}): {messages[code]}" for code in messages]


def describe(material: "PushMaterial", days_left: int | None) -> list[str]:
    """The material's app, fingerprint and expiry."""
    lines = [f"{material.type} push credential of {material.app_id}, {material.fingerprint_sha256}"]
    if material.not_after is not None and days_left is not None:
        hurry = " Renew it soon." if days_left <= SOON_DAYS else ""
        lines.append(f"It expires on {material.not_after:%Y-%m-%d}, in {counted(days_left, 'day')}.{hurry}")
    return lines


def _as_json(report: "MaterialReport", now: datetime) -> dict[str, Any]:
    material = report.material
    return {
        "ok": material is not None,
        "type": material and material.type,
        "app_id": material and material.app_id,
        "fingerprint_sha256": material and material.fingerprint_sha256,
        "not_after": None if material is None or material.not_after is None else material.not_after.isoformat(),
        "days_left": report.days_left(now),
        "faults": [{"code": fault.code, "field": fault.field, "message": fault.message} for fault in report.faults],
    }
