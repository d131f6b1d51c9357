"""`dialtone policy`: explain policy decisions, and check the policy."""

import asyncio
from typing import Annotated

import typer

from app.cli import config
from app.cli.in_process import settings
from app.cli.inputs import standard_input, without_bearer
from app.cli.output import AsJson, end, print_json

commands = typer.Typer(no_args_is_help=True, help="Explain policy decisions and check the policy.")
commands.command("check")(config.check)


@commands.command("test")
def explain_decision(
    subject: Annotated[
        str,
        typer.Argument(metavar="TOKEN|CLAIMS", help="An access token, its claims as JSON, or - for standard input."),
    ],
    as_json: AsJson = False,
) -> None:
    """Explain rule by rule whether the policy allows a user. Exits 0 if allowed, 1 if denied. Never prints the token.

    Dialtone verifies a token as the service does. For claims, it checks everything except the signature. Claims with
    `exp` are the complete claims of a token. In claims without `exp`, issuer, audience and times are assumed to be
    valid if they are absent.
    Pass a token on standard input, because other users of this machine can read the command line.
    """
    from app.cli.decisions import decision_json, explained, is_allowed, no_decision, report_as_text
    from app.cli.explanations import checks_json, values_of
    from app.observability import logging as logs

    where = settings("policy test")
    text = without_bearer(standard_input() if subject == "-" else subject)
    if not text:
        end("There is neither a token nor claims: the input is empty.", 2)
    if subject != "-" and not text.startswith("{") and ("/" in text or text.count(".") < 2):
        end(
            "The argument is neither a token (a JWT) nor a JSON object of claims. For a user, pass claims such as "
            """'{"sub": "alice"}'. For a file with a token, use standard input: dialtone policy test - < FILE.""",
            2,
        )
    logs.silence()
    is_token, report = asyncio.run(explained(where, text))
    policy, principal = where.identity().policy, report.principal
    values = values_of(where, report)
    if as_json:
        found = {
            "issuer": principal and principal.issuer,
            "subject": principal and principal.subject,
            "verified": report.is_verified,
            **(no_decision(policy) if principal is None else decision_json(policy, principal)),
            "claims_rejected": report.refusal,
            "checks": checks_json(report, values),
        }
        print_json(found | {"allowed": found["allowed"] and report.refusal is None})
    else:
        typer.echo("\n".join(report_as_text(report, policy, values, is_token=is_token)))
    if report.refusal is not None or principal is None or not is_allowed(policy, principal):
        raise typer.Exit(1)
