"""`dialtone token explain`: the explanation of accepted and rejected tokens."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.adapters.identity.grant_keys import GrantSigningKey
from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.engines import database_url
from app.cli import app
from tests.support.configuration import set_command_environment
from tests.support.databases import sqlite_url
from tests.support.grants import grant_key
from tests.support.tokens import ISSUER, claims_of, token
from tests.support.verification import SECRET, raw_token
from tests.support.wrong_tokens import CONFIGS, WRONG_TOKENS, WrongToken

KEYS = {"pem": 'pem_file = "key.pem"', "secret": 'secret_env = "APP_SECRET"'}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command with an issuer of CONFIGS, the rest of a dialtone.toml, and a text on standard input."""
    set_command_environment(monkeypatch, tmp_path, APP_SECRET=SECRET)

    def run(
        *arguments: str, typed: str | bytes = "", config: str = "plain", key: str = "pem", more: str = ""
    ) -> Result:
        key_line = KEYS.get(key) or f'jwks_url = "{key}"'
        (tmp_path / "dialtone.toml").write_text(f"[[issuers]]\n{CONFIGS[config]}\n{key_line}\n{more}")
        return CliRunner().invoke(app, ["token", "explain", *arguments], input=typed)

    return run


@pytest.mark.parametrize("wrong", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
def test_explanation_names_the_claim_and_the_setting(terminal: Any, wrong: WrongToken) -> None:
    said = terminal(typed=wrong.text(), config=wrong.config, key=wrong.key)

    assert said.exit_code == 1, said.output
    assert [name for name in wrong.names if name not in said.output] == [], said.output


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("wrong", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
def test_explanation_contains_no_part_of_the_token(terminal: Any, wrong: WrongToken, form: list[str]) -> None:
    text = wrong.text()

    said = terminal(*form, typed=text, config=wrong.config, key=wrong.key)

    secret = [part for part in text.replace('"', ".").replace(" ", ".").split(".") if len(part) > 20]
    assert not any(part in said.output for part in [*secret, "CANARY"]), said.output


def test_there_are_more_than_fifty_wrong_tokens() -> None:
    assert len(WRONG_TOKENS) > 50


def test_valid_token_is_accepted_and_every_check_is_listed(terminal: Any) -> None:
    said = terminal(typed=f"Bearer {token()}\n\n")

    assert said.exit_code == 0, said.output
    assert "Dialtone accepts the token." in said.output
    assert "FAIL" not in said.output
    for check in ("form", "issuer", "algorithm", "signature", "expiry", "audience", "subject", "scopes", "not-before"):
        assert f"  {check}: " in said.output
    assert "Not checked: rate limits" in said.output


def test_explanation_in_json_has_every_check_with_both_names_of_its_settings(terminal: Any) -> None:
    said = json.loads(terminal("--json", typed=token(aud="other")).output)

    audience = next(check for check in said["checks"] if check["name"] == "audience")
    assert (said["accepted"], said["reason"], said["verified"], said["issuer"]) == (
        False,
        "wrong_audience",
        True,
        ISSUER,
    )
    assert (audience["state"], audience["found"], audience["expected"]) == ("failed", 'aud "other"', "dialtone")
    assert {"file": "audiences", "environment": "DIALTONE_AUDIENCE"} in audience["settings"]


def test_token_is_read_from_a_file(terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token())

    assert terminal(str(tmp_path / "token")).exit_code == 0


@pytest.mark.parametrize("typed", ["", " \n", "Bearer ", "\ufeff"], ids=["empty", "blank", "Bearer", "BOM"])
def test_empty_input_is_a_usage_error(terminal: Any, typed: str) -> None:
    said = terminal(typed=typed)

    assert said.exit_code == 2
    assert said.output == "There is no token: the input is empty.\n"


def test_token_as_an_argument_is_not_repeated(terminal: Any) -> None:
    text = token()

    said = terminal(text)

    assert said.exit_code == 2
    assert text.split(".")[1] not in said.output
    assert "never as an argument" in said.output


def test_bytes_that_are_no_text_are_explained(terminal: Any) -> None:
    assert terminal(typed=b"\xff\xfe\x00ey").exit_code == 1


@pytest.mark.parametrize(
    "value", ["\x1b[31mred", "a\x7fb", "\u202egnitirw", "x" * 5000], ids=["escape", "DEL", "bidi", "long"]
)
@pytest.mark.parametrize("claim", ["iss", "aud", "exp"])
def test_values_of_claims_cannot_change_the_terminal(terminal: Any, claim: str, value: str) -> None:
    said = terminal(typed=token("alice", header=None, key=None, **{claim: value}))

    lines = said.output.splitlines()
    assert said.exit_code == 1
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert max(map(len, lines)) < 500


DEEP = f"[{'[' * 900}{']' * 900}]"
"""Parsers of JSON accept it, and a function that calls itself for each level does not."""


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ('{"alg": "RS256"}', f'{{"iss": "{ISSUER}", "aud": {DEEP}}}'),
        ('{"alg": "RS256"}', f'{{"iss": {DEEP}}}'),
        ('{"alg": "RS256"}', f'{{"iss": "{ISSUER}", "aud": "dialtone", "scope": {DEEP}}}'),
        (f'{{"alg": {DEEP}}}', f'{{"iss": "{ISSUER}"}}'),
        (f'{{"alg": "RS256", "kid": {DEEP}}}', f'{{"iss": "{ISSUER}"}}'),
    ],
    ids=["aud", "iss", "scope", "alg", "kid"],
)
def test_nested_values_are_explained_on_one_line(terminal: Any, header: str, payload: str) -> None:
    said = terminal(typed=raw_token(header, payload))

    assert said.exit_code == 1, said.exception
    assert "Dialtone rejects the token: too_deep" in said.output


def test_lists_in_lists_are_counted(terminal: Any) -> None:
    said = terminal(typed=token(aud=[["a"] * 1000, {"b": 1}]))

    assert "audience: aud [a list of 1000 items, an object with 1 member]" in said.output


@pytest.mark.parametrize("text", ["<" + "ey" * 100_000, "ey" * 100_000 + " a", "<" + "eyJhbGciOi." * 50_000])
def test_long_text_is_explained_in_seconds(terminal: Any, text: str) -> None:
    begin = time.process_time()

    said = terminal(typed=text)

    assert said.exit_code == 1
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("command", [["token", "explain"], ["policy", "test", "-"]], ids=" ".join)
@pytest.mark.parametrize(
    ("standard_input", "status", "line"),
    [
        ("<&-", 2, "the input is empty."),
        ("< binary", 1, "this is a text of several words, not a token"),
    ],
    ids=["closed", "binary"],
)
def test_input_that_is_no_text_causes_no_traceback(
    terminal: Any, tmp_path: Path, command: list[str], standard_input: str, status: int, line: str
) -> None:
    terminal()  # writes dialtone.toml
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00 ey\x80")
    root = Path(__file__).parents[2]

    said = subprocess.run(
        ["sh", "-c", f'"$0" -m app.cli {" ".join(command)} {standard_input}', sys.executable],
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == status, said.stderr
    assert line in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_policy_is_evaluated_even_if_the_token_is_rejected(terminal: Any) -> None:
    rules = '[[policy.rules]]\nname = "desk"\nclaims.department = "support"'

    said = terminal(typed=token(exp=1), more=rules)

    assert "Policy:" in said.output
    assert "Denied: no rule matches." in said.output


def test_denial_by_policy_exits_with_1(terminal: Any) -> None:
    rules = '[[policy.rules]]\nname = "desk"\nclaims.department = "support"'

    said = terminal(typed=token(), more=rules)

    assert said.exit_code == 1
    assert "Dialtone accepts the token." in said.output
    assert "Denied: no rule matches." in said.output


def test_not_before_entries_are_checked_if_there_is_a_ledger(
    terminal: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without = terminal(typed=token())
    asyncio.run(migrating.migrate(database_url(sqlite_url(tmp_path))))
    before = terminal(typed=token())
    text = token(iat=claims_of()["iat"] - 60)
    CliRunner().invoke(app, ["tokens", "refuse", ISSUER, "--user", "alice"])
    after = terminal(typed=text)

    assert "--    not-before: the ledger does not exist here" in without.output
    assert "ok    not-before: no entry rejects the token" in before.output
    assert after.exit_code == 1
    assert "Dialtone rejects the token: not_before" in after.output


def test_grant_of_another_key_is_explained_without_settings_of_an_issuer(
    terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIALTONE_GRANT_KEY", grant_key())
    claims = claims_of(iss="dialtone:users", aud="dialtone:dialtone")
    rules = '[[policy.rules]]\nname = "session-users"\nissuers = ["dialtone:users"]'

    said = terminal(typed=GrantSigningKey(grant_key("second")).sign(claims), more=rules).output

    assert "Dialtone rejects the token: unknown_key." in said
    assert "Another key than DIALTONE_GRANT_KEY and DIALTONE_OTHER_GRANT_KEY signed the grant" in said
    assert "setting " not in said
    assert "Not checked: the device and the origin of the grant, rate limits" in said


def test_explanation_creates_no_ledger(terminal: Any, tmp_path: Path) -> None:
    terminal(typed=token())

    assert not list(tmp_path.glob("*.db*"))


def test_token_of_another_request_header_is_verified(terminal: Any) -> None:
    said = terminal(typed=token(), more='header = "X-Token"')

    assert said.exit_code == 0
    assert "in the request header x-token only" in said.output
