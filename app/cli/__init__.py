"""The `dialtone` command, with one module per group of commands.

The modules import what a command needs when it runs: FastAPI, SQLAlchemy and the settings take a second to import, and
`dialtone --help`, shell completion and commands of remote mode do not need them.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from app import __version__
from app.cli import (
    attachments,
    audit,
    config,
    doctor,
    events,
    grants,
    leases,
    operators,
    policy,
    push,
    push_renew,
    remote,
    sandbox,
    serve,
    token,
    users,
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing to a file or device."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help and errors are plain text, which can be piped
    help="Dialtone exchanges a signed-in user's access token for a short-lived Telnyx WebRTC login.",
)
app.add_typer(serve.commands)
app.add_typer(sandbox.commands, name="sandbox")
app.add_typer(token.commands, name="token")
app.add_typer(policy.commands, name="policy")
app.add_typer(config.commands, name="config")
app.add_typer(push.commands, name="push")
app.add_typer(leases.commands, name="leases")
app.add_typer(grants.commands, name="grants")
app.add_typer(operators.keys, name="keys")
app.add_typer(operators.tokens, name="tokens")
app.add_typer(audit.commands, name="audit")
app.add_typer(events.commands, name="events")
app.add_typer(users.commands, name="users")
app.command("sweep")(operators.sweep)
app.command("warm-pool")(operators.warm_pool)
app.command("doctor")(doctor.doctor)
push.commands.command("attach")(attachments.attach)
push.commands.command("renew")(push_renew.renew)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"dialtone {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    url: Annotated[
        str | None,
        typer.Option(envvar="DIALTONE_URL", help="Act on the service at this URL instead of the local ledger."),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            envvar="DIALTONE_TOKEN_FILE",
            metavar="FILE|-",
            help="The access token for --url: a file, or - for standard input.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `dialtone` itself."""
    remote.OPTIONS.set(remote.RemoteOptions(url, token_file))


def main() -> None:
    """The entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may have characters that the terminal cannot show
    try:
        app()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with suppress(OSError):
            typer.echo(f"The output cannot be written: {os.strerror(error.errno)}.", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes the rest of its buffer when it exits
        sys.exit(1)
