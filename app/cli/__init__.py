"""The `dialtone` command, with one module per group of commands."""

from typing import Annotated

import typer

from app import __version__
from app.cli import audit, config, doctor, leases, operators, policy, push, sandbox, serve, token

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Dialtone exchanges a signed-in user's access token for a short-lived Telnyx WebRTC login.",
)
app.add_typer(serve.commands)
app.add_typer(sandbox.commands, name="sandbox")
app.add_typer(token.commands, name="token")
app.add_typer(policy.commands, name="policy")
app.add_typer(config.commands, name="config")
app.add_typer(push.commands, name="push")
app.add_typer(leases.commands, name="leases")
app.add_typer(operators.keys, name="keys")
app.add_typer(operators.tokens, name="tokens")
app.add_typer(audit.commands, name="audit")
app.command("sweep")(operators.sweep)
app.command("warm-pool")(operators.warm_pool)
app.command("doctor")(doctor.doctor)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"dialtone {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `dialtone` itself."""


def main() -> None:
    """The entry point of the installed command."""
    app()
