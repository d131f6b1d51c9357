"""All findings of `dialtone doctor`, read from its source: a problem has one fix, and a passed check has none."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from app.adapters.http_client import FailureReason
from app.adapters.identity.key_faults import fix_of
from app.cli.check_result import CheckVerdict

APP = Path(__file__).parents[2] / "app"
FIELDS = ("about", "verdict", "seen", "fix")
COMPUTED = "{...}"
"""A fix that another function returns. Its texts have a test of their own."""

ONE_REMEDY = re.compile(r"[a-z{`][^;]*[^.;](; (if|not needed) [^;]*[^.;])?")
"""An instruction, such as "set X to Y". After a semicolon, only the condition of an alternative may follow."""


class Finding(NamedTuple):
    place: str
    verdict: str
    fixes: frozenset[str]
    """The texts of the fix, one for each branch. Empty without a fix."""


def constructions(name: str, folder: Path) -> Iterator[tuple[str, ast.AST, ast.Call]]:
    """The place and the function of each call of a class below the folder."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name:
                        yield f"{path.name}:{call.lineno}", function, call


def texts_of(value: ast.expr | None, function: ast.AST) -> frozenset[str]:
    """The texts that an expression may have. Parts that depend on values are shortened to {}."""
    match value:
        case None | ast.Constant(value=None):
            return frozenset()
        case ast.Constant(value=str(text)):
            return frozenset({text})
        case ast.JoinedStr(values=parts):
            return frozenset({"".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)})
        case ast.IfExp(body=first, orelse=second):
            return texts_of(first, function) | texts_of(second, function)
        case ast.Name(id=name):
            found = [node.value for node in ast.walk(function) if name in _targets(node)]  # type: ignore[attr-defined]
            return frozenset[str]().union(*(texts_of(one, function) for one in found))
        case _:
            return frozenset({COMPUTED})


def _targets(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.NamedExpr) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def findings() -> list[Finding]:
    found = []
    for place, function, call in constructions("CheckResult", APP / "cli"):
        given = dict(zip(FIELDS, call.args, strict=False)) | {word.arg or "": word.value for word in call.keywords}
        verdict = given["verdict"]
        assert isinstance(verdict, ast.Attribute), place
        found.append(Finding(place, verdict.attr, texts_of(given.get("fix"), function)))
    return found


FINDINGS = findings()


def test_every_finding_is_read() -> None:
    sources = [path.read_text() for path in (APP / "cli").glob("*.py")]

    assert len(FINDINGS) == sum(len(re.findall(r"\bCheckResult\(", text)) for text in sources)
    assert {finding.verdict for finding in FINDINGS} == {verdict.name for verdict in CheckVerdict}


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.place)
def test_problem_has_one_fix_and_a_passed_check_has_none(finding: Finding) -> None:
    assert bool(finding.fixes) == (finding.verdict != CheckVerdict.OK.name)
    for fix in finding.fixes - {COMPUTED}:
        assert ONE_REMEDY.fullmatch(fix), fix


@pytest.mark.parametrize("reason", FailureReason, ids=lambda reason: reason.name)
@pytest.mark.parametrize("has_own_ca", [False, True])
def test_failed_request_has_one_fix(reason: FailureReason, has_own_ca: bool) -> None:
    assert fix_of(reason, has_own_ca=has_own_ca)
    assert fix_of(reason, has_own_ca=has_own_ca)[-1] not in ".;"


@pytest.mark.parametrize(
    ("place", "fixes"),
    [
        pytest.param(place, texts_of(call.args[2], function), id=place)
        for place, function, call in constructions("ConfigWarning", APP / "config")
    ],
)
def test_warning_about_the_configuration_has_one_fix(place: str, fixes: frozenset[str]) -> None:
    assert fixes
    for fix in fixes:
        assert fix != COMPUTED, place
        assert ONE_REMEDY.fullmatch(fix), fix
