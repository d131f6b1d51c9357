"""Rejected tokens: each reason has a requirement for the log and an entry in the runbook, without text of the token."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.identity import expectations
from app.adapters.identity.claims import Issuer
from app.adapters.identity.diagnosis.explain import KEYS_UNAVAILABLE
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_pem
from app.vending.errors import LogoutTokenRejected, TokenRejected
from app.vending.strict_json import JsonFault
from tests.support.tokens import AUDIENCE, ISSUER, logout_token, pem, token
from tests.support.verification import ALGORITHMS, JSON_OBJECTS, raw_token, verifier

ROOT = Path(__file__).parents[3]
CHECKED = verifier()
PLAIN = Issuer(ISSUER, frozenset({AUDIENCE}), frozenset({"RS256"}), StaticKeySource(from_pem(pem(), ALGORITHMS)))
UNEXPECTED = "unexpected"
"""An error in Dialtone, for which no requirement can be named."""

RAISING = {"TokenRejected", "LogoutTokenRejected"}
HELPERS = {"numeric_date", "_name"}
"""Functions of `claims.py` whose arguments contain a reason code."""


def reasons_in_code() -> set[str]:
    """Every literal reason code in the source."""
    found = set(JsonFault) | {"id_token", "event_token"}
    for path in (ROOT / "app").rglob("*.py"):
        raising = RAISING | HELPERS if path.name == "claims.py" else RAISING
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in raising:
                found |= {
                    argument.value
                    for argument in ast.walk(ast.Tuple([*node.args]))
                    if isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                    and re.fullmatch("[a-z0-9_]{5,}|bad_\\w+", argument.value)
                }
    return found


REASONS = reasons_in_code()


def expected() -> set[str]:
    return (
        set(expectations.of_all([PLAIN], 8192))
        | set(expectations.of_issuer(PLAIN))
        | set(expectations.of_logout_tokens(PLAIN))
    )


def test_reasons_are_found_in_the_source() -> None:
    assert {"expired", "bad_exp", "wrong_audience", "not_json", "used_before"} <= REASONS


def test_each_reason_has_a_requirement() -> None:
    assert REASONS - {UNEXPECTED} == expected() - {KEYS_UNAVAILABLE}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_runbook_explains_each_reason(reason: str) -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    table = page.partition("### Reasons of rejected tokens")[2]

    assert f"`{reason}`" in table


def test_runbook_explains_no_other_reason() -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    table = page.partition("### Reasons of rejected tokens")[2]
    cells = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)

    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == REASONS


@pytest.mark.parametrize(
    ("changes", "details"),
    [
        (
            {"aud": "other"},
            {"checked": "aud", "expected": AUDIENCE, "settings": "audiences, audience_claims", "issuer": ISSUER},
        ),
        ({"iss": "https://other.example.com"}, {"checked": "iss", "expected": ISSUER, "settings": "issuer"}),
        (
            {"exp": 1},
            {
                "checked": "exp",
                "expected": "not earlier than 30 s before now",
                "settings": "leeway_seconds",
                "issuer": ISSUER,
            },
        ),
        (
            {"header": {"typ": "logout+jwt"}},
            {
                "checked": "header typ",
                "expected": "no typ, or at+jwt or jwt",
                "settings": "token_types",
                "issuer": ISSUER,
            },
        ),
    ],
    ids=["audience", "issuer", "expiry", "type"],
)
async def test_rejection_names_what_the_configuration_requires(
    changes: dict[str, Any], details: dict[str, str]
) -> None:
    with pytest.raises(TokenRejected) as refusal:
        await CHECKED.verify(token(**changes))

    assert dict(refusal.value.expected) == details


async def test_rejection_of_a_logout_token_names_the_logout_audiences() -> None:
    with pytest.raises(LogoutTokenRejected) as refusal:
        await verifier(logout_audiences=frozenset({"client"})).verify_logout(logout_token(aud="other"))

    assert refusal.value.expected["expected"] == "client"
    assert refusal.value.expected["settings"] == "logout_audiences, audiences"


@given(JSON_OBJECTS, st.text("abcdefghijklmnop", min_size=12, max_size=20))
async def test_rejection_contains_no_text_of_the_token(claims: Any, canary: str) -> None:
    planted = dict.fromkeys(claims, canary) | {canary: canary}
    for text in (
        raw_token({"alg": "RS256", canary: 1}, planted),
        raw_token({"alg": canary}, {"iss": ISSUER} | planted),
    ):
        with pytest.raises(TokenRejected) as refusal:
            await CHECKED.verify(text)

        assert canary not in str(dict(refusal.value.expected))


def test_long_lists_are_shortened() -> None:
    many = Issuer(ISSUER, frozenset(f"audience-{n:03}" for n in range(500)), PLAIN.algorithms, PLAIN.keys)

    details = expectations.of_issuer(many)["wrong_audience"].as_details(ISSUER)

    assert "or one of 495 more" in details["expected"]
    assert sum(map(len, details.values())) < 400
