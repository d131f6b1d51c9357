"""`dialtone config`: check and print the configuration."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.in_process import run_in_process, settings
from app.cli.output import AsJson, counted, end, note, print_json

if TYPE_CHECKING:
    from app.composition.components import Components
    from app.config.effective_settings import SettingInEffect
    from app.config.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Settings, and the configuration file dialtone.toml.")


@commands.command()
def check(
    path: Annotated[str | None, typer.Argument(help="The file to check. Default: DIALTONE_CONFIG.")] = None,
    is_online: Annotated[
        bool,
        typer.Option("--online", help="Also read the connections at Telnyx, and check what rules require of them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the configuration. Exits 1 with one line if it is invalid. Warnings are printed to standard error."""
    where = settings("config check") if path is None else settings("config check", config=path)
    for warning in where.warnings():
        note(f"Warning: {warning.place}: {warning.seen}; {warning.fix}.")
    if is_online:
        _check_online(where)
    resolved = where.identity()
    issuers, rules, endpoints = len(resolved.issuers), len(resolved.policy.rules), len(resolved.endpoints)
    if as_json:
        counts = {"issuers": issuers, "rules": rules, "endpoints": endpoints}
        print_json(counts | {"policy_enforced": resolved.policy.is_enforced})
        return
    is_open = "all users are allowed" if not resolved.policy.is_enforced else "users without a matching rule are denied"
    found = f"{counted(issuers, 'issuer')}, {counted(rules, 'rule')}, {counted(endpoints, 'endpoint')} for events"
    typer.echo(f"Valid: {found}; {is_open}.")


def _check_online(where: "Settings") -> None:
    """Exits 1 if a connection does not meet a rule's requirement, or cannot be read."""

    async def unmet(components: "Components") -> list[str]:
        from app.vending.errors import TelnyxError
        from app.vending.upkeep.outbound_guard import FailedRead

        policy, found = components.identity.policy.policy, list[str]()
        for connection_id in policy.connections_to_check():
            try:
                found += map(str, await components.telnyx.outbound_guard.unmet_rules(policy, connection_id))
            except TelnyxError as error:
                found.append(str(FailedRead.of(policy, connection_id, error)))
        return found

    if found := run_in_process(where, unmet):
        end("\n".join(f"Configuration: {finding}." for finding in found))


@commands.command()
def show(as_json: AsJson = False) -> None:
    """Print all settings in effect and their sources. For secrets, print only whether they are set."""
    from app.config.effective_settings import issuers_in_effect, settings_in_effect

    where = settings("config show")
    own, issuers = settings_in_effect(where), issuers_in_effect(where)
    if as_json:
        print_json({"settings": _as_json(own), "issuers": [_as_json(issuer) for issuer in issuers]})
        return
    for entry in own:
        typer.echo(_as_line(entry.name, entry))
    for number, issuer in enumerate(issuers):
        for entry in issuer:
            typer.echo(_as_line(f"issuers[{number}].{entry.name}", entry))


@commands.command()
def schema() -> None:
    """Print the JSON Schema of dialtone.toml, for editors."""
    from app.config.file import ConfigFile

    typer.echo(json.dumps(ConfigFile.model_json_schema(), indent=2, ensure_ascii=False))


def _as_json(entries: list["SettingInEffect"]) -> dict[str, dict[str, Any]]:
    return {entry.name: {"value": entry.value, "source": entry.source} for entry in entries}


def _as_line(name: str, entry: "SettingInEffect") -> str:
    return f"{name}={_as_text(entry.value)}  # {entry.source}"


def _as_text(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "(none)"
    match value:
        case bool() | dict():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return " ".join(map(str, value))
        case _:
            return " ".join(str(value).splitlines())
