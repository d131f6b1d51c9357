"""dialtone.toml: accepted content, and one-line errors that name the place."""

import json
import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.config.file import ConfigFile
from app.config.settings import Settings, SettingsError
from app.vending.models import LoginMethod, Platform, RtcOptions
from app.vending.policy import DeviceLimitAction, PolicyMode
from tests.support.configuration import ISSUER, load_file
from tests.support.environment import MINIMAL_ENVIRONMENT
from tests.support.tokens import pem

ROOT = Path(__file__).parent.parent.parent
EXAMPLE, SCHEMA = ROOT / "dialtone.example.toml", ROOT / "dialtone.schema.json"
SECRET = "CANARY" * 8


def test_example_file_is_accepted_and_means_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_file(monkeypatch, tmp_path, EXAMPLE.read_text(), VOICE_BACKEND_SECRET=SECRET)

    identity = settings.identity()
    rules = {rule.name: rule for rule in identity.policy.rules}
    desk = rules["support-desk"].allowance

    assert [table.name for table, _ in identity.issuers] == ["staff", "customers", "backend", "partners"]
    assert [keys is not None for _, keys in identity.issuers] == [False, False, True, False]
    assert desk is not None
    assert desk.ttl[Platform.BROWSER] == timedelta(hours=8)
    assert desk.ttl[Platform.IOS] == timedelta(days=30)
    assert desk.login_methods == frozenset(LoginMethod)
    assert (desk.max_devices, desk.at_device_limit) == (3, DeviceLimitAction.EVICT_OLDEST)
    assert rules["suspended"].allowance is None
    assert rules["contractors"].mode is PolicyMode.SHADOW
    assert rules["operators"].issuers == frozenset({"https://id.example.com", "https://voice.internal.example.com"})
    assert identity.policy.required_scopes["https://customers.example.com/"] == frozenset({"phone"})
    assert SECRET not in repr(identity)


def test_committed_schema_matches_the_code_and_the_example() -> None:
    schema = json.loads(SCHEMA.read_text())

    assert schema == ConfigFile.model_json_schema(), "run `make schema`, and read the difference"
    jsonschema.validate(tomllib.loads(EXAMPLE.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"issuers": [{"issuer": "x"}]}, schema)


@pytest.mark.parametrize(
    ("source", "algorithms"),
    [
        (f'pem = """{pem()}"""', {"RS256", "ES256"}),
        ('secret_env = "MY_SECRET"', {"HS256"}),
        ('secret_env = "MY_SECRET"\nalgorithms = ["HS512", "HS384"]', {"HS512", "HS384"}),
        ('jwks_url = "https://id.example.com/keys"\nalgorithms = ["EdDSA", "PS256"]', {"EdDSA", "PS256"}),
    ],
    ids=["pem", "secret", "secret with algorithms", "key set"],
)
def test_issuer_has_exactly_one_key_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, algorithms: set[str]
) -> None:
    settings = load_file(monkeypatch, tmp_path, ISSUER + source, MY_SECRET=SECRET)

    assert settings.identity().issuers[0][0].effective_algorithms == algorithms


def test_secret_can_be_set_in_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dialtone.toml").write_text(ISSUER + 'secret_env = "MY_SECRET"')
    lines = {k: v for k, v in MINIMAL_ENVIRONMENT.items() if k.startswith("TELNYX")} | {"MY_SECRET": SECRET}
    lines["DIALTONE_CONFIG"] = "dialtone.toml"
    (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in lines.items()))
    monkeypatch.chdir(tmp_path)

    assert Settings.load().identity().issuers[0][1]
    assert "MY_SECRET" not in os.environ


RULE = ISSUER + '[[policy.rules]]\nname = "one"\n'

WRONG: list[tuple[str, str]] = [
    ("", "issuers: is required"),
    ("issuers = []", "issuers: "),
    ("[[issuers]", "at line 1"),
    ('[[issuers]]\naudiences = ["a"]', "issuers[0].issuer: is required"),
    ('[[issuers]]\nissuer = "https://a.example.com"', "issuers[0].audiences: is required"),
    ('[[issuers]]\nissuer = "https://a.example.com"\naudiences = []', "issuers[0].audiences: "),
    (
        '[[issuers]]\nissuer = "accounts"\naudiences = ["a"]',
        "issuers[0].issuer: is not an https URL, so keys cannot be discovered",
    ),
    ('[[issuers]]\nissuer = "http://id.example.com"\naudiences = ["a"]', "issuers[0].issuer: is not an https URL"),
    (ISSUER + ISSUER.replace("staff", "more"), "two issuers have the same issuer"),
    (ISSUER + ISSUER.replace("https://id", "https://other"), "two issuers have the same name"),
    (ISSUER + 'algorithms = ["none"]', "issuers[0].algorithms: must be among"),
    (ISSUER + 'algorithms = ["RS256", "HS256"]', "issuers[0].algorithms: must be among"),
    (ISSUER + 'secret_env = "MY_SECRET"\nalgorithms = ["RS256"]', "issuers[0].algorithms: must be among HS256"),
    (ISSUER + 'secret_env = "MY_SECRET"\njwks_url = "https://a.example.com"', "exclude each other"),
    (ISSUER + 'secret_env = "NOT_SET"', "issuers[0].secret_env: NOT_SET is not set"),
    (ISSUER + 'secret_env = "SHORT"', "issuers[0].secret_env: a shared secret must have 32 bytes"),
    (ISSUER + 'secret = "CANARY"', "issuers[0].secret: unknown setting"),
    (ISSUER + 'jwks_url = "http://id.example.com/CANARY"', "issuers[0].jwks_url: must be an https URL"),
    (ISSUER + 'jwks_url = "https://u:CANARY@id.example.com"', "issuers[0].jwks_url: must be an https URL"),
    (ISSUER + 'pem = "CANARY"', "issuers[0].pem: not a PEM"),
    (ISSUER + 'pem_file = "/nonexistent"', "issuers[0].pem_file: names a file that cannot be read"),
    (ISSUER + "leeway_seconds = 301", "issuers[0].leeway_seconds: "),
    (ISSUER + "leeway_seconds = true", "issuers[0].leeway_seconds: must be an integer"),
    (ISSUER + "max_token_age_seconds = true", "issuers[0].max_token_age_seconds: must be an integer"),
    (ISSUER + 'max_token_bytes = "4096"', "issuers[0].max_token_bytes: must be an integer"),
    (ISSUER + "leeway_second = 3", "issuers[0].leeway_second: unknown setting; did you mean leeway_seconds?"),
    (ISSUER.replace("[[issuers]]", "[[issuer]]"), "issuer: unknown setting; did you mean issuers?"),
    (ISSUER.replace("[[issuers]]", "[issuers]"), "issuers: must be a list of tables; write [[issuers]] with two pairs"),
    (RULE.replace("[[policy.rules]]", "[policy.rules]"), "policy.rules: must be a list of tables; write [[policy"),
    (ISSUER + 'required_claims.sub = { globb = "a" }', "issuers[0].required_claims: a claim must be a string"),
    (ISSUER + "[policy]\nmode = 'off'", "policy.mode: "),
    (RULE + 'effect = "maybe"', "policy.rules[0].effect: "),
    (RULE + "max_devices = true", "policy.rules[0].max_devices: must be an integer"),
    (RULE + 'connection_id = "١٢٣"', "policy.rules[0].connection_id: must be the number of a connection"),
    (RULE + 'rtc.caller_id_number = "+٣٢٢٤٨٥٠١١١"', "policy.rules[0].rtc.caller_id_number: must be a number in E.164"),
    (RULE + 'issuers = ["unknown"]', "policy.rules[0].issuers: 'unknown' is not the name of a configured issuer"),
    (RULE + "issuers = []", "policy.rules[0].issuers: "),
    (RULE + "claims.department = 1.5", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.department = { like = 'x' }", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.department = { one_of = [] }", "policy.rules[0].claims.department: one_of must be a list of at"),
    (RULE + "claims.department = { one_of = [1.5] }", "policy.rules[0].claims.department: one_of must be a list of at"),
    (RULE + "claims.department = { glob = '' }", "policy.rules[0].claims.department: glob must be a string of 1 to"),
    (RULE + "claims.since = 2026-01-01", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.roles = { has_key = 1 }", "policy.rules[0].claims.roles: has_key must be a string of 1 to"),
    (RULE + "claims.roles = { has_key = 'a', glob = 'a' }", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.roles = { not = { not = 'a' } }", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.roles = { not = { one_of = [] } }", "policy.rules[0].claims.roles"),
    (RULE + "claims.roles = { not = 1.5 }", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.roles = { not = 'a', glob = 'a' }", "policy.rules[0].claims: a claim must be a string"),
    (RULE + "claims.'/a~2b' = 'x'", "policy.rules[0].claims: '/a~2b' is not a JSON Pointer"),
    (RULE + 'connection_id = "CANARY"', "policy.rules[0].connection_id: "),
    (RULE + "ttl_seconds = { browser = 5 }", "policy.rules[0].ttl_seconds.browser: "),
    (RULE + "ttl_seconds = { desk = 500 }", "policy.rules[0].ttl_seconds.desk: unknown setting"),
    (RULE + 'grants = ["everything"]', "policy.rules[0].grants"),
    (RULE + "max_devices = 0", "policy.rules[0].max_devices: "),
    (RULE + 'at_device_limit = "evict"', "policy.rules[0].at_device_limit: "),
    (RULE + 'effect = "deny"\nmax_devices = 3', "policy.rules[0].max_devices: has no effect in a rule that denies"),
    (RULE + '[[policy.rules]]\nname = "one"', "policy.rules: two rules have the same name"),
    (RULE + "admin_requires_scope = false", "admin_requires_scope: has no effect without admin = true"),
    (RULE + "admin = true\nadmin_requires_scope = false", "admin_requires_scope: would make every user an operator"),
    (
        RULE + 'effect = "deny"\nadmin_requires_scope = false',
        "admin_requires_scope: has no effect in a rule that denies",
    ),
    ("a = " + "[" * 5000, "has too many nested lists or tables"),
    ("a = " + "{a = " * 5000, "has too many nested lists or tables"),
    ("a = " + "9" * 5000, "has a number that is too long"),
    (ISSUER + '"a\\nb\\u001b[31m" = 1', r"issuers[0].a\nb\x1b[31m: unknown setting"),
    (RULE + "admins = true", "policy.rules[0].admins: unknown setting"),
    (RULE + 'admin = "yes"', "policy.rules[0].admin: must be true, false, or { issuers = [...] }"),
    (RULE + "admin = 1", "policy.rules[0].admin: must be true, false, or { issuers = [...] }"),
    (RULE + "admin = {}", "policy.rules[0].admin.issuers: must be a list of issuers"),
    (RULE + "admin = { issuers = [] }", "policy.rules[0].admin.issuers: must be a list of issuers"),
    (RULE + 'admin = { issuers = "staff" }', "policy.rules[0].admin.issuers: must be a list of issuers"),
    (RULE + "admin = { issuers = [1] }", "policy.rules[0].admin.issuers: must be a list of issuers"),
    (RULE + 'admin = { issuers = [""] }', "policy.rules[0].admin"),
    (RULE + 'admin = { issuer = ["staff"] }', "policy.rules[0].admin.issuer: unknown setting; did you mean issuers?"),
    (RULE + 'admin = { issuers = ["other"] }', "policy.rules[0].admin.issuers: 'other' is not a configured issuer"),
    (RULE + 'effect = "deny"\nadmin = { issuers = ["staff"] }', "policy.rules[0].admin: has no effect in a rule that"),
    (
        ISSUER + '[policy]\nmode = "shadow"\n[[policy.rules]]\nname = "one"\nadmin = { issuers = ["staff"] }',
        "policy.mode: shadow would not limit operators to their issuers",
    ),
    (RULE + "max_lease_age_seconds = 3599", "policy.rules[0].max_lease_age_seconds: "),
    (RULE + "max_lease_age_seconds = 999999999999", "policy.rules[0].max_lease_age_seconds: "),
    (RULE + "max_lease_age_seconds = true", "policy.rules[0].max_lease_age_seconds: "),
    (RULE + 'effect = "deny"\nmax_lease_age_seconds = 86400', "max_lease_age_seconds: has no effect in a rule that"),
    (RULE + 'rtc = "eu"', "policy.rules[0].rtc: must be a table"),
    (RULE + 'rtc = { region = "mars" }', "policy.rules[0].rtc.region: "),
    (RULE + 'rtc = { host = "wss://a.example.com" }', "policy.rules[0].rtc.host: unknown setting"),
    (RULE + 'rtc = { caller_id_number = "112" }', "policy.rules[0].rtc.caller_id_number: "),
    (RULE + 'rtc = { caller_id_number = "+32 2 485 01 11" }', "policy.rules[0].rtc.caller_id_number: "),
    (RULE + "rtc = { caller_id_number = 3224850111 }", "policy.rules[0].rtc.caller_id_number: "),
    (RULE + 'rtc = { caller_id_number = "+3224850111\\n" }', "policy.rules[0].rtc.caller_id_number: "),
    (RULE + 'rtc = { caller_id_name = "" }', "policy.rules[0].rtc.caller_id_name: "),
    (RULE + 'rtc = { caller_id_name = "a\\r\\nb" }', "policy.rules[0].rtc.caller_id_name: must be printable"),
    (RULE + 'rtc = { caller_id_name = " a" }', "policy.rules[0].rtc.caller_id_name: must be printable"),
    (RULE + "rtc.client_options = { debug = 1 }", "policy.rules[0].rtc.client_options.debug: "),
    (RULE + "rtc.client_options = { trickle_ice = true }", "policy.rules[0].rtc.client_options.trickle_ice: unknown"),
    (RULE + 'rtc.client_options = { login = "x" }', "policy.rules[0].rtc.client_options.login: unknown setting"),
    (RULE + 'effect = "deny"\nrtc = { region = "eu" }', "policy.rules[0].rtc: has no effect in a rule that denies"),
]


TENANTS = """
[[issuers]]
name = "tenants"
issuer = "https://login.example.com/{tid}/v2.0"
tenants = %s
jwks_url = "https://login.example.com/keys"
audiences = ["a"]
"""
TENANT = "https://login.example.com/%s/v2.0"


@pytest.mark.parametrize(
    ("tenants", "names", "visible"),
    [
        ('["a", "b"]', ["tenants"], {TENANT % "{tid}", TENANT % "a", TENANT % "b"}),
        ('["a", "b"]', [TENANT % "a"], {TENANT % "a"}),
        ('"any"', [TENANT % "c", "staff"], {TENANT % "c", "https://id.example.com"}),
    ],
    ids=["whole template", "one tenant", "tenant of any"],
)
def test_operators_of_issuers_see_exactly_these(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tenants: str, names: list[str], visible: set[str]
) -> None:
    rule = RULE + f"admin = {{ issuers = {json.dumps(names)} }}\n" + TENANTS % tenants

    (found,) = load_file(monkeypatch, tmp_path, rule).identity().policy.rules

    assert found.allowance is not None
    assert found.allowance.admin
    assert found.allowance.visibility.issuers == frozenset(visible)


@pytest.mark.parametrize(
    ("tenants", "name", "line"),
    [
        ('"any"', "tenants", "policy.rules[0].admin.issuers: 'tenants' accepts every tenant"),
        ('["a"]', TENANT % "b", "is not a configured issuer or the issuer of a tenant"),
        ('"any"', TENANT % "a/b", "is not a configured issuer or the issuer of a tenant"),
    ],
)
def test_operators_cannot_be_bound_to_unknown_companies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tenants: str, name: str, line: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(line)):
        load_file(monkeypatch, tmp_path, RULE + f'admin = {{ issuers = ["{name}"] }}\n' + TENANTS % tenants).identity()


def test_rule_sets_options_of_the_sdk_and_the_age_of_leases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rule = RULE + (
        "max_lease_age_seconds = 86400\n"
        'rtc = { region = "eu", caller_id_name = "Zoë, desk", caller_id_number = "+3224850111", '
        "client_options = { trickleIce = true, forceRelayCandidate = false } }\n"
    )

    (found,) = load_file(monkeypatch, tmp_path, rule).identity().policy.rules

    assert found.allowance is not None
    assert found.allowance.max_lease_age == timedelta(days=1)
    assert found.allowance.rtc == RtcOptions(
        "eu", "Zoë, desk", "+3224850111", {"trickleIce": True, "forceRelayCandidate": False}
    )


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line[:60] + str(n) for n, (_, line) in enumerate(WRONG)])
def test_error_is_one_line_and_names_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_file(monkeypatch, tmp_path, text, MY_SECRET=SECRET, SHORT="CANARY")

    said = str(refusal.value)
    assert said.startswith("dialtone.toml")
    assert line in said
    assert "\n" not in said
    assert "CANARY" not in said
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
        (lambda path: path.write_text("#" * 1_100_000), "is larger than 1 MB"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
    ids=["missing", "not UTF-8", "too large", "a folder"],
)
def test_missing_or_unreadable_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: Any, line: str
) -> None:
    make(tmp_path / "other.toml")

    with pytest.raises(SettingsError) as refusal:
        load_file(monkeypatch, tmp_path, ISSUER, DIALTONE_CONFIG=str(tmp_path / "other.toml"))

    assert line in str(refusal.value)


def test_issuers_are_set_in_the_file_or_the_environment_but_not_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="DIALTONE_AUDIENCE and DIALTONE_CONFIG are both set"):
        load_file(monkeypatch, tmp_path, ISSUER, DIALTONE_AUDIENCE="dialtone")
