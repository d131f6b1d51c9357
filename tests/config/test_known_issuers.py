"""Issuers that no token of a well-known provider has are rejected. An issuer that is probably wrong is a warning."""

from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.config import known_issuers
from app.config.config_warning import ConfigWarning
from app.config.file import IssuerTable
from app.config.settings import SettingsError
from tests.support.configuration import load_variables

TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
JWKS = {"jwks_url": "https://id.corp.test/keys"}


def table(issuer: str, **settings: Any) -> IssuerTable:
    return IssuerTable.model_validate({"issuer": issuer, "audiences": ["phones"]} | settings)


RIGHT = [
    "https://tenant.eu.auth0.com/",
    f"https://login.microsoftonline.com/{TENANT}/v2.0",
    f"https://sts.windows.net/{TENANT}/",
    f"https://staff.b2clogin.com/{TENANT}/v2.0/",
    f"https://staff.b2clogin.com/tfp/{TENANT}/b2c_1_sign_in/v2.0/",
    f"https://{TENANT}.ciamlogin.com/{TENANT}/v2.0",
    "https://dev-1234.okta.com/oauth2/default",
    "https://dev-1234.okta.com",
    "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbC123",
    "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_AbC123",
    "https://accounts.google.com",
    "https://securetoken.google.com/my-app",
    "https://cloud.google.com/iap",
    "https://ref.supabase.co/auth/v1",
    "https://happy-cat-1.clerk.accounts.dev",
    "https://phones-abc123.us1.zitadel.cloud",
    "https://team.cloudflareaccess.com",
    "https://gitlab.com",
    "https://token.actions.githubusercontent.com",
    "https://token.actions.githubusercontent.com/octo-org",
    "https://id.corp.test/realms/staff",
    "https://id.corp.test/application/o/phones/",
    "https://id.corp.test/",
]


@pytest.mark.parametrize("issuer", RIGHT)
def test_issuer_that_tokens_have_is_accepted(issuer: str) -> None:
    assert table(issuer).issuer == issuer


@pytest.mark.parametrize("issuer", ["accounts.google.com", "my-service", "urn:example:issuer"])
def test_issuer_that_is_no_url_is_accepted_with_a_key_source(issuer: str) -> None:
    assert table(issuer, **JWKS).issuer == issuer


WRONG = {
    # a slash too few or too many, or capital letters: the right text is in the message
    "https://tenant.eu.auth0.com": "write https://tenant.eu.auth0.com/",
    "https://accounts.google.com/": "write https://accounts.google.com",
    "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbC123/": "amazonaws.com/eu-west-1_AbC123",
    f"https://sts.windows.net/{TENANT}": f"write https://sts.windows.net/{TENANT}/",
    f"https://login.microsoftonline.com/{TENANT.upper()}/v2.0": f"write https://login.microsoftonline.com/{TENANT}/v2.0",
    f"https://staff.b2clogin.com/{TENANT}/v2.0": f"write https://staff.b2clogin.com/{TENANT}/v2.0/",
    f"https://{TENANT}.ciamlogin.com/{TENANT}/v2.0/": f"write https://{TENANT}.ciamlogin.com/{TENANT}/v2.0",
    "https://dev-1234.okta.com/oauth2/default/": "write https://dev-1234.okta.com/oauth2/default",
    "https://ref.supabase.co/auth/v1/": "write https://ref.supabase.co/auth/v1",
    "https://securetoken.google.com/my-app/": "write https://securetoken.google.com/my-app",
    "https://gitlab.com/": "write https://gitlab.com",
    "https://token.actions.githubusercontent.com/": "write https://token.actions.githubusercontent.com",
    "https://team.cloudflareaccess.com/": "write https://team.cloudflareaccess.com",
    # another form: the message has the provider's form
    "https://tenant.eu.auth0.com/api/v2/": "write https://TENANT.REGION.auth0.com/",
    f"https://login.microsoftonline.com/{TENANT}": "write https://login.microsoftonline.com/TENANT_ID/v2.0 or",
    f"https://login.microsoftonline.com/{TENANT}/": "write https://login.microsoftonline.com/TENANT_ID/v2.0 or",
    "https://login.microsoftonline.com/contoso.onmicrosoft.com/v2.0": "TENANT_ID/v2.0",
    f"https://sts.windows.net/{TENANT}/v2.0": "write https://sts.windows.net/TENANT_ID/",
    "https://staff.b2clogin.com/staff.onmicrosoft.com/B2C_1_sign_in/v2.0/": "TENANT.b2clogin.com/TENANT_ID/v2.0/",
    "https://dev-1234-admin.okta.com/oauth2/default": "write https://DOMAIN.okta.com/oauth2/ID",
    "https://dev-1234.okta.com/oauth2/default/v1/keys": "write https://DOMAIN.okta.com/oauth2/ID",
    "https://cognito-idp.eu-west-1.amazonaws.com": "write https://cognito-idp.REGION.amazonaws.com/POOL_ID",
    "https://phones.auth.eu-west-1.amazoncognito.com": "write https://cognito-idp.REGION.amazonaws.com/POOL_ID",
    "https://securetoken.google.com": "write https://securetoken.google.com/PROJECT_ID",
    "https://ref.supabase.co": "write https://PROJECT.supabase.co/auth/v1",
    # texts that are no issuer of any provider
    "https://id.corp.test/.well-known/openid-configuration": "is the URL of a document",
    "https://id.corp.test/.well-known/oauth-authorization-server": "is the URL of a document",
    "https://id.corp.test/.well-known/jwks.json": "is the URL of a document",
    "https://id.corp.test/realms/staff/protocol/openid-connect/certs": "is the URL of a key set or an endpoint",
    "https://id.corp.test/jwks.json": "is the URL of a key set or an endpoint",
    "https://id.corp.test/oauth/jwks": "is the URL of a key set or an endpoint",
    "https://id.corp.test/?tenant=staff": "has a query",
    "https://user:CANARY@id.corp.test/jwks.json": "has a user or a password in it",
    "https://CANARY@id.corp.test": "has a user or a password in it",
    "https://id.corp.test/a b": "has white space in it",
    "https://id.corp.test/.well-known": "is the URL of a document",
    "https://id.corp.test\\n": "has the character \\ in it",
    "https://id.corp.test`": "has the character ` in it",
    # a part that a preset adds, and that the value had too
    "https://id.corp.test/realms/staff/realms/staff": "has /realms/ twice",
    "https://id.corp.test/application/o/a/application/o/a/": "has /application/o/ twice",
    "https://id.corp.test/oidc/oidc": "has /oidc twice",
    "https://ref.supabase.co.supabase.co/auth/v1": "has .supabase.co twice",
}


@pytest.mark.parametrize(("issuer", "line"), WRONG.items(), ids=WRONG)
def test_issuer_that_no_token_has_is_rejected(monkeypatch: pytest.MonkeyPatch, issuer: str, line: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, DIALTONE_ISSUER=issuer)

    assert str(refusal.value).startswith("DIALTONE_ISSUER: ")
    assert line in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


@pytest.mark.parametrize("issuer", ["https://login.microsoftonline.com/{tid}/v2.0", "https://sts.windows.net/{tid}/"])
def test_template_of_entra_is_accepted(issuer: str) -> None:
    assert table(issuer, tenants=[TENANT], **JWKS).issuer == issuer


@pytest.mark.parametrize(
    ("issuer", "line"),
    [
        ("https://login.microsoftonline.com/{tid}", "TENANT_ID/v2.0"),
        ("https://sts.windows.net/{tid}", "write https://sts.windows.net/{tid}/"),
    ],
)
def test_template_that_no_tenant_of_entra_fills_is_rejected(issuer: str, line: str) -> None:
    with pytest.raises(ValueError, match="Entra") as refusal:
        table(issuer, tenants=[TENANT], **JWKS)

    assert line in str(refusal.value)


def test_issuer_of_tokens_without_iss_may_be_any_text() -> None:
    issuer = "https://tenant.eu.auth0.com"

    assert table(issuer, takes_tokens_without_iss=True).issuer == issuer


@pytest.mark.parametrize(
    "issuer", ["spiffe://corp.test", "https://id.corp.test/oidc-staff/oidc", "https://id.test/oidc/a"]
)
def test_issuer_of_another_form_causes_no_warning(issuer: str) -> None:
    assert known_issuers.find_warnings(table(issuer, **JWKS)) == []


def test_query_is_accepted_if_keys_are_not_discovered() -> None:
    issuer = table("https://id.corp.test/?tenant=staff", **JWKS)

    assert [warning.seen for warning in known_issuers.find_warnings(issuer)] == [
        "https://id.corp.test/?tenant=staff has a query or a fragment, which issuers of OpenID Connect do not have"
    ]


DOUBTFUL: dict[str, tuple[dict[str, Any], str]] = {
    "https://id.example.com": ({}, "looks like an example"),
    "https://YOUR_DOMAIN.net": ({}, "looks like an example"),
    "https://$(DOMAIN)/": (JWKS, "looks like an example"),
    "https://id.corp.test/realms/staff/": ({}, "ends with a slash, and issuers of Keycloak do not"),
    "https://id.corp.test/application/o/phones": ({}, "has no slash at its end, and issuers of authentik do"),
    f"https://login.microsoftonline.com/{TENANT}/v2.0/": ({}, "ends with a slash, and issuers of Entra ID do not"),
    "https://dev-1234.okta.com": ({}, "is Okta's org server"),
    "https://ID.corp.test": ({}, "has capital letters in its host name"),
    "https://TENANT.eu.auth0.com/": ({}, "has capital letters in its host name"),
    "HTTPS://id.corp.test": ({}, "has capital letters in its scheme"),
    "https://id.corp.test#": ({}, "has a query or a fragment"),
    "https://id.corp.test,": ({}, "ends with ,"),
    "https://id.corp.test/staff;": ({}, "ends with ;"),
    "https://id.corp.test'": ({}, "ends with '"),
    "https://id.corp.test:443": ({}, "has a port, which is the default"),
    "https://id.corp.test//staff": ({}, "has two slashes in its path"),
    "https://id.corp.test/oauth2/certs": ({}, "looks like the URL of a key set"),
    "https://id.corp.test/oauth2/token": ({}, "looks like the URL of an endpoint"),
    "id.corp.test": (JWKS, "has no scheme"),
}


@pytest.mark.parametrize(("issuer", "options", "line"), [(k, *v) for k, v in DOUBTFUL.items()], ids=DOUBTFUL)
def test_doubtful_issuer_is_a_warning(issuer: str, options: dict[str, Any], line: str) -> None:
    (warning,) = known_issuers.find_warnings(table(issuer, **options))

    assert warning.place == "issuer"
    assert line in warning.seen
    assert warning.fix


@pytest.mark.parametrize("issuer", [issuer for issuer in RIGHT if not issuer.endswith("okta.com")])
def test_valid_issuer_causes_no_warning(issuer: str) -> None:
    assert known_issuers.find_warnings(table(issuer)) == []


@pytest.mark.parametrize(
    "audience", ["https://phones.example.com", "<client-id>", "${AUDIENCE}", "your-client-id", "CHANGEME"]
)
def test_audience_that_looks_like_an_example_is_a_warning(audience: str) -> None:
    (warning,) = known_issuers.find_warnings(table("https://id.corp.test", audiences=[audience, "phones"]))

    assert (warning.place, warning.seen) == ("audiences", f"{audience} looks like an example")


@pytest.mark.parametrize(
    ("issuer", "audience"),
    [
        ("https://tenant.eu.auth0.com/", "https://tenant.eu.auth0.com/userinfo"),
        ("https://tenant.eu.auth0.com/", "https://tenant.eu.auth0.com/api/v2/"),
        ("https://id.corp.test/realms/staff", "account"),
    ],
)
def test_audience_of_the_provider_itself_is_a_warning(issuer: str, audience: str) -> None:
    (warning,) = known_issuers.find_warnings(table(issuer, audiences=[audience, "phones"]))

    assert warning == ConfigWarning(
        "audiences",
        f"{audience} is an audience of the provider itself, which tokens for other purposes have too",
        "write the audience of your own API",
    )


@pytest.mark.parametrize(
    ("issuer", "audience"),
    [
        ("https://tenant.eu.auth0.com/", "https://phones.corp.test/userinfo"),
        ("https://id.corp.test", "account"),
        ("https://id.corp.test", "https://id.corp.test"),
    ],
)
def test_audience_of_an_api_causes_no_warning(issuer: str, audience: str) -> None:
    assert known_issuers.find_warnings(table(issuer, audiences=[audience])) == []


@pytest.mark.parametrize("audience", ["undefined", "null", "None", "-"])
def test_audience_of_a_variable_that_is_not_set_is_a_warning(audience: str) -> None:
    (warning,) = known_issuers.find_warnings(table("https://id.corp.test", audiences=[audience]))

    assert (warning.place, warning.seen) == (
        "audiences",
        f"{audience} looks like the value of a variable that is not set",
    )


@pytest.mark.parametrize("audience", ["*", "https://*.corp.test", "a,b", "a;b", "a|b", "`a`", "a\\n", "a\uff0cb"])
def test_audience_with_a_wildcard_or_a_separator_is_a_warning(audience: str) -> None:
    (warning,) = known_issuers.find_warnings(table("https://id.corp.test", audiences=[audience]))

    assert warning.place == "audiences"
    assert "which is compared literally" in warning.seen


@pytest.mark.parametrize(
    ("setting", "value", "pointer"),
    [
        ("scope_claim", "realm_access.roles", "/realm_access/roles"),
        ("subject_claim", "$.sub", "/sub"),
        ("audience_claims", ["app.id", "aud"], "/app/id"),
        ("required_claims", {"firebase.tenant": "a"}, "/firebase/tenant"),
    ],
)
def test_claim_in_the_notation_of_other_programs_is_a_warning(setting: str, value: Any, pointer: str) -> None:
    (warning,) = known_issuers.find_warnings(table("https://id.corp.test", **{setting: value}))

    assert warning.place == setting
    assert warning.fix.endswith(f"write {pointer}")


@pytest.mark.parametrize("claim", ["https://corp.test/roles", "cognito:groups", "/realm_access/roles", "kubernetes.io"])
def test_name_of_a_claim_causes_no_warning(claim: str) -> None:
    assert known_issuers.find_warnings(table("https://id.corp.test", scope_claim=claim)) == []


def test_discovery_document_as_the_key_set_is_a_warning() -> None:
    url = "https://id.corp.test/.well-known/openid-configuration"
    (warning,) = known_issuers.find_warnings(table("https://id.corp.test", jwks_url=url))

    assert (warning.place, warning.seen) == ("jwks_url", f"{url} is the URL of a discovery document")


def test_warnings_of_config_check_are_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    load_variables(monkeypatch, DIALTONE_AUDIENCE="https://phones.example.com", DIALTONE_ENV_FILE="")

    checked = CliRunner().invoke(app, ["config", "check"])

    assert checked.exit_code == 0
    assert checked.stdout.startswith("Valid: 1 issuer,")
    assert [line.partition(";")[0] for line in checked.stderr.splitlines()] == [
        "Warning: DIALTONE_ISSUER: https://id.example.com looks like an example",
        "Warning: DIALTONE_AUDIENCE: https://phones.example.com looks like an example",
    ]


def test_config_check_rejects_an_issuer_that_no_token_has(monkeypatch: pytest.MonkeyPatch) -> None:
    load_variables(monkeypatch, DIALTONE_ENV_FILE="")
    monkeypatch.setenv("DIALTONE_ISSUER", "https://accounts.google.com/")

    checked = CliRunner().invoke(app, ["config", "check"])

    assert checked.exit_code == 1
    assert checked.stdout == ""
    assert checked.stderr == (
        "Configuration: DIALTONE_ISSUER: no token of Google has the issuer https://accounts.google.com/; "
        "write https://accounts.google.com\n"
    )
