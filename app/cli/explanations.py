"""Texts and JSON of a token report, for `dialtone token explain` and `dialtone policy test`."""

from collections.abc import Mapping
from typing import Any

from app.adapters.identity.diagnosis.explain import KEYS_UNAVAILABLE
from app.adapters.identity.diagnosis.token_report import CheckState, TokenCheck, TokenReport
from app.config.providers import values_behind
from app.config.settings import ISSUER_VARIABLES, Settings
from app.vending.grants.models import GRANT_ISSUERS

_SIGNS = {
    CheckState.PASSED: "ok  ",
    CheckState.FAILED: "FAIL",
    CheckState.ASSUMED: "note",
    CheckState.NOT_CHECKED: "--  ",
}

NEVER_CHECKED = "rate limits, and limits of proxies in front of Dialtone"
NEVER_CHECKED_OF_GRANTS = "the device and the origin of the grant, "


def verdict(report: TokenReport) -> str:
    """Whether Dialtone accepts the token, in one or two sentences."""
    match report.refusal:
        case None:
            return "Dialtone accepts the token."
        case reason if reason == KEYS_UNAVAILABLE:
            return "Dialtone cannot verify the token, because the issuer's keys are unavailable. Callers get 503."
        case reason:
            return f"Dialtone rejects the token: {reason}. Callers get 401 invalid_token."


Values = Mapping[str, tuple[str, ...]]
"""The values that replace a setting in the configuration of a preset, by setting."""


def values_of(settings: Settings, report: TokenReport) -> Values:
    """The values of the preset of the issuer whose settings were applied. For grants, no setting decides."""
    if report.issuer in GRANT_ISSUERS:
        return dict.fromkeys(ISSUER_VARIABLES, ())
    tables = (table for table, _ in settings.identity().issuers if table.issuer == report.issuer)
    return next((values_behind(table) for table in tables), {})


def check_lines(check: TokenCheck, values: Values) -> list[str]:
    """One line, and for a failed check the requirement, the settings and a hint."""
    first = f"{_SIGNS[check.state]}  {check.name}" + (f": {check.found}" if check.found else "")
    if check.state is not CheckState.FAILED:
        return [first]
    lines = [first, f"        reason    {check.reason}"]
    if check.expected:
        lines.append(f"        expected  {check.expected}")
    lines += [f"        setting   {name} ({ISSUER_VARIABLES[name]})" for name in _deciding(check, values)]
    if check.hint:
        lines.append(f"        ->        {check.hint}")
    return lines


def _deciding(check: TokenCheck, values: Values) -> list[str]:
    return [name for setting in check.settings for name in values.get(setting, (setting,))]


def report_lines(report: TokenReport, values: Values) -> list[str]:
    """Every check. A setting is named as in an issuer of dialtone.toml, with the variable in parentheses."""
    lines = [line for check in report.checks for line in check_lines(check, values)]
    of_grants = NEVER_CHECKED_OF_GRANTS if report.issuer in GRANT_ISSUERS else ""
    lines.append(f"Not checked: {of_grants}{NEVER_CHECKED}.")
    if report.issuer is not None:
        lines.insert(0, f"The settings of the issuer {report.issuer} apply.")
    if report.issuer is not None and not report.is_verified:
        lines.insert(0, "The signature was not verified, so the claims below prove nothing.")
    return lines


def checks_json(report: TokenReport, values: Values) -> list[dict[str, Any]]:
    """Every check, with the name of each setting in the file and in the environment."""
    return [
        {
            "name": check.name,
            "state": check.state.value,
            "found": check.found,
            "expected": check.expected,
            "settings": [{"file": name, "environment": ISSUER_VARIABLES[name]} for name in _deciding(check, values)],
            "reason": check.reason,
            "hint": check.hint,
        }
        for check in report.checks
    ]
