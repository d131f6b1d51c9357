"""`dialtone policy` and `dialtone config`: why somebody may or may not, and whether the file is right."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from app.cli.output import AsJson, end, print_json, settings
from app.composition.issuers import open_verifier
from app.config.file import ConfigFile, IssuerTable
from app.config.settings import Settings, variable_of
from app.observability import logging as logs
from app.vending.errors import AccessDenied, DialtoneError, InsufficientScope, TokenRejected
from app.vending.models import Principal
from app.vending.policy import ADMIN_SCOPE, ActivePolicy, Allowance, Policy, PolicyMode, RuleEvaluation, explain

commands = typer.Typer(no_args_is_help=True, help="Who may have what, and why.")
config = typer.Typer(no_args_is_help=True, help="Settings, and the configuration file dialtone.toml.")


@commands.command("test")
def why(
    subject: Annotated[
        str, typer.Argument(metavar="TOKEN|CLAIMS", help="An access token, its claims as JSON, or - to read either.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Say rule by rule why the answer is yes or no. Status 0: yes, 1: no. The token is never printed.

    A token is verified as the service would verify it, marks in the ledger aside; claims are taken as they are. Give a
    token on standard input rather than on the command line, where others on the machine can read it.
    """
    text = (sys.stdin.read() if subject == "-" else subject).strip()
    logs.silence()
    where = settings()
    is_token = not text.startswith("{")
    principal = _verified(where, text) if is_token else _claimed(where, text)
    policy = where.identity().policy
    answer = _answer(policy, principal)
    findings = explain(policy, principal)
    if as_json:
        typer.echo(json.dumps(_as_json(principal, policy, findings, answer, is_token=is_token), indent=2))
    else:
        typer.echo("\n".join(_as_text(principal, policy, findings, answer, is_token=is_token)))
    if isinstance(answer, str):
        raise typer.Exit(1)


@commands.command("check")
@config.command("check")
def check(
    path: Annotated[str | None, typer.Argument(help="Another file than the one in force.")] = None,
) -> None:
    """Say whether the configuration would be accepted, or in one line what is wrong with it."""
    if path is not None:
        os.environ["DIALTONE_CONFIG"] = path
    resolved = settings().identity()
    rules = len(resolved.policy.rules)
    is_open = "every user of them is let in" if not resolved.policy.is_enforced else "whom no rule fits gets nothing"
    typer.echo(f"Good: {len(resolved.issuers)} issuer(s), {rules} rule(s); {is_open}.")


@config.command("show")
def show(as_json: AsJson = False) -> None:
    """Print every setting in force; of secrets, only whether they are set."""
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


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of dialtone.toml, for editors."""
    typer.echo(json.dumps(ConfigFile.model_json_schema(), indent=2, ensure_ascii=False))


def _verified(where: Settings, unverified_token: str) -> Principal:
    async def verify() -> Principal:
        async with open_verifier(where) as verifier:
            return await verifier.verify(unverified_token)

    try:
        return asyncio.run(verify())
    except TokenRejected as refusal:
        end(f"No: the token itself is refused ({refusal.reason}). No rule was looked at.")
    except DialtoneError as error:
        end(f"No: {error}")


def _claimed(where: Settings, text: str) -> Principal:
    """Who somebody with these claims would be. Nothing proves them."""
    try:
        claims = json.loads(text)
    except ValueError:
        end("That is neither a token nor a JSON object of claims.", 2)
    tables = {table.issuer: table for table, _ in where.identity().issuers}
    table = tables.get(str(claims.get("iss"))) if isinstance(claims, dict) else None
    if table is None:
        end(f"No: `iss` must be a configured issuer: {', '.join(sorted(tables))}.")
    subject = claims.get(table.subject_claim)
    if not isinstance(subject, str):
        end(f"No: the claim {table.subject_claim!r}, which names the user, is missing.")
    scopes = _scopes(claims, table)
    never = datetime.max.replace(tzinfo=UTC)
    return Principal(table.issuer, subject, never, scopes, claims=MappingProxyType(claims))


def _scopes(claims: dict[str, Any], table: IssuerTable) -> frozenset[str]:
    given = claims.get(table.scope_claim, "")
    if isinstance(given, str):
        return frozenset(given.split())
    return frozenset(given) if table.scope_list and isinstance(given, list) else frozenset()


def _answer(policy: Policy, principal: Principal) -> Allowance | str:
    """What the user gets, or why nothing: by the very code that decides in the service."""
    try:
        return ActivePolicy(policy, lambda *_: None).authorize(principal)
    except InsufficientScope as refusal:
        return f"the token needs the scope {' '.join(sorted(refusal.needed))}"
    except AccessDenied:
        return "a rule denies it" if any(finding.decides for finding in explain(policy, principal)) else "no rule fits"


def _as_text(
    principal: Principal, policy: Policy, findings: list[RuleEvaluation], answer: Allowance | str, *, is_token: bool
) -> list[str]:
    lines = [
        f"{principal.subject} of {principal.issuer}"
        + ("" if is_token else " (claims taken on trust: no signature was checked)")
    ]
    if not policy.rules:
        lines.append("No policy is written: every user of a configured issuer gets the same.")
    elif policy.mode is PolicyMode.SHADOW:
        lines.append("The policy is under audit: its rules are logged, and decide nothing.")
    for number, finding in enumerate(findings, 1):
        what = "allows" if finding.rule.allowance is not None else "denies"
        audit = " [audit]" if finding.rule.mode is PolicyMode.SHADOW else ""
        verdict = f"no: {finding.why_not}" if finding.why_not else "fits" + (", and decides" if finding.decides else "")
        lines.append(f"{number:3}. {finding.rule.name} ({what}){audit}: {verdict}")
    if isinstance(answer, str):
        return [*lines, f"No: {answer}."]
    return [*lines, "Yes:", *(f"  {name:<16} {value}" for name, value in _allowed(answer, principal).items())]


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
    may_push = allowance.push and not lacking
    is_operator = allowance.admin and ADMIN_SCOPE in principal.scopes
    return {
        "connection": allowance.connection_id,
        "lifetimes": lifetimes,
        "grants": ", ".join(sorted(allowance.grants)) or "none",
        "devices": f"{allowance.max_devices}, then {allowance.at_device_limit}",
        "push credentials": "yes" if may_push else "no" + (f" (lacks {' '.join(sorted(lacking))})" if lacking else ""),
        "operator": "yes" if is_operator else "no",
    }
