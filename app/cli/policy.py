"""`dialtone policy`: explain policy decisions, and check the policy."""

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from app.adapters.identity.verifier import TokenVerifier
from app.cli import config
from app.cli.output import end, settings
from app.composition.issuers import open_verifier
from app.config.file import IssuerTable
from app.config.settings import Settings
from app.observability import logging as logs
from app.vending.errors import AccessDenied, DialtoneError, InsufficientScope, TokenRejected
from app.vending.models import Platform, Principal
from app.vending.policy import ActivePolicy, Allowance, Policy, PolicyMode, RuleEvaluation, explain

commands = typer.Typer(no_args_is_help=True, help="Explain policy decisions and check the policy.")
commands.command("check")(config.check)

_OF_ANOTHER_HEADER = ("wrong_header", "wrong_signer", "unknown_issuer", "not_base64url")
"""Reasons for which a token may belong to another header."""


_EXPLAINED = "docs/runbook.md explains the reason"


@commands.command("test")
def why(
    subject: Annotated[
        str,
        typer.Argument(metavar="TOKEN|CLAIMS", help="An access token, its claims as JSON, or - for standard input."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Explain rule by rule whether the policy allows a user. Exits 0 if allowed, 1 if denied. Never prints the token.

    A token is verified as the service does, except for not-before. Claims are not verified, but if the service rejects
    tokens with these claims, the reason is reported. Pass a token on standard input, because other users of this
    machine can read the command line.
    """
    text = (sys.stdin.read() if subject == "-" else subject).strip()
    logs.silence()
    where = settings()
    is_token = not text.startswith("{")
    principal, fault = (_verified(where, text), None) if is_token else _claimed(where, text)
    policy = where.identity().policy
    answer = _answer(policy, principal)
    findings = explain(policy, principal)
    if as_json:
        found = _as_json(principal, policy, findings, answer, is_token=is_token)
        typer.echo(json.dumps(found | {"claims_rejected": fault}, indent=2))
    else:
        typer.echo("\n".join(_as_text(principal, policy, findings, answer, is_token=is_token)))
        if fault is not None:
            typer.echo(f"A token with exactly these claims is rejected ({fault}); {_EXPLAINED}.")
    if isinstance(answer, str):
        raise typer.Exit(1)


def _verified(where: Settings, unverified_token: str) -> Principal:
    async def verify() -> Principal:
        async with open_verifier(where) as verifier:
            return await _verify_in_its_header(verifier, unverified_token)

    try:
        return asyncio.run(verify())
    except TokenRejected as refusal:
        end(f"Denied: the token is rejected ({refusal.reason}). No rule was evaluated; {_EXPLAINED}.")
    except DialtoneError as error:
        end(f"Denied: {error}")


async def _verify_in_its_header(verifier: TokenVerifier, unverified_token: str) -> Principal:
    """Verify it as in the request header of its issuer, because a command gets the token alone."""
    refusals = []
    for header in (None, *sorted(verifier.token_headers)):
        try:
            return await verifier.verify(unverified_token, None if header is None else header.decode("ascii"))
        except TokenRejected as refusal:
            refusals.append(refusal)
    raise next((refusal for refusal in refusals if refusal.reason not in _OF_ANOTHER_HEADER), refusals[0])


def _claimed(where: Settings, text: str) -> tuple[Principal, str | None]:
    """The principal with these claims, which are not verified, and why the service rejects them if it does."""
    try:
        claims = json.loads(text)
    except ValueError:
        end("The argument is neither a token nor a JSON object of claims.", 2)
    if not isinstance(claims, dict):
        end("The argument is neither a token nor a JSON object of claims.", 2)

    async def claimed() -> tuple[Principal, str | None]:
        async with open_verifier(where) as verifier:
            return verifier.claimed_principal(claims), verifier.claimed_fault(claims)

    try:
        return asyncio.run(claimed())
    except TokenRejected as refusal:
        tables = [table for table, _ in where.identity().issuers]
        match refusal.reason:
            case "unknown_issuer":
                names = sorted(_shown_issuer(table) for table in tables)
                end(f"Denied: `iss` must be a configured issuer: {', '.join(names)}.")
            case "bad_subject":
                named = " or ".join(sorted({repr(table.subject_claim) for table in tables}))
                end(f"Denied: the claim {named}, which names the user, is missing or has another type.")
            case reason:
                end(f"Denied: the claims are rejected ({reason}). No rule was evaluated; {_EXPLAINED}.")


def _shown_issuer(table: IssuerTable) -> str:
    """The issuer as the configuration names it; for a template, with its tenants."""
    if isinstance(table.tenants, frozenset):
        return f"{table.issuer} with one of the tenants {', '.join(sorted(table.tenants))}"
    return table.issuer


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


def _as_text(
    principal: Principal, policy: Policy, findings: list[RuleEvaluation], answer: Allowance | str, *, is_token: bool
) -> list[str]:
    lines = [f"{principal.subject} of {principal.issuer}" + ("" if is_token else " (claims were not verified)")]
    if not policy.rules:
        lines.append("There is no policy: all users of a configured issuer are allowed.")
    elif policy.mode is PolicyMode.SHADOW:
        lines.append("The policy is in shadow mode: its decisions are only logged.")
    for number, finding in enumerate(findings, 1):
        what = "allows" if finding.rule.allowance is not None else "denies"
        shadow = " [shadow]" if finding.rule.mode is PolicyMode.SHADOW else ""
        decides = ", and decides" if finding.decides else ""
        verdict = f"no match: {finding.why_not}" if finding.why_not else f"matches{decides}"
        lines.append(f"{number:3}. {finding.rule.name} ({what}){shadow}: {verdict}")
    if isinstance(answer, str):
        return [*lines, f"Denied: {answer}."]
    return [*lines, "Allowed:", *(f"  {name:<16} {value}" for name, value in _allowed(answer, principal).items())]


def _as_json(
    principal: Principal, policy: Policy, findings: list[RuleEvaluation], answer: Allowance | str, *, is_token: bool
) -> dict[str, Any]:
    return {
        "issuer": principal.issuer,
        "subject": principal.subject,
        "verified": is_token,
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
            for finding in findings
        ],
        "allowed": not isinstance(answer, str),
        "why_not": answer if isinstance(answer, str) else None,
        "allowance": None if isinstance(answer, str) else _allowed(answer, principal),
    }


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
