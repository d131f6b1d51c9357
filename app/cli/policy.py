"""`dialtone policy`: explain policy decisions, and check the policy."""

import asyncio
import json
from typing import Annotated, Any

import typer

from app.adapters.identity.diagnosis.token_report import CheckState, TokenReport
from app.cli import config
from app.cli.explanations import Values, check_lines, checks_json, standard_input, values_of, without_bearer
from app.cli.output import end, settings
from app.composition.explainer import open_explainer
from app.config.settings import Settings
from app.observability import logging as logs
from app.vending import strict_json
from app.vending.errors import AccessDenied, InsufficientScope
from app.vending.models import Platform, Principal
from app.vending.policy import ActivePolicy, Allowance, Policy, PolicyMode, explain

commands = typer.Typer(no_args_is_help=True, help="Explain policy decisions and check the policy.")
commands.command("check")(config.check)


@commands.command("test")
def explain_decision(
    subject: Annotated[
        str,
        typer.Argument(metavar="TOKEN|CLAIMS", help="An access token, its claims as JSON, or - for standard input."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Explain rule by rule whether the policy allows a user. Exits 0 if allowed, 1 if denied. Never prints the token.

    Dialtone verifies a token as the service does. For claims, it checks everything except the signature. Claims with
    `exp` are the complete claims of a token. In claims without `exp`, issuer, audience and times are assumed to be
    valid if they are absent.
    Pass a token on standard input, because other users of this machine can read the command line.
    """
    text = without_bearer(standard_input() if subject == "-" else subject)
    if not text:
        end("There is neither a token nor claims: the input is empty.", 2)
    logs.silence()
    where = settings()
    is_token, report = asyncio.run(_explained(where, text))
    policy, principal = where.identity().policy, report.principal
    values = values_of(where, report)
    if as_json:
        found = {
            "issuer": principal and principal.issuer,
            "subject": principal and principal.subject,
            "verified": report.is_verified,
            **(_no_decision(policy) if principal is None else decision_json(policy, principal)),
            "claims_rejected": report.refusal,
            "checks": checks_json(report, values),
        }
        typer.echo(json.dumps(found | {"allowed": found["allowed"] and report.refusal is None}, indent=2))
    else:
        typer.echo("\n".join(_as_text(report, policy, values, is_token=is_token)))
    if report.refusal is not None or principal is None or not is_allowed(policy, principal):
        raise typer.Exit(1)


async def _explained(where: Settings, text: str) -> tuple[bool, TokenReport]:
    """Whether the text is a token, and the checks of the token or of the claims."""
    async with open_explainer(where) as explainer:
        if not text.startswith("{"):
            return True, await explainer.explain(text)
        try:
            claims = strict_json.parse(text.encode("utf-8", "replace"))
        except strict_json.InvalidJson as error:
            end(f"The argument is neither a token nor a JSON object of claims ({error.fault}).", 2)
        if isinstance(claims.get("access_token"), str):
            return True, await explainer.explain(text)
        return False, explainer.explain_claims(claims)


def _as_text(report: TokenReport, policy: Policy, values: Values, *, is_token: bool) -> list[str]:
    principal = report.principal
    lines = []
    if principal is not None:
        unverified = "" if report.is_verified else f" ({'the token was' if is_token else 'claims were'} not verified)"
        lines.append(_printable(f"{principal.subject} of {principal.issuer}{unverified}"))
    shown = (CheckState.FAILED, CheckState.ASSUMED)
    lines += [line for check in report.checks if check.state in shown for line in check_lines(check, values)]
    if principal is not None:
        lines += decision_lines(policy, principal, is_accepted=report.refusal is None)
    if report.refusal is not None:
        what = "the token" if is_token else "a token with these claims"
        more = " `dialtone token explain` has all checks." if is_token else ""
        lines.append(f"Denied: the service rejects {what} ({report.refusal}).{more}")
    return lines


def is_allowed(policy: Policy, principal: Principal) -> bool:
    return not isinstance(_answer(policy, principal), str)


def _answer(policy: Policy, principal: Principal) -> Allowance | str:
    """The user's allowance, or the reason for the denial, from the code that decides in the service."""
    try:
        return ActivePolicy(policy, lambda *_: None).authorize(principal)
    except InsufficientScope as refusal:
        return f"the token lacks the scope {' '.join(sorted(refusal.needed))}"
    except AccessDenied:
        return (
            "a rule denies it" if any(finding.decides for finding in explain(policy, principal)) else "no rule matches"
        )


def decision_lines(policy: Policy, principal: Principal, *, is_accepted: bool = True) -> list[str]:
    """The rules and the decision. `is_accepted`: whether the service accepts the user's token."""
    lines = []
    if not policy.rules:
        lines.append("There is no policy: all users of a configured issuer are allowed.")
    elif policy.mode is PolicyMode.SHADOW:
        lines.append("The policy is in shadow mode: its decisions are only logged.")
    for number, finding in enumerate(explain(policy, principal), 1):
        what = "allows" if finding.rule.allowance is not None else "denies"
        shadow = " [shadow]" if finding.rule.mode is PolicyMode.SHADOW else ""
        decides = ", and decides" if finding.decides else ""
        verdict = f"no match: {finding.why_not}" if finding.why_not else f"matches{decides}"
        lines.append(f"{number:3}. {finding.rule.name} ({what}){shadow}: {verdict}")
    answer = _answer(policy, principal)
    if isinstance(answer, str):
        return [*lines, f"Denied: {answer}."]
    if not is_accepted:
        return [*lines, "The policy allows the user, if the token is accepted."]
    return [*lines, "Allowed:", *(f"  {name:<16} {value}" for name, value in _allowed(answer, principal).items())]


def decision_json(policy: Policy, principal: Principal) -> dict[str, Any]:
    answer = _answer(policy, principal)
    return {
        "enforced": policy.is_enforced,
        "rules": [
            {
                "name": finding.rule.name,
                "effect": "deny" if finding.rule.allowance is None else "allow",
                "mode": finding.rule.mode,
                "fits": finding.why_not is None,
                "why_not": finding.why_not,
                "decides": finding.decides,
            }
            for finding in explain(policy, principal)
        ],
        "allowed": not isinstance(answer, str),
        "why_not": answer if isinstance(answer, str) else None,
        "allowance": None if isinstance(answer, str) else _allowed(answer, principal),
    }


def _no_decision(policy: Policy) -> dict[str, Any]:
    """As `decision_json`, for claims that name no user."""
    why = "there is no user"
    return {"enforced": policy.is_enforced, "rules": [], "allowed": False, "why_not": why, "allowance": None}


def _printable(text: str) -> str:
    """The text with control characters escaped: a user's name may contain any, and must not change the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _allowed(allowance: Allowance, principal: Principal) -> dict[str, str]:
    lifetimes = ", ".join(f"{platform} {int(ttl.total_seconds())} s" for platform, ttl in allowance.ttl.items())
    lacking = allowance.push_scopes - principal.scopes
    at_limit = allowance.at_device_limit or ", ".join(
        f"{platform} {allowance.action_at_limit(platform)}" for platform in Platform
    )
    may_push = allowance.push and not lacking
    return {
        "connection": allowance.connection_id,
        "lifetimes": lifetimes,
        "grants": ", ".join(sorted(allowance.grants)) or "none",
        "devices": f"{allowance.max_devices}, then {at_limit}",
        "push credentials": "yes" if may_push else "no" + (f" (lacks {' '.join(sorted(lacking))})" if lacking else ""),
        "operator": "yes" if allowance.is_operator(principal.scopes) else "no",
    }
