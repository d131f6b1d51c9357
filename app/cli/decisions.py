"""Policy decisions about a token or about claims, as text and as JSON."""

from datetime import timedelta
from typing import Any

from app.adapters.identity.diagnosis.token_report import CheckState, TokenReport
from app.cli.explanations import Values, check_lines
from app.cli.output import end, printable
from app.composition.explainer import open_explainer
from app.config.settings import Settings
from app.vending import strict_json
from app.vending.errors import AccessDenied, InsufficientScope
from app.vending.models import Platform, Principal, RtcOptions
from app.vending.policy import GRANTS_SCOPE, ActivePolicy, Allowance, Policy, PolicyMode, explain


async def explained(where: Settings, text: str) -> tuple[bool, TokenReport]:
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


def report_as_text(report: TokenReport, policy: Policy, values: Values, *, is_token: bool) -> list[str]:
    principal = report.principal
    lines = []
    if principal is not None:
        unverified = "" if report.is_verified else f" ({'the token was' if is_token else 'claims were'} not verified)"
        lines.append(printable(f"{principal.subject} of {principal.issuer}{unverified}"))
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
    allowed = _allowed(answer, principal)
    width = max(map(len, allowed))
    return [*lines, "Allowed:", *(f"  {name:<{width}} {value}" for name, value in allowed.items())]


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


def no_decision(policy: Policy) -> dict[str, Any]:
    """As `decision_json`, for claims that name no user."""
    why = "there is no user"
    return {"enforced": policy.is_enforced, "rules": [], "allowed": False, "why_not": why, "allowance": None}


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
        "grants": ", ".join(sorted(allowance.login_methods)) or "none",
        "devices": f"{allowance.max_devices}, then {at_limit}",
        "push credentials": "yes" if may_push else "no" + (f" (lacks {' '.join(sorted(lacking))})" if lacking else ""),
        "outbound": allowance.outbound.value,
        "operator": _operator(allowance, principal),
        "vouches for": _vouches_for(allowance, principal),
        "SDK options": _rtc(allowance.rtc),
        "credentials are replaced": "never" if (age := allowance.max_lease_age) is None else _after(age),
    }


def _operator(allowance: Allowance, principal: Principal) -> str:
    if not allowance.is_operator(principal.scopes):
        return "no"
    issuers = allowance.visibility.issuers
    return "yes" if issuers is None else f"of {', '.join(sorted(issuers))}"


def _vouches_for(allowance: Allowance, principal: Principal) -> str:
    kinds = ", ".join(sorted(allowance.vouches_for))
    if not kinds or GRANTS_SCOPE in principal.scopes:
        return kinds or "none"
    return f"none (lacks {GRANTS_SCOPE})"


def _rtc(rtc: RtcOptions) -> str:
    given = {"region": rtc.region, "caller name": rtc.caller_id_name, "caller number": rtc.caller_id_number}
    words = [f"{name} {value}" for name, value in given.items() if value is not None]
    words += [f"{name} {str(value).lower()}" for name, value in rtc.client_options.items()]
    return ", ".join(words) or "none"


def _after(age: timedelta) -> str:
    return f"after {int(age.total_seconds())} s"
