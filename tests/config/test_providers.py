"""`provider` of an issuer: values, overridden settings, and one-line errors that name the value."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.composition.reload import RELOADABLE
from app.config.file import ConfigFile, IssuerTable
from app.config.issuer_variables import ISSUER_FIELDS
from app.config.providers import PRESETS, UNSUPPORTED, VALUES
from app.config.settings import SettingsError
from tests.support.configuration import load_file, load_variables
from tests.support.provider_trials import documented_tables
from tests.support.verification import SECRET

TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
API = "11112222-bbbb-3333-cccc-4444dddd5555"
AUTH0 = {"provider": "auth0", "domain": "tenant.eu.auth0.com", "audiences": ["https://phones.example.com"]}
COGNITO = {"provider": "cognito", "user_pool_id": "eu-west-1_EXAMPLE", "client_id": "app"}
OKTA = {"provider": "okta", "domain": "dev.okta.com", "client_id": "app"}
KEYCLOAK = {"provider": "keycloak", "url": "https://id.example.com", "realm": "staff", "audiences": ["phones"]}
ENTRA = {"provider": "entra", "tenant_id": TENANT, "audiences": [API]}
SUPABASE = {"provider": "supabase", "project_id": "ref"}
RECIPES = {table["provider"]: table for table in documented_tables("identity-providers")}


def expanded(table: IssuerTable) -> dict[str, Any]:
    """The settings of the table and its preset, as an equivalent table without `provider`."""
    given = table.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"provider", *VALUES})
    for name in given:
        if isinstance(getattr(table, name), frozenset):
            given[name].sort()
    return {name: value for name, value in given.items() if value is not None}


def table_of(values: dict[str, Any]) -> dict[str, Any]:
    return expanded(IssuerTable.model_validate(values))


def as_toml(values: dict[str, Any]) -> str:
    return "[[issuers]]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def test_preset_is_an_ordinary_table() -> None:
    assert table_of(COGNITO) == {
        "issuer": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE",
        "audiences": ["app"],
        "audience_claims": ["client_id"],
        "required_claims": {"token_use": "access", "sub": {"not": {"one_of": ["app"]}}},
    }


def test_load_balancer_has_the_issuer_of_its_user_pool() -> None:
    assert table_of(RECIPES["aws-alb"]) == {
        "issuer": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE",
        "audiences": [RECIPES["aws-alb"]["client_id"]],
        "header": "x-amzn-oidc-data",
        "signer": RECIPES["aws-alb"]["signer"],
    }


@pytest.mark.parametrize("name", RECIPES)
def test_expanded_table_means_the_same_without_the_provider(name: str) -> None:
    table = IssuerTable.model_validate(RECIPES[name])
    without = IssuerTable.model_validate(expanded(table))

    assert without.provider is None
    assert without == table.model_copy(update=dict.fromkeys(["provider", *VALUES]))


def test_table_keeps_its_provider_and_values() -> None:
    table = IssuerTable.model_validate(COGNITO)

    assert (table.provider, table.user_pool_id, table.client_id) == ("cognito", "eu-west-1_EXAMPLE", "app")


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        (AUTH0 | {"domain": "https://Tenant.eu.auth0.com/"}, "issuer", "https://tenant.eu.auth0.com/"),
        (OKTA, "issuer", "https://dev.okta.com/oauth2/default"),
        (OKTA | {"authorization_server": "aus1"}, "issuer", "https://dev.okta.com/oauth2/aus1"),
        (
            OKTA | {"client_id": ["web", "ios"]},
            "required_claims",
            {"cid": {"one_of": ["web", "ios"]}, "uid": {"glob": "?*"}},
        ),
        (COGNITO | {"client_id": ["web", "ios"]}, "audiences", ["ios", "web"]),
        (KEYCLOAK | {"url": "https://id.example.com/auth/"}, "issuer", "https://id.example.com/auth/realms/staff"),
        (
            KEYCLOAK | {"url": "http://keycloak:8080", "allow_http": True},
            "issuer",
            "http://keycloak:8080/realms/staff",
        ),
        (ENTRA | {"tenant_id": TENANT.upper()}, "issuer", f"https://login.microsoftonline.com/{TENANT}/v2.0"),
        (ENTRA, "required_claims", {"scp": {"glob": "?*"}}),
        (ENTRA | {"audiences": [API.upper()]}, "audiences", [API]),
        (RECIPES["entra-multitenant"] | {"tenants": [TENANT.upper()]}, "tenants", [TENANT]),
        (RECIPES["entra-multitenant"] | {"tenants": "any"}, "tenants", "any"),
        (ENTRA | {"client_id": "spa"}, "required_claims", {"scp": {"glob": "?*"}, "azp": {"one_of": ["spa"]}}),
        (
            RECIPES["clerk"] | {"origin": ["https://App.example.com:443/", "http://localhost:80", "http://app:8080"]},
            "audiences",
            ["http://app:8080", "http://localhost", "https://app.example.com"],
        ),
        (
            {"provider": "stytch", "project_id": "project-test-1"},
            "jwks_url",
            "https://test.stytch.com/v1/sessions/jwks/project-test-1",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_values_complete_the_settings(values: dict[str, Any], setting: str, expected: Any) -> None:
    assert table_of(values)[setting] == expected


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        (AUTH0 | {"subject_claim": "email"}, "subject_claim", "email"),
        (AUTH0 | {"leeway_seconds": 60}, "leeway_seconds", 60),
        (OKTA | {"audiences": ["phones"]}, "audiences", ["phones"]),
        (OKTA | {"subject_claim": "sub"}, "subject_claim", "sub"),
        (
            AUTH0 | {"required_claims": {"org_id": "org_1"}},
            "required_claims",
            {"sub": {"glob": "*|*"}, "org_id": "org_1"},
        ),
        (
            COGNITO | {"required_claims": {"/sub": {"not": "guest"}}},
            "required_claims",
            {"token_use": "access", "sub": {"not": {"one_of": ["app"]}}, "/sub": {"not": "guest"}},
        ),
        (AUTH0 | {"required_claims": {"sub": {"glob": "google-*"}}}, "required_claims", {"sub": {"glob": "google-*"}}),
        (
            {"provider": "cognito", "issuer": "http://localhost:4566/pool", "client_id": "app"},
            "issuer",
            "http://localhost:4566/pool",
        ),
        (
            {"provider": "authentik", "client_id": "app", "issuer": "https://id/", "discovery_url": "https://id/d"},
            "discovery_url",
            "https://id/d",
        ),
        (
            {"provider": "pingone", "client_id": "app", "issuer": "https://auth.example.com/as", "audiences": ["a"]},
            "required_claims",
            {"client_id": {"one_of": ["app"]}},
        ),
        (
            {name: value for name, value in RECIPES["clerk"].items() if name != "origin"}
            | {"audience_claims": ["aud"], "audiences": ["phones"]},
            "audience_claims",
            ["aud"],
        ),
        (
            RECIPES["descope"] | {"issuer": "https://api.descope.com/v1/apps/P2"},
            "issuer",
            "https://api.descope.com/v1/apps/P2",
        ),
        (
            RECIPES["workos"] | {"issuer": "https://api.workos.com"},
            "jwks_url",
            "https://api.workos.com/sso/jwks/client_1",
        ),
        (RECIPES["fusionauth"] | {"issuer": "acme.com"}, "jwks_url", "https://id.example.com/.well-known/jwks.json"),
        (
            {name: value for name, value in RECIPES["github-actions"].items() if name != "ref"}
            | {"required_claims": {"ref": {"glob": "refs/heads/*"}}},
            "required_claims",
            {"repository": {"one_of": ["octo/phones"]}, "ref": {"glob": "refs/heads/*"}},
        ),
        (SUPABASE | {"secret_env": "S"}, "jwks_url", None),
        (KEYCLOAK | {"jwks_url": "https://internal/certs"}, "issuer", "https://id.example.com/realms/staff"),
        (RECIPES["kubernetes"] | {"jwks_url": "https://other/jwks"}, "ca_file", None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_setting_in_the_table_overrides_the_preset(values: dict[str, Any], setting: str, expected: Any) -> None:
    assert table_of(values).get(setting) == expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"provider": "cognito", "client_id": "app"}, 'user_pool_id: is required with provider = "cognito"'),
    ({"provider": "cognito", "user_pool_id": "eu-west-1_E"}, 'client_id: is required with provider = "cognito"'),
    ({"provider": "auth0", "domain": "tenant.eu.auth0.com"}, 'audiences: is required with provider = "auth0"'),
    (AUTH0 | {"audiences": []}, 'audiences: is required with provider = "auth0"'),
    (ENTRA | {"tenant_id": None}, 'tenant_id: is required with provider = "entra"'),
    (
        COGNITO | {"domain": "a.example.com"},
        'domain: has no effect with provider = "cognito", which takes client_id and user_pool_id',
    ),
    (OKTA | {"realm": "x"}, "which takes authorization_server, client_id and domain"),
    (COGNITO | {"audiences": ["other"], "required_claims": {"sub": {"glob": "*"}}}, "because audiences replaces it"),
    (OKTA | {"required_claims": {"cid": "app"}}, "client_id: has no effect, because required_claims replaces it"),
    (AUTH0 | {"issuer": "https://x.example.com/"}, "domain: has no effect, because issuer replaces it; remove one"),
    ({"issuer": "https://a.example.com", "audiences": ["a"], "domain": "b"}, "domain: has no effect without provider"),
    (ENTRA | {"tenants": [TENANT]}, 'tenants: has no effect with provider = "entra"; use provider = "entra-multi'),
    (
        {"provider": "entra-multitenant", "audiences": [API]},
        'tenants: is required with provider = "entra-multitenant"',
    ),
    (ENTRA | {"audiences": [f"api://{API}"]}, "audiences: must be the application (client) ID of the API"),
    (
        RECIPES["entra-multitenant"] | {"tenants": ["contoso.onmicrosoft.com"]},
        "tenants: must be the IDs of directories (GUIDs), which tokens contain",
    ),
    (ENTRA | {"tenant_id": "contoso.onmicrosoft.com"}, "tenant_id: must be a GUID"),
    (ENTRA | {"tenant_id": [TENANT, API]}, "tenant_id: must be one value"),
    (AUTH0 | {"domain": ""}, "domain: must be a host name"),
    (AUTH0 | {"domain": "http://tenant.eu.auth0.com"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "tenant.eu.auth0.com@evil.example.com"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "tenant.eu.auth0.com/path"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "tenant.eu.auth0.com:8443"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "tenant.eu.auth0.com\n"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "evil.example.com?tenant.eu.auth0.com"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "$client_id.example.com"}, "domain: must be a host name"),
    (AUTH0 | {"domain": "tеnant.eu.auth0.com"}, "domain: must be a host name"),  # noqa: RUF001 - a Cyrillic letter
    (AUTH0 | {"domain": 7}, "domain: must be text"),
    (AUTH0 | {"domain": []}, "domain: must be text"),
    (AUTH0 | {"domain": ["a.example.com", "b.example.com"]}, "domain: must be one value"),
    (OKTA | {"authorization_server": "../oauth2/other"}, "authorization_server: must contain only letters"),
    (OKTA | {"client_id": "a b"}, "client_id: must be text without white space"),
    (COGNITO | {"user_pool_id": "evil.example.com/eu-west-1_E"}, "user_pool_id: must be the ID of a user pool"),
    (COGNITO | {"user_pool_id": "cn-north-1_E"}, "user_pool_id: must be the ID of a user pool"),
    (KEYCLOAK | {"url": "id.example.com"}, "url: must be a URL such as https://id.example.com"),
    (KEYCLOAK | {"url": "https://user@id.example.com"}, "url: must be a URL"),
    (KEYCLOAK | {"url": "https://id.example.com/../other"}, "url: must be a URL"),
    (KEYCLOAK | {"url": "https://id.example.com?x"}, "url: must be a URL"),
    (KEYCLOAK | {"url": "http://id.example.com"}, "issuer: is not an https URL"),
    (KEYCLOAK | {"realm": "a/../../b"}, "realm: must contain only letters"),
    (KEYCLOAK | {"realm": ".."}, "realm: must contain only letters"),
    (SUPABASE | {"project_id": "evil.example.com/"}, "project_id: must contain only letters"),
    ({"provider": "firebase", "project_id": "a@b"}, "project_id: must contain only letters"),
    ({"provider": "simplejwt"}, 'secret_env: is required with provider = "simplejwt"; set secret_env or another key'),
    ({"provider": "passport", "client_id": "1"}, 'pem: is required with provider = "passport"'),
    (COGNITO | {"provider": "cognitoo"}, 'provider: is unknown; did you mean "cognito"? Known providers: adfs, auth0,'),
    (COGNITO | {"provider": "Cognito"}, 'provider: is unknown; did you mean "cognito"?'),
    (COGNITO | {"provider": "xyz"}, "provider: is unknown. Known providers: adfs, auth0,"),
    (COGNITO | {"provider": 7}, "provider: is unknown. Known providers"),
    (OKTA | {"provider": "okta-org"}, "provider: access tokens of Okta's org authorization server"),
    ({"provider": "next-auth"}, "provider: Auth.js encrypts its session tokens"),
    (
        RECIPES["github-actions"] | {"repository": "octo"},
        "repository: must be OWNER/REPOSITORY",
    ),
    (RECIPES["github-actions"] | {"ref": "refs/heads/*"}, "ref: is compared exactly, so that * would match nothing"),
    (RECIPES["gitlab-ci"] | {"project_path": "octo/*"}, "project_path: is compared exactly"),
    (OKTA | {"client_id": ["app", "*"]}, "client_id: is compared exactly"),
    (RECIPES["clerk"] | {"origin": "app.example.com"}, "origin: must be an origin, such as https://app.example.com"),
    (AUTH0 | {"audience": "x"}, "audience: unknown setting; did you mean audiences?"),
    (AUTH0 | {"audiences": None, "audience": "x"}, "audience: unknown setting; did you mean audiences?"),
    (AUTH0 | {"domain": None, "domian": "acme.eu.auth0.com"}, "domian: unknown setting; did you mean domain?"),
    (
        COGNITO | {"client_id": None, "clientId": "x"},
        "clientId: unknown setting; did you mean client_id or ops_client_id?",
    ),
    (RECIPES["entra"] | {"tenant_id": "common"}, "tenant_id: common is no tenant; for several tenants, use provider"),
    (
        RECIPES["entra"] | {"tenant_id": "acme.onmicrosoft.com"},
        "tenant_id: must be a GUID, such as 11112222-bbbb-3333-cccc-4444dddd5555: the directory (tenant) ID",
    ),
    (COGNITO | {"provider": "azure"}, 'provider: is unknown; did you mean "entra"?'),
]


@pytest.mark.parametrize(("values", "line"), WRONG, ids=[f"{n} {line[:50]}" for n, (_, line) in enumerate(WRONG)])
def test_error_names_the_value_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, values: dict[str, Any], line: str
) -> None:
    given = {name: value for name, value in values.items() if value is not None and not isinstance(value, dict)}
    claims = {f"required_claims.{name}": value for name, value in values.get("required_claims", {}).items()}
    claims = {name: value if isinstance(value, str) else value["glob"] for name, value in claims.items()}

    with pytest.raises(SettingsError) as refusal:
        load_file(monkeypatch, tmp_path, as_toml(given | claims))

    said = str(refusal.value)
    assert said.startswith("dialtone.toml: issuers[0]")
    assert line in said
    assert "\n" not in said


EVIL = st.sampled_from(
    ["evil.org/", "@evil.org", "evil.org#", "evil.org?", "\\evil.org", "//evil.org", "..", "%2f", ":1"]
)


@given(
    st.sampled_from(sorted(name for name in RECIPES if name not in ("descope", "stytch", "stytch-b2b"))),
    st.lists(EVIL | st.text(max_size=12), min_size=1, max_size=3).map("".join),
    st.data(),
)
def test_no_value_changes_the_host_of_an_issuer(name: str, text: str, data: st.DataObject) -> None:
    recipe = RECIPES[name]
    host = urlsplit(IssuerTable.model_validate(recipe).issuer).netloc
    changed = data.draw(st.sampled_from(sorted(VALUES & recipe.keys() - {"domain", "url"}) or ["client_id"]))

    try:
        table = IssuerTable.model_validate(recipe | {changed: text})
    except ValidationError:
        return

    if name == "supabase":  # the project is a label of the host
        assert urlsplit(table.issuer).netloc.endswith(".supabase.co")
    else:
        assert urlsplit(table.issuer).netloc == host
    assert ".." not in urlsplit(table.issuer).path.split("/")


@given(st.sampled_from(["auth0", "keycloak"]), st.lists(EVIL | st.text(max_size=12), max_size=3).map("".join))
def test_domain_and_url_are_nothing_but_a_host_and_a_url(name: str, text: str) -> None:
    changed, given_text = ("domain", f"id.{text}") if name == "auth0" else ("url", f"https://id.{text}")
    try:
        issuer = IssuerTable.model_validate(RECIPES[name] | {changed: given_text}).issuer
    except ValidationError:
        return

    parts = urlsplit(issuer)
    assert (parts.query, parts.fragment, parts.username) == ("", "", None)
    assert given_text.removeprefix("https://").lower().startswith(parts.netloc)


@pytest.mark.parametrize("name", ["auth0", "entra", "okta", "cognito", "keycloak", "google", "clerk"])
def test_provider_is_the_same_in_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    recipe = RECIPES[name]
    variables = {f"DIALTONE_PROVIDER_{key.upper()}": value for key, value in recipe.items() if key in VALUES}
    audiences = {"DIALTONE_AUDIENCE": ",".join(recipe["audiences"])} if "audiences" in recipe else {}

    ((table, _),) = (
        load_variables(
            monkeypatch,
            **{"DIALTONE_ISSUER": None, "DIALTONE_AUDIENCE": None, "DIALTONE_PROVIDER": name} | variables | audiences,
        )
        .identity()
        .issuers
    )

    assert table == IssuerTable.model_validate(recipe)


def test_value_in_the_environment_may_be_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(
        monkeypatch,
        DIALTONE_ISSUER=None,
        DIALTONE_AUDIENCE=None,
        DIALTONE_PROVIDER="cognito",
        DIALTONE_PROVIDER_USER_POOL_ID="eu-west-1_EXAMPLE",
        DIALTONE_PROVIDER_CLIENT_ID="web, ios",
    )

    assert settings.identity().issuers[0][0].audiences == {"web", "ios"}


def test_shared_secret_in_the_environment_completes_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(
        monkeypatch,
        DIALTONE_ISSUER=None,
        DIALTONE_AUDIENCE=None,
        DIALTONE_PROVIDER="simplejwt",
        DIALTONE_ISSUER_SECRET=SECRET,
    )

    assert settings.identity().issuers[0][1] is not None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, 'DIALTONE_PROVIDER_USER_POOL_ID: is required with provider = "cognito"'),
        ({"DIALTONE_PROVIDER": "cognitoo"}, 'DIALTONE_PROVIDER: is unknown; did you mean "cognito"?'),
        ({"DIALTONE_PROVIDER": "passport"}, 'DIALTONE_ISSUER_PEM: is required with provider = "passport"'),
        ({"DIALTONE_PROVIDER": "auth0"}, "DIALTONE_PROVIDER_CLIENT_ID: has no effect"),
        ({"DIALTONE_PROVIDER": None}, "DIALTONE_ISSUER is not set"),
        ({"DIALTONE_PROVIDER": None}, "or set DIALTONE_PROVIDER or DIALTONE_CONFIG instead"),
        ({"DIALTONE_PROVIDER_TENANT": "x"}, "DIALTONE_PROVIDER_TENANT is not a setting"),
        ({"DIALTONE_PROVIDER": "okta", "DIALTONE_PROVIDER_DOMAIN": "x"}, "DIALTONE_PROVIDER_DOMAIN: must be a host"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_error_names_the_variable(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], line: str) -> None:
    variables: dict[str, str | None] = {
        "DIALTONE_ISSUER": None,
        "DIALTONE_AUDIENCE": None,
        "DIALTONE_PROVIDER": "cognito",
        "DIALTONE_PROVIDER_CLIENT_ID": "app",
    }

    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **variables | changes)

    assert line in str(refusal.value)


def test_provider_is_set_in_the_file_or_the_environment_but_not_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="DIALTONE_PROVIDER and DIALTONE_CONFIG are both set"):
        load_file(monkeypatch, tmp_path, as_toml(COGNITO), DIALTONE_PROVIDER="cognito")


def test_reload_applies_every_variable_of_an_issuer() -> None:
    assert set(ISSUER_FIELDS) <= RELOADABLE
    assert {f"provider_{name}" for name in VALUES} < set(ISSUER_FIELDS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_names_its_source_and_has_no_misspelt_setting(name: str) -> None:
    preset = PRESETS[name]

    assert preset.source.startswith("https://")
    assert set(preset.settings) <= set(IssuerTable.model_fields)
    assert set(preset.requires) <= set(IssuerTable.model_fields)
    assert set(preset.defaults) | preset.optional <= VALUES


def test_unsupported_providers_are_no_presets() -> None:
    assert not UNSUPPORTED.keys() & PRESETS.keys()


def test_schema_describes_the_providers_and_their_values() -> None:
    schema = ConfigFile.model_json_schema()
    issuer = schema["$defs"]["IssuerTable"]

    assert issuer["properties"]["provider"]["enum"] == sorted(PRESETS)
    assert [name for name in VALUES if "description" not in issuer["properties"][name]] == []
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"issuers": [*RECIPES.values()]})
    assert not validator.is_valid({"issuers": [COGNITO | {"provider": "cognitoo"}]})


def test_two_issuers_of_one_provider_are_two_issuers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = COGNITO | {"user_pool_id": "eu-west-1_OTHER"}
    settings = load_file(monkeypatch, tmp_path, as_toml(COGNITO) + "\n" + as_toml(other))

    assert len({table.issuer for table, _ in settings.identity().issuers}) == 2
