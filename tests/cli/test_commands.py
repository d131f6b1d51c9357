"""The `dialtone` command: policy, configuration, not-before, key and push commands."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.engines import database_url
from app.cli import app
from app.vending.errors import TokenRejected
from tests.support.configuration import set_command_environment
from tests.support.databases import sqlite_url
from tests.support.push_material import BUNDLE_ID, key, pem_of, same_ios, secrets_in, service_account
from tests.support.sandbox import Telnyx
from tests.support.service import running_components
from tests.support.tokens import ISSUER, claims_of, principal, token
from tests.support.waiting import eventually

RULES = """
[[policy.rules]]
name = "suspended"
effect = "deny"
claims.status = "suspended"

[[policy.rules]]
name = "desk"
scopes = ["phone"]
claims.department = { one_of = ["support"] }
push_scopes = ["push:register"]
max_devices = 3

[[policy.rules]]
name = "trial"
mode = "shadow"
"""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    (tmp_path / "dialtone.toml").write_text(
        f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["dialtone"]\npem_file = "{tmp_path}/key.pem"\n{RULES}'
    )
    set_command_environment(monkeypatch, tmp_path)

    def run(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, arguments, input=typed)

    return run


@pytest.mark.parametrize(
    ("scope", "vouches_for"), [("phone dialtone:grants", "guest, user"), ("phone", "none (lacks dialtone:grants)")]
)
def test_policy_test_shows_which_grants_a_backend_may_mint(
    terminal: Any, tmp_path: Path, scope: str, vouches_for: str
) -> None:
    file = tmp_path / "dialtone.toml"
    file.write_text(file.read_text().replace("max_devices = 3", 'max_devices = 3\nvouches_for = ["user", "guest"]'))

    said = terminal("policy", "test", token("shop", department="support", scope=scope)).output

    assert re.search(rf"^  vouches for +{re.escape(vouches_for)}$", said, re.MULTILINE)


def test_policy_test_explains_a_permission_rule_by_rule(terminal: Any) -> None:
    text = token("alice", department="support")

    said = terminal("policy", "test", text)

    assert said.exit_code == 0, said.output
    assert f"alice of {ISSUER}" in said.output
    assert "1. suspended (denies): no match: there is no claim 'status'" in said.output
    assert "2. desk (allows): matches, and decides" in said.output
    assert "3. trial (allows) [shadow]: matches" in said.output
    assert "3, then browser evict_oldest, ios reject, android reject" in said.output
    assert "no (lacks push:register)" in said.output


def test_policy_test_verifies_a_token_of_another_header(terminal: Any) -> None:
    path = Path("dialtone.toml")
    path.write_text(path.read_text().replace("[[policy.rules]]", 'header = "X-Token"\n\n[[policy.rules]]', 1))

    accepted = terminal("policy", "test", "-", typed=token("alice", department="support"))
    expired = terminal("policy", "test", "-", typed=token("alice", exp=1))

    assert f"alice of {ISSUER}" in accepted.output
    assert "the service rejects the token (expired)" in expired.output


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"department": "sales"}, "Denied: no rule matches."),
        ({"department": "support", "status": "suspended"}, "Denied: a rule denies it."),
        ({"department": "support", "scope": "mail"}, "Denied: the token lacks the scope phone."),
    ],
    ids=str,
)
def test_policy_test_explains_a_denial_and_exits_with_1(terminal: Any, claims: dict[str, Any], why: str) -> None:
    said = terminal("policy", "test", "-", typed=token(**claims))

    assert said.exit_code == 1
    assert why in said.output


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("claims", [{"department": "support"}, {"department": "CANARY"}, {"exp": 1}], ids=str)
def test_policy_test_does_not_print_the_token_or_its_claims(
    terminal: Any, form: list[str], claims: dict[str, Any]
) -> None:
    text = token(email="CANARY@example.com", **claims)

    said = terminal("policy", "test", *form, text)

    assert not any(part in said.output for part in (*text.split("."), "CANARY"))


def test_policy_test_accepts_claims_and_reports_that_they_are_unverified(terminal: Any) -> None:
    claims = json.dumps({"iss": ISSUER, "sub": "alice", "scope": "phone", "department": "support"})

    said = terminal("policy", "test", claims)
    as_json = json.loads(terminal("policy", "test", "--json", claims).output)

    assert said.exit_code == 0
    assert "claims were not verified" in said.output
    assert as_json["allowed"] is True
    assert as_json["verified"] is False
    assert [rule["name"] for rule in as_json["rules"] if rule["decides"]] == ["desk"]


@pytest.mark.parametrize(
    ("claims", "status", "line"),
    [
        ({"tid": "one", "scp": ["phone"]}, 0, "7 of https://login.example.com/one/v2.0 (claims were not verified)"),
        ({"tid": "two", "scp": ["phone"]}, 1, "Denied: the service rejects a token with these claims (wrong_tenant)"),
        ({"tid": "one", "scp": 1}, 1, "Denied: the service rejects a token with these claims (bad_scope)"),
        ({"tid": "one", "user": {"id": "7"}}, 1, "FAIL  subject: /user/id: text of 1 character"),
    ],
    ids=str,
)
def test_policy_test_reads_claims_as_the_issuers_settings_say(
    terminal: Any, tmp_path: Path, claims: dict[str, Any], status: int, line: str
) -> None:
    (tmp_path / "dialtone.toml").write_text(f"""
[[issuers]]
issuer = "https://login.example.com/{{tid}}/v2.0"
tenants = "any"
audiences = ["dialtone"]
pem_file = "{tmp_path}/key.pem"
subject_claim = "/user/id"
subject_type = "integer"
scope_claim = "scp"
required_scopes = ["phone"]
""")
    given = {"iss": "https://login.example.com/one/v2.0", "user": {"id": 7}} | claims

    said = terminal("policy", "test", json.dumps(given))

    assert said.exit_code == status
    assert line in said.output


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, None),
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": ...}, "no_audience"),
        ({"nonce": "n"}, "id_token"),
        ({"exp": 1}, "expired"),
        ({"sub": 7}, "bad_subject"),
        ({"scope": 7}, "bad_scope"),
        ({"iss": "https://other.example.com"}, "unknown_issuer"),
        ({"iss": ...}, "unknown_issuer"),
    ],
    ids=str,
)
def test_policy_test_denies_claims_that_the_service_rejects(
    terminal: Any, claims: dict[str, Any], reason: str | None
) -> None:
    given = json.dumps(claims_of(department="support", **claims))

    said = terminal("policy", "test", given)
    as_json = json.loads(terminal("policy", "test", "--json", given).output)

    assert said.exit_code == (0 if reason is None else 1)
    assert ("the service rejects a token with these claims" in said.output) == (reason is not None)
    assert ("Allowed:" in said.output) == (reason is None)
    assert reason is None or f"({reason})" in said.output
    assert (as_json["claims_rejected"], as_json["allowed"]) == (reason, reason is None)


def test_policy_test_names_its_assumptions(terminal: Any) -> None:
    said = terminal("policy", "test", '{"sub": "alice", "scope": "phone", "department": "support"}')

    assert said.exit_code == 0, said.output
    assert f"note  issuer: no iss: {ISSUER} is assumed" in said.output
    assert "note  expiry: no exp: the token is assumed not to have expired" in said.output
    assert "note  audience: no aud: the token is assumed to have an accepted audience" in said.output


@pytest.mark.parametrize("claims", [{"aud": "other"}, {"nonce": "n"}, {"nbf": 4_000_000_000}], ids=str)
def test_policy_test_denies_invalid_claims_without_exp(terminal: Any, claims: dict[str, Any]) -> None:
    said = terminal("policy", "test", json.dumps({"sub": "alice", "scope": "phone", "department": "support"} | claims))

    assert said.exit_code == 1
    assert "Allowed:" not in said.output


def test_policy_test_names_the_tenants_that_a_template_accepts(terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "dialtone.toml").write_text(f"""
[[issuers]]
issuer = "https://login.example.com/{{tid}}/v2.0"
tenants = ["one", "two"]
audiences = ["dialtone"]
pem_file = "{tmp_path}/key.pem"
""")

    said = terminal("policy", "test", '{"iss": "https://login.example.com/ONE/v2.0", "tid": "ONE", "sub": "7"}')

    assert (
        'the tenant "ONE" is not in tenants of https://login.example.com/{tid}/v2.0, which are one or two'
        in said.output
    )


@pytest.mark.parametrize(
    ("given", "status", "line"),
    [
        ("alice", 2, """For a user, pass claims such as '{"sub": "alice"}'."""),
        ("token.txt", 2, "For a file with a token, use standard input: dialtone policy test - < FILE."),
        ("/run/user.v1/token.txt", 2, "For a file with a token, use standard input"),
        (token(exp=1), 1, "Denied: the service rejects the token (expired)"),
        ("{", 2, "neither a token nor a JSON object of claims (not_json)"),
        ('{"sub": 1, "sub": 2}', 2, "neither a token nor a JSON object of claims (member_twice)"),
        ("", 2, "the input is empty"),
        ('{"iss": "https://other.example.com"}', 1, f"expected  {ISSUER}"),
        (json.dumps({"iss": ISSUER}), 1, "no claim sub names the user"),
    ],
    ids=["user", "file", "path", "expired", "half json", "twice", "empty", "other issuer", "no subject"],
)
def test_policy_test_explains_invalid_input(terminal: Any, given: str, status: int, line: str) -> None:
    said = terminal("policy", "test", given)

    assert said.exit_code == status
    assert line in said.output


def test_policy_test_explains_an_opaque_token(terminal: Any) -> None:
    said = terminal("policy", "test", "-", typed="nonsense")

    assert said.exit_code == 1
    assert "this is an opaque token of 8 characters" in said.output


def test_configuration_file_can_be_checked_before_use(terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text('[[issuers]]\nissuer = "x"')

    valid = "Valid: 1 issuer, 3 rules, 0 endpoints for events; users without a matching rule are denied."
    assert valid in terminal("config", "check").output
    bad = terminal("config", "check", "new.toml")
    assert bad.exit_code == 1
    assert bad.output == "Configuration: new.toml: issuers[0].audiences: is required\n"


def test_config_schema_is_printed(terminal: Any) -> None:
    assert "issuers" in json.loads(terminal("config", "schema").output)["properties"]


async def test_not_before_command_affects_running_replicas(telnyx: Telnyx, terminal: Any, tmp_path: Path) -> None:
    own: dict[str, Any] = {"config": "dialtone.toml", "issuer": ..., "audience": ..., "issuer_pem": ...}
    async with running_components(telnyx, sqlite_url(tmp_path), **own) as components:
        text = token("alice")
        assert (await components.identity.verifier.verify(text)).user_key == principal("alice").user_key

        said = await asyncio.to_thread(terminal, "tokens", "refuse", ISSUER, "--user", "alice")

        assert said.exit_code == 0, said.output
        assert "Tokens of user alice" in said.output
        await eventually(lambda: len(components.identity.not_before), 30)
        with pytest.raises(TokenRejected):
            await components.identity.verifier.verify(text)


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["tokens", "refuse", "https://other.example.com"], 1, "No issuer of that name is configured."),
        (["tokens", "refuse", ISSUER, "--user", "a", "--session", "b"], 2, "--user and --session exclude each other."),
        (["tokens", "refuse", ISSUER, "--before", "2999-01-01"], 1, "The not-before cannot be in the future"),
        (["tokens", "refuse", ISSUER, "--before", "9999-12-31T23:59:59"], 1, "The not-before cannot be in the future"),
        (["keys", "refresh", "https://other.example.com"], 1, "No issuer of that name is configured."),
    ],
    ids=str,
)
def test_invalid_arguments_are_reported_in_one_line(
    terminal: Any, sqlite: str, arguments: list[str], status: int, line: str
) -> None:
    said = terminal(*arguments)

    assert said.exit_code == status
    assert line in said.output
    assert said.output.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "tail", "--since", "0001-01-01"],
        ["audit", "tail", "--since", "9999-12-31 23:59:59"],
        ["audit", "tail", "--since", "0001-01-01T14:00:00+14:00"],
        ["tokens", "refuse", ISSUER, "--before", "0001-01-01"],
    ],
    ids=" ".join,
)
async def test_time_at_the_edge_of_the_calendar_is_accepted(terminal: Any, sqlite: str, arguments: list[str]) -> None:
    await migrating.migrate(database_url(sqlite))

    said = await asyncio.to_thread(terminal, *arguments)

    assert said.exit_code == 0, said.output


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0000-01-01", "10000-01-01", "1700000000", "20261123"],
)
def test_time_that_cannot_be_represented_is_a_usage_error(terminal: Any, moment: str) -> None:
    assert terminal("audit", "tail", "--since", moment).exit_code == 2
    assert terminal("tokens", "refuse", ISSUER, "--before", moment).exit_code == 2


async def test_keys_refresh_accepts_one_issuer_or_all(terminal: Any, sqlite: str) -> None:
    unmigrated = await asyncio.to_thread(terminal, "keys", "refresh")
    await migrating.migrate(database_url(sqlite))
    said = await asyncio.to_thread(terminal, "keys", "refresh")

    assert unmigrated.exit_code == 1
    assert "ledger" in unmigrated.output
    assert said.output == f"{ISSUER}: fetched\n"


# -- push lint ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`dialtone push lint` on files of the given content, with no settings at all."""
    monkeypatch.chdir(tmp_path)

    def run(*contents: str | bytes, options: tuple[str, ...] = ()) -> Result:
        names = []
        for number, content in enumerate(contents):
            path = tmp_path / f"file-{number}"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            names.append(str(path))
        return CliRunner().invoke(app, ["push", "lint", *options, *names])

    return run


def test_push_lint_accepts_files_in_any_order(lint: Any) -> None:
    wanted = same_ios()
    for files in ((wanted["certificate"], wanted["private_key"]), (wanted["private_key"], wanted["certificate"])):
        said = lint(*files)

        assert said.exit_code == 0, said.output
        assert f"Valid: ios push credential of {BUNDLE_ID}" in said.output
        assert "in 364 days" in said.output
    assert lint(wanted["certificate"] + wanted["private_key"]).exit_code == 0
    assert "Valid: android push credential" in lint(json.dumps(service_account())).output


def test_push_lint_reports_faults_and_exits_with_1(lint: Any) -> None:
    wanted = same_ios()

    unreadable = lint("nonsense", wanted["private_key"])
    as_json = lint(wanted["certificate"], pem_of(key("other")), options=("--json",))

    assert unreadable.exit_code == 1
    assert unreadable.output.startswith("certificate_unreadable (certificate): This is not a PEM certificate.")
    assert as_json.exit_code == 1
    assert json.loads(as_json.output)["faults"][0]["code"] == "key_mismatch"


def test_push_lint_exits_with_2_for_unreadable_files(lint: Any) -> None:
    assert lint("a", "b", "c").exit_code == 2
    assert lint("{").exit_code == 2
    assert CliRunner().invoke(app, ["push", "lint", "/nonexistent"]).exit_code == 2


def test_push_lint_does_not_print_the_key(lint: Any) -> None:
    wanted = same_ios()
    for options in ((), ("--json",)):
        for files in ((wanted["certificate"], wanted["private_key"]), (wanted["private_key"],) * 2):
            assert not any(secret in lint(*files, options=options).output for secret in secrets_in(wanted))
