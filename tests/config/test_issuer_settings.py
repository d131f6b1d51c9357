"""Settings of an issuer's tokens, in dialtone.toml and in the environment: defaults, values, and one-line errors."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from app.adapters.http_client import HttpClients
from app.adapters.identity.claims import ID_TOKEN_CLAIMS, Issuer, SubjectType
from app.adapters.identity.verifier import TokenVerifier
from app.composition.issuers import KeySetRegistry
from app.config.settings import Settings, SettingsError
from app.vending.claim_conditions import ClaimCondition
from app.vending.errors import TokenRejected
from tests.support.configuration import ISSUER, load_file, load_variables
from tests.support.environment import MINIMAL_ENVIRONMENT
from tests.support.tokens import claims_of
from tests.support.verification import now

TEMPLATE = ISSUER.replace("https://id.example.com", "https://login.example.com/{tid}/v2.0") + (
    'jwks_url = "https://login.example.com/keys"\n'
)
ONE = "11111111-0000-4000-8000-111111111111"
ALL = TEMPLATE.replace("staff", "all") + 'tenants = "any"\n'
NO_AUDIENCE = ISSUER.replace('audiences = ["dialtone"]\n', "")


def issuers(settings: Settings) -> list[Issuer]:
    key_sets = KeySetRegistry(HttpClients("dialtone/test"), time.monotonic)
    return key_sets.build_issuers(settings.identity())


def test_every_exception_is_off_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (issuer,) = issuers(load_file(monkeypatch, tmp_path, ISSUER))

    assert issuer == Issuer(issuer.issuer, issuer.audiences, issuer.algorithms, issuer.keys)


def test_defaults_of_the_environment_are_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    (issuer,) = issuers(load_variables(monkeypatch))

    assert issuer == Issuer(issuer.issuer, issuer.audiences, issuer.algorithms, issuer.keys)


SETTINGS: list[tuple[str, dict[str, str], str, Any]] = [
    (
        'audience_claims = ["client_id", "aud"]',
        {"DIALTONE_AUDIENCE_CLAIMS": "client_id, aud"},
        "audience_claims",
        ("client_id", "aud"),
    ),
    (
        'required_claims = { token_use = "access", "/a/b" = { has_key = "c" } }',
        {"DIALTONE_REQUIRED_CLAIMS": '{"token_use": "access", "/a/b": {"has_key": "c"}}'},
        "required_claims",
        (ClaimCondition("token_use", ("access",)), ClaimCondition("/a/b", has_key="c")),
    ),
    (
        'required_claims = { sub = { not = "app" }, act = { not = { glob = "*" } } }',
        {"DIALTONE_REQUIRED_CLAIMS": '{"sub": {"not": "app"}, "act": {"not": {"glob": "*"}}}'},
        "required_claims",
        (ClaimCondition("sub", ("app",), is_negated=True), ClaimCondition("act", glob="*", is_negated=True)),
    ),
    (
        'token_kind = "id"\nrequired_claims.hd = "example.com"',
        {"DIALTONE_TOKEN_KIND": "id", "DIALTONE_REQUIRED_CLAIMS": '{"hd": "example.com"}'},
        "allowed_foreign_claims",
        ID_TOKEN_CLAIMS,
    ),
    (
        'token_kind = "id"\nrequired_claims.hd = "example.com"',
        {"DIALTONE_TOKEN_KIND": "id", "DIALTONE_REQUIRED_CLAIMS": '{"hd": "example.com"}'},
        "token_types",
        {"jwt"},
    ),
    (
        'token_kind = "id"\nrequired_claims.hd = "example.com"\ntoken_types = ["id+jwt"]',
        {
            "DIALTONE_TOKEN_KIND": "id",
            "DIALTONE_REQUIRED_CLAIMS": '{"hd": "example.com"}',
            "DIALTONE_TOKEN_TYPES": "id+jwt",
        },
        "token_types",
        {"id+jwt"},
    ),
    (
        'token_types = ["application/at+JWT"]',
        {"DIALTONE_TOKEN_TYPES": "application/at+JWT"},
        "token_types",
        {"at+jwt"},
    ),
    (
        'allowed_foreign_claims = ["nonce"]',
        {"DIALTONE_ALLOWED_FOREIGN_CLAIMS": "nonce"},
        "allowed_foreign_claims",
        {"nonce"},
    ),
    (
        "takes_tokens_without_iss = true",
        {"DIALTONE_TAKES_TOKENS_WITHOUT_ISS": "true"},
        "takes_tokens_without_iss",
        True,
    ),
    ('subject_type = "integer"', {"DIALTONE_SUBJECT_TYPE": "integer"}, "subject_type", SubjectType.INTEGER),
    ('subject_claim = "/a/b"', {"DIALTONE_SUBJECT_CLAIM": "/a/b"}, "subject_path", ("a", "b")),
    ('scope_claim = "/a~1b/0"', {"DIALTONE_SCOPE_CLAIM": "/a~1b/0"}, "scope_path", ("a/b", "0")),
    ("max_token_bytes = 12288", {"DIALTONE_MAX_TOKEN_BYTES": "12288"}, "max_token_length", 12_288),
]


@pytest.mark.parametrize(("text", "variables", "field", "value"), SETTINGS, ids=range(len(SETTINGS)))
def test_setting_is_the_same_in_the_file_and_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, variables: dict[str, str], field: str, value: Any
) -> None:
    (in_environment,) = issuers(load_variables(monkeypatch, **variables))
    for name in MINIMAL_ENVIRONMENT | variables:
        monkeypatch.delenv(name)
    (in_file,) = issuers(load_file(monkeypatch, tmp_path, ISSUER + text))

    assert getattr(in_environment, field) == getattr(in_file, field) == value


@pytest.mark.parametrize(
    ("text", "variable", "value"),
    [(f'tenants = ["{ONE}"]', ONE, frozenset({ONE})), ('tenants = "any"', "any", "any")],
)
def test_tenants_are_listed_or_any(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, variable: str, value: Any
) -> None:
    variables = {
        "DIALTONE_ISSUER": "https://login.example.com/{tid}/v2.0",
        "DIALTONE_JWKS_URL": "https://login.example.com/keys",
        "DIALTONE_TENANTS": variable,
    }
    (in_environment,) = issuers(load_variables(monkeypatch, **variables))
    for name in MINIMAL_ENVIRONMENT | variables:
        monkeypatch.delenv(name)
    (in_file,) = issuers(load_file(monkeypatch, tmp_path, TEMPLATE + text))

    assert in_environment.tenants == in_file.tenants == value


def test_any_tenant_is_logged_as_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issuers(load_file(monkeypatch, tmp_path, TEMPLATE + f'tenants = ["{ONE}"]'))
    assert "every_tenant_accepted" not in capsys.readouterr().out

    issuers(load_file(monkeypatch, tmp_path, ALL))

    assert "every_tenant_accepted" in capsys.readouterr().out


def test_issuer_may_have_required_claims_instead_of_audiences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (in_file,) = issuers(load_file(monkeypatch, tmp_path, NO_AUDIENCE + 'required_claims.token_type = "access"'))

    assert in_file.audiences == frozenset()


def test_environment_may_have_required_claims_instead_of_an_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    (issuer,) = issuers(
        load_variables(monkeypatch, DIALTONE_AUDIENCE=None, DIALTONE_REQUIRED_CLAIMS='{"token_type": "access"}')
    )

    assert issuer.audiences == frozenset()


WRONG: list[tuple[str, str]] = [
    (NO_AUDIENCE, "issuers[0].audiences: is required"),
    (NO_AUDIENCE + "takes_tokens_without_iss = true", "issuers[0].audiences: is required"),
    (
        ISSUER + f'secret_env = "CANARY{"s" * 26}"',  # the secret instead of the name of its variable
        "issuers[0].secret_env: the variable of this name is not set",
    ),
    (ISSUER + 'secret_env = "NOT_SET"', "issuers[0].secret_env: NOT_SET is not set"),
    (ISSUER + "audience_claims = []", "issuers[0].audience_claims: "),
    (ISSUER + 'audience_claims = ["/a~b"]', "issuers[0].audience_claims[0]: '/a~b' is not a JSON Pointer"),
    (ISSUER + 'subject_claim = "/a~"', "issuers[0].subject_claim: '/a~' is not a JSON Pointer"),
    (ISSUER + 'scope_claim = "/~"', "issuers[0].scope_claim: '/~' is not a JSON Pointer"),
    (ISSUER + "required_claims.a = 1.5", "issuers[0].required_claims: a claim must be a string"),
    (ISSUER + "required_claims.'/a~' = 1", "issuers[0].required_claims: '/a~' is not a JSON Pointer"),
    (
        ISSUER + 'token_kind = "id"',
        "issuers[0].token_kind: ID tokens of https://id.example.com require required_claims; set it",
    ),
    (
        NO_AUDIENCE + 'token_kind = "id"\nrequired_claims.a = 1',
        "issuers[0].token_kind: ID tokens of https://id.example.com require audiences; set it",
    ),
    (ISSUER + 'token_kind = "refresh"', "issuers[0].token_kind: "),
    (
        ISSUER + 'token_kind = "id"\nrequired_claims.a = 1\nallowed_foreign_claims = ["nonce"]',
        "issuers[0].allowed_foreign_claims: has no effect, because https://id.example.com has token_kind",
    ),
    (ISSUER + 'allowed_foreign_claims = ["events"]', "issuers[0].allowed_foreign_claims"),
    (TEMPLATE, "issuers[0].issuer: https://login.example.com/{tid}/v2.0 is a template; set tenants"),
    (TEMPLATE + "tenants = []", "issuers[0].tenants: must be a list of tenant IDs"),
    (TEMPLATE + 'tenants = "all"', "issuers[0].tenants: must be a list of tenant IDs"),
    (TEMPLATE + 'tenants = ["a/b"]', "issuers[0].tenants: must be a list of tenant IDs"),
    (TEMPLATE + 'tenants = [""]', "issuers[0].tenants: must be a list of tenant IDs"),
    (TEMPLATE + "tenants = [1]", "issuers[0].tenants: must be a list of tenant IDs"),
    (TEMPLATE + 'tenants = ["*"]', "issuers[0].tenants: must be a list of tenant IDs"),
    (TEMPLATE + f'tenants = ["any", "{ONE}"]', 'issuers[0].tenants: "any" is not a tenant ID; write tenants = "any"'),
    (ISSUER + f'tenants = ["{ONE}"]', "issuers[0].tenants: https://id.example.com is not a template"),
    (
        TEMPLATE.replace("v2.0", "{version}") + f'tenants = ["{ONE}"]',
        "issuers[0].tenants: https://login.example.com/{tid}/{version} is not a template",
    ),
    (
        TEMPLATE.replace('jwks_url = "https://login.example.com/keys"\n', "") + 'tenants = "any"',
        "issuers[0].issuer: keys cannot be discovered from the template",
    ),
    (
        TEMPLATE + 'tenants = "any"\ntakes_tokens_without_iss = true',
        "issuers[0].takes_tokens_without_iss: https://login.example.com/{tid}/v2.0 is a template",
    ),
    *(
        (
            ISSUER.replace("https://id.example.com", f"https://login.microsoftonline.com/{alias}/v2.0"),
            f"issuers[0].issuer: no token has the issuer https://login.microsoftonline.com/{alias}/v2.0",
        )
        for alias in ("common", "organizations", "consumers")
    ),
    *(
        (
            TEMPLATE.replace("https://login.example.com/{tid}/v2.0", template) + f'tenants = ["{ONE}"]',
            f"issuers[0].issuer: {template} must name the claim that Entra's tokens have; write {{tid}}",
        )
        for template in ("https://login.microsoftonline.com/{tenantid}/v2.0", "https://sts.windows.net/{tenant}/")
    ),
    (ISSUER + 'audience_claims = "aud"', "issuers[0].audience_claims: must be a list"),
    (ISSUER.replace('["dialtone"]', '"dialtone"'), "issuers[0].audiences: must be a list"),
    (ISSUER + 'required_claims = "token_use"', "issuers[0].required_claims: must be a table"),
    (
        ISSUER + 'jwks_url = "http://id.example.com/keys"\nallow_http = true',
        "issuers[0].jwks_url: must be an https URL, because allow_http applies only to private hosts",
    ),
    (
        TEMPLATE
        + f'tenants = ["{ONE}"]'
        + ISSUER.replace("staff", "one").replace("https://id.example.com", f"https://login.example.com/{ONE}/v2.0"),
        f"both accept https://login.example.com/{ONE}/v2.0; remove it from one of them",
    ),
    (
        TEMPLATE + 'tenants = ["one"]' + TEMPLATE.replace("staff", "more") + 'tenants = ["two"]',
        "have the same issuer https://login.example.com/{tid}/v2.0; list all tenants at one of them",
    ),
    (ALL + TEMPLATE + 'tenants = ["one"]', "have the same issuer https://login.example.com/{tid}/v2.0; list all"),
    (
        ISSUER + ISSUER.replace('name = "staff"', "").replace("https://id.example.com", "staff") + 'pem = "x"',
        "issuers: two issuers have the same name",
    ),
    (
        ALL + ALL.replace("all", "more").replace("{tid}", "{tenant}"),
        "accept the same issuers; keep one",
    ),
    (
        ALL + ALL.replace("all", "more").replace("/{tid}/", "/x-{tid}/"),
        "accept the same issuers; keep one",
    ),
    (
        ISSUER
        + "takes_tokens_without_iss = true"
        + ISSUER.replace("staff", "more").replace("https://id", "https://other")
        + "takes_tokens_without_iss = true",
        "https://id.example.com and https://other.example.com both have takes_tokens_without_iss; keep it at one",
    ),
    (ISSUER + 'subject_type = "number"', "issuers[0].subject_type: "),
    (ISSUER + "max_token_bytes = 12289", "issuers[0].max_token_bytes: "),
    (ISSUER + "max_token_bytes = 1023", "issuers[0].max_token_bytes: "),
    (
        ISSUER + 'secret_encoding = "base64"',
        "issuers[0].secret_encoding: has no effect, because https://id.example.com has no shared secret",
    ),
    (ISSUER + 'secret_env = "MY_SECRET"\nsecret_encoding = "hex"', "issuers[0].secret_encoding: "),
    (
        ISSUER + 'secret_env = "NOT_BASE64"\nsecret_encoding = "base64"',
        "issuers[0].secret_env: is not base64; correct it",
    ),
    (
        ISSUER + 'secret_env = "SHORT"\nsecret_encoding = "base64url"',
        "issuers[0].secret_env: a shared secret must have 32 bytes",
    ),
    (ISSUER + "scope_list = true", "issuers[0].scope_list: unknown setting"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[f"{n} {line[:50]}" for n, (_, line) in enumerate(WRONG)])
def test_error_names_the_setting_and_the_issuer_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_file(monkeypatch, tmp_path, text, MY_SECRET="s" * 32, NOT_BASE64="CANARY-_" * 8, SHORT="CANARYxx" * 5)

    said = str(refusal.value)
    assert said.startswith("dialtone.toml: issuers")
    assert line in said
    assert "\n" not in said
    assert "CANARY" not in said


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"DIALTONE_REQUIRED_CLAIMS": '{"a": "CANARY", "a": "b"}'}, "DIALTONE_REQUIRED_CLAIMS: has a claim twice"),
        ({"DIALTONE_REQUIRED_CLAIMS": "token_use=CANARY"}, "DIALTONE_REQUIRED_CLAIMS: must be a JSON object"),
        ({"DIALTONE_REQUIRED_CLAIMS": '["CANARY"]'}, "DIALTONE_REQUIRED_CLAIMS: must be a JSON object"),
        ({"DIALTONE_REQUIRED_CLAIMS": '{"a": 1.5}'}, "DIALTONE_REQUIRED_CLAIMS: a claim must be a string"),
        ({"DIALTONE_REQUIRED_CLAIMS": "{}", "DIALTONE_AUDIENCE": None}, "DIALTONE_AUDIENCE is not set"),
        ({"DIALTONE_TOKEN_KIND": "id"}, "DIALTONE_TOKEN_KIND: ID tokens of https://id.example.com require"),
        ({"DIALTONE_TENANTS": "any"}, "DIALTONE_TENANTS: https://id.example.com is not a template"),
        ({"DIALTONE_TENANTS": "any, other"}, "DIALTONE_TENANTS: "),
        ({"DIALTONE_SUBJECT_TYPE": "CANARY"}, "DIALTONE_SUBJECT_TYPE: "),
        ({"DIALTONE_MAX_TOKEN_BYTES": "20000"}, "DIALTONE_MAX_TOKEN_BYTES: "),
        ({"DIALTONE_SECRET_ENCODING": "base64"}, "DIALTONE_SECRET_ENCODING: has no effect"),
        (
            {"DIALTONE_SECRET_ENCODING": "base64", "DIALTONE_ISSUER_SECRET": "CANARY-_" * 8},
            "DIALTONE_ISSUER_SECRET: is not base64",
        ),
        ({"DIALTONE_SCOPE_LIST": "true"}, "DIALTONE_SCOPE_LIST is not a setting"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_error_names_the_variable_in_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **changes)

    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


# -- secret_encoding ----------------------------------------------------------------------------------------------

BYTES = b"\xfb\xff\xfe" + bytes(range(30))  # its base64 and its base64url differ


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("base64", base64.b64encode(BYTES).decode()),
        ("base64", base64.b64encode(BYTES).decode().rstrip("=")),
        ("base64", base64.b64encode(BYTES).decode().replace("+", "+\n", 1)),
        ("base64url", base64.urlsafe_b64encode(BYTES).decode()),
        ("base64url", base64.urlsafe_b64encode(BYTES).decode().rstrip("=")),
    ],
)
async def test_encoded_secret_verifies_tokens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str, text: str
) -> None:
    signed = jwt.encode({"alg": "HS256"}, claims_of(), OctKey.import_key(BYTES), algorithms=["HS256"])
    table = ISSUER + 'secret_env = "MY_SECRET"\n'
    encoded = TokenVerifier(
        issuers(load_file(monkeypatch, tmp_path, table + f'secret_encoding = "{encoding}"', MY_SECRET=text)), now
    )
    plain = TokenVerifier(issuers(load_file(monkeypatch, tmp_path, table, MY_SECRET=text)), now)

    assert (await encoded.verify(signed)).subject == "alice"
    with pytest.raises(TokenRejected):
        await plain.verify(signed)


@pytest.mark.parametrize("encoding", ["base64", "base64url"])
@pytest.mark.parametrize("text", ["x" * 45, "x" * 40 + " " + "x" * 23, "=" + "x" * 43, "x" * 44 + "===", "é" * 44])
def test_other_text_is_not_base64(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"secret_env: is not {encoding};"):
        load_file(
            monkeypatch,
            tmp_path,
            ISSUER + f'secret_env = "MY_SECRET"\nsecret_encoding = "{encoding}"',
            MY_SECRET=text,
        )


@pytest.mark.parametrize("encoding", ["base64", "base64url"])
def test_decoded_secret_must_have_32_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    text = ISSUER + f'secret_env = "MY_SECRET"\nsecret_encoding = "{encoding}"'

    assert issuers(load_file(monkeypatch, tmp_path, text, MY_SECRET=base64.b64encode(b"s" * 32).decode()))
    with pytest.raises(SettingsError, match="secret_env: a shared secret must have 32 bytes or more"):
        load_file(monkeypatch, tmp_path, text, MY_SECRET=base64.b64encode(b"s" * 31).decode())


async def test_encoded_secret_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(base64.b64encode(BYTES).decode() + "\n")
    signed = jwt.encode({"alg": "HS256"}, claims_of(), OctKey.import_key(BYTES), algorithms=["HS256"])
    text = ISSUER + f'secret_file = "{tmp_path}/secret"\nsecret_encoding = "base64"'

    assert await TokenVerifier(issuers(load_file(monkeypatch, tmp_path, text)), now).verify(signed)


@pytest.mark.parametrize("is_applied", [False, True])
def test_keys_are_forgotten_only_if_a_change_of_their_location_is_applied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_applied: bool
) -> None:
    """Before a reload is applied, it may be rejected. The next one must not lose the keys that are in use."""
    key_sets = KeySetRegistry(HttpClients("dialtone/test"), time.monotonic)
    moved = ISSUER + 'jwks_url = "https://id.example.com/other-keys"\n'

    (before,) = key_sets.build_issuers(load_file(monkeypatch, tmp_path, ISSUER).identity())
    others = key_sets.build_issuers(load_file(monkeypatch, tmp_path, moved).identity())
    if is_applied:
        key_sets.forget_others(others)
    (after,) = key_sets.build_issuers(load_file(monkeypatch, tmp_path, ISSUER).identity())

    assert (after.keys is before.keys) == (not is_applied)
