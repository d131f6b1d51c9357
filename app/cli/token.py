"""`dialtone token`: explains why the service accepts or rejects an access token."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.adapters.identity.diagnosis.token_report import TokenReport
from app.cli.explanations import (
    MAX_INPUT_BYTES,
    NEVER_CHECKED,
    checks_json,
    report_lines,
    standard_input,
    values_of,
    verdict,
    without_bearer,
)
from app.cli.output import AsJson, end, print_json, settings
from app.cli.policy import decision_json, decision_lines, is_allowed
from app.composition.explainer import open_explainer
from app.config.settings import Settings
from app.observability import logging as logs

commands = typer.Typer(no_args_is_help=True, help="Explain access tokens.")


@commands.command("explain")
def explain(
    source: Annotated[
        str, typer.Argument(metavar="FILE|-", help="The file with the token. Default: standard input.")
    ] = "-",
    as_json: AsJson = False,
) -> None:
    """Explain check by check why Dialtone accepts or rejects a token. Never prints the token.

    Exits 0 if Dialtone accepts the token and the policy allows the user, 1 if not, and 2 if there is no input.
    """
    text = read_token(source)
    logs.silence()
    where = settings()
    report = asyncio.run(explained(where, text))
    policy, principal = where.identity().policy, report.principal
    values = values_of(where, report)
    if as_json:
        print_json(
            {
                "accepted": report.refusal is None,
                "reason": report.refusal,
                "issuer": report.issuer,
                "verified": report.is_verified,
                "checks": checks_json(report, values),
                "never_checked": NEVER_CHECKED,
                "policy": None if principal is None else decision_json(policy, principal),
            }
        )
    else:
        lines = [verdict(report), *report_lines(report, values)]
        if principal is None:
            lines.append("Policy: no rule was evaluated, because the token names no user.")
        else:
            lines.append("Policy:")
            lines += decision_lines(policy, principal, is_accepted=report.refusal is None)
        typer.echo("\n".join(lines))
    if report.refusal is not None or principal is None or not is_allowed(policy, principal):
        raise typer.Exit(1)


async def explained(where: Settings, text: str) -> TokenReport:
    async with open_explainer(where) as explainer:
        return await explainer.explain(text)


def read_token(source: str) -> str:
    """The text from a file or standard input, without the word Bearer. Exits 2 if there is none."""
    text = without_bearer(_read(source))
    if not text:
        end("There is no token: the input is empty.", 2)
    return text


def _read(source: str) -> str:
    if source == "-":
        if sys.stdin is not None and sys.stdin.isatty():
            typer.echo("Paste the token, and press Enter and Ctrl-D.", err=True)
        return standard_input()
    try:
        with Path(source).open("rb") as file:
            return file.read(MAX_INPUT_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        # The argument is not repeated: it may be the token itself.
        end(
            f"The file cannot be read ({type(error).__name__}). Pass the token in a file or on standard input, and "
            "never as an argument: other users of this machine can read the command line.",
            2,
        )
