"""`dialtone config`: check and print the configuration."""

import json
import os
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from app.cli.output import AsJson, print_json, settings
from app.config.file import ConfigFile
from app.config.settings import Settings, variable_of

commands = typer.Typer(no_args_is_help=True, help="Settings, and the configuration file dialtone.toml.")


@commands.command()
def check(
    path: Annotated[str | None, typer.Argument(help="The file to check. Default: DIALTONE_CONFIG.")] = None,
) -> None:
    """Check the configuration. Exits 1 with one line if it is invalid."""
    if path is not None:
        os.environ["DIALTONE_CONFIG"] = path
    resolved = settings().identity()
    rules = len(resolved.policy.rules)
    is_open = "all users are allowed" if not resolved.policy.is_enforced else "users without a matching rule are denied"
    typer.echo(f"Valid: {len(resolved.issuers)} issuer(s), {rules} rule(s); {is_open}.")


@commands.command()
def show(as_json: AsJson = False) -> None:
    """Print all effective settings. For secrets, print only whether they are set."""
    where = settings()
    values = {variable_of(name): _shown(getattr(where, name)) for name in Settings.model_fields}
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name}={'' if value is None else value}")


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else "(empty)"
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    return value


@commands.command()
def schema() -> None:
    """Print the JSON Schema of dialtone.toml, for editors."""
    typer.echo(json.dumps(ConfigFile.model_json_schema(), indent=2, ensure_ascii=False))
