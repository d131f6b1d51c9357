"""The `dialtone` command. What each part of it does is in a file of that name here."""

import typer

from app.cli import leases, operating, policy, push, sandbox, serving

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hands a phone to a signed-in user: short-lived Telnyx credentials for WebRTC clients.",
)
app.add_typer(serving.commands)
app.add_typer(sandbox.commands, name="sandbox")
app.add_typer(policy.commands, name="policy")
app.add_typer(policy.config, name="config")
app.add_typer(push.commands, name="push")
app.add_typer(leases.commands, name="leases")
app.add_typer(operating.keys, name="keys")
app.add_typer(operating.tokens, name="tokens")
app.command("sweep")(operating.sweep)


def main() -> None:
    """The entry point of the installed command."""
    app()
