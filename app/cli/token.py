"""`dialtone token`: explains why the service accepts or rejects an access token."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.in_process import settings
from app.cli.inputs import read_token
from app.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from app.adapters.identity.diagnosis.token_report import TokenReport
    from app.config.settings import Settings

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
    from app.cli.decisions import decision_json, decision_lines, is_allowed
    from app.cli.explanations import NEVER_CHECKED, checks_json, report_lines, values_of, verdict
    from app.observability import logging as logs

    where = settings("token explain")
    text = read_token(source)
    logs.silence()
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


async def explained(where: "Settings", text: str) -> "TokenReport":
    from app.composition.explainer import open_explainer

    async with open_explainer(where) as explainer:
        return await explainer.explain(text)
