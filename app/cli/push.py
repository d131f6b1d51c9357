"""`dialtone push`: validate push material, and list push credentials."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.output import AsJson, Column, end, in_seconds, print_json, print_rows
from app.cli.service_client import run

if TYPE_CHECKING:
    from app.vending.push.material_errors import MaterialReport

commands = typer.Typer(no_args_is_help=True, help="Validate and list push credentials of mobile apps.")

SOON_DAYS = 30

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
def lint(
    files: Annotated[
        list[Path], typer.Argument(help="Certificate and key in PEM, in either order, or Google's JSON file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Validate push material, and print its faults with fixes. Exits 1 if it is invalid."""
    if len(files) > 2:
        end("Specify a certificate and its key, or one JSON file.", 2)
    now = datetime.now(UTC)
    report = _report([_text(path) for path in files], now)
    typer.echo(json.dumps(_as_json(report, now), indent=2) if as_json else "\n".join(_as_text(report, now)))
    if report.material is None:
        raise typer.Exit(1)


@commands.command("ls")
def ls(limit: Annotated[int, typer.Option(min=1, max=1000)] = 100, as_json: AsJson = False) -> None:
    """List the push credentials at Telnyx: app, expiry, number of users, and whether a connection uses them."""
    found = run(lambda client: client.request("GET", "/v1/admin/push-credentials", params={"limit": limit}))
    if as_json:
        print_json(found["data"])
    else:
        print_rows(COLUMNS, found["data"], "There are no push credentials.")


def _report(texts: list[str], now: datetime) -> "MaterialReport":
    from app.adapters.push_validation import apns, fcm

    if len(texts) == 1 and texts[0].lstrip().startswith(("{", "[")):
        try:
            return fcm.validate(json.loads(texts[0]))
        except (ValueError, RecursionError):
            end("The file is not valid JSON.", 2)
    certificate, private_key = texts[0], texts[-1]
    if len(texts) == 2 and _labels(certificate).isdisjoint({"CERTIFICATE"}) and "CERTIFICATE" in _labels(private_key):
        certificate, private_key = private_key, certificate
    return apns.validate(certificate, private_key, now)


def _labels(text: str) -> set[str]:
    from app.adapters.push_validation.pem import blocks

    return {block.label for block in blocks(text)}


def _text(path: Path) -> str:
    """The text of a file. Binary files (.p12, .cer) are encoded in base64, which the validation recognizes."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        end(f"{path} cannot be read ({type(error).__name__}).", 2)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode("ascii")


def _as_text(report: "MaterialReport", now: datetime) -> list[str]:
    if report.material is None:
        return [f"{fault.code} ({fault.field}): {fault.message}" for fault in report.faults]
    material, left = report.material, report.days_left(now)
    lines = [f"Valid: {material.type} push credential of {material.app_id}, {material.fingerprint_sha256}"]
    if material.not_after is not None:
        hurry = " Renew it soon." if left is not None and left <= SOON_DAYS else ""
        lines.append(f"It expires on {material.not_after:%Y-%m-%d}, in {left} days.{hurry}")
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
