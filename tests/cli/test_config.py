"""`dialtone config show` prints every value in effect and its source, and no secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.config.issuer_variables import ISSUER_FIELDS
from app.config.providers import VALUES
from app.config.settings import Settings, variable_of
from tests.support.environment import MINIMAL_ENVIRONMENT
from tests.support.tokens import pem

SECRETS = {
    "TELNYX_API_KEY": "CANARY-key",
    "DIALTONE_TAG_KEY": "CANARY-tag",
    "DIALTONE_DATABASE_URL": "postgresql://u:CANARY@db/dialtone",
    "DIALTONE_REDIS_URL": "redis://:CANARY@redis:6379/0",
    "DIALTONE_LOGIN_CACHE_URL": "rediss://:CANARY@redis:6379/0",
    "DIALTONE_LOGIN_CACHE_KEYS": "CANARYCANARYCANARYCANARYCANARYCANARYCANARYC",
    "DIALTONE_EGRESS_PROXY": "http://u:CANARY@proxy:3128",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A shell in an empty directory, with the settings that are required."""
    monkeypatch.chdir(tmp_path)
    for name, value in MINIMAL_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def show(*options: str) -> str:
    shown = CliRunner().invoke(app, ["config", "show", *options])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def shown() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(show("--json"))
    return found


def write_file(text: str) -> None:
    issuer = '[[issuers]]\nissuer = "https://id.example.com"\naudiences = ["phones", "desk"]\n'
    Path("dialtone.toml").write_text(issuer + text)


@pytest.fixture
def file(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The same with a dialtone.toml."""
    environment.delenv("DIALTONE_ISSUER")
    environment.delenv("DIALTONE_AUDIENCE")
    environment.setenv("DIALTONE_CONFIG", "dialtone.toml")
    write_file("")
    return environment


def test_source_of_each_setting_is_shown(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("CANARY")
    Path(".env").write_text("DIALTONE_PORT=8000\nDIALTONE_HOST=::1\n")
    environment.setenv("DIALTONE_HOST", "127.0.0.2")
    environment.delenv("TELNYX_API_KEY")
    environment.setenv("TELNYX_API_KEY_FILE", str(tmp_path / "key"))

    settings = shown()["settings"]

    assert settings["DIALTONE_PORT"] == {"value": 8000, "source": ".env"}
    assert settings["DIALTONE_HOST"] == {"value": ["127.0.0.2"], "source": "environment"}
    assert settings["DIALTONE_DOCS"] == {"value": True, "source": "default"}
    assert settings["TELNYX_API_KEY"] == {"value": "(set)", "source": str(tmp_path / "key")}


def test_text_has_one_line_for_each_setting(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DIALTONE_CORS_ORIGINS", "https://b.example.com,https://a.example.com")
    environment.setenv("DIALTONE_REQUIRED_CLAIMS", '{"tier": "gold"}')

    lines = show().splitlines()

    assert "DIALTONE_PORT=8010  # default" in lines
    assert "DIALTONE_DOCS=true  # default" in lines
    assert "DIALTONE_CORS_ORIGINS=https://a.example.com https://b.example.com  # environment" in lines
    assert "issuers[0].issuer=https://id.example.com  # DIALTONE_ISSUER, environment" in lines
    assert "issuers[0].algorithms=ES256 RS256  # default" in lines
    assert 'issuers[0].required_claims={"tier": "gold"}  # DIALTONE_REQUIRED_CLAIMS, environment' in lines
    assert "DIALTONE_DATABASE_URL=sqlite:///.dialtone/ledger.db  # default" in lines


def test_every_setting_is_shown_once_and_no_value_is_blank(environment: pytest.MonkeyPatch) -> None:
    lines = show().splitlines()

    names = [line.split("=", 1)[0] for line in lines]
    issuer_variables = {variable_of(name) for name in ISSUER_FIELDS} | {
        "DIALTONE_ISSUER_PEM_FILE",
        "DIALTONE_ISSUER_SECRET_FILE",
    }
    assert len(set(names)) == len(names)
    assert {variable_of(name) for name in Settings.model_fields} - issuer_variables <= set(names)
    assert {f"issuers[0].{field}" for field in ISSUER_FIELDS.values() if field not in VALUES} <= set(names)
    assert not [line for line in lines if "=  #" in line]


def test_computed_defaults_are_shown_as_values(file: pytest.MonkeyPatch) -> None:
    found = shown()
    (issuer,) = found["issuers"]

    assert found["settings"]["DIALTONE_AT_DEVICE_LIMIT"] == {
        "value": "browser evict_oldest, ios reject, android reject",
        "source": "default",
    }
    assert found["settings"]["DIALTONE_TAG_KEY"]["value"] == "(derived from TELNYX_API_KEY)"
    assert {name: issuer[name]["value"] for name in ("name", "algorithms", "token_types", "logout_audiences")} == {
        "name": "https://id.example.com",
        "algorithms": ["ES256", "RS256"],
        "token_types": ["at+jwt", "jwt"],
        "logout_audiences": ["desk", "phones"],
    }
    assert issuer["discovery_url"] == {
        "value": "https://id.example.com/.well-known/openid-configuration",
        "source": "default",
    }


def test_values_of_the_file_are_shown_with_their_table(file: pytest.MonkeyPatch) -> None:
    write_file(
        'leeway_seconds = 5\nrequired_claims.tier = { one_of = ["gold"] }\njwks_url = "https://id.example.com/keys"'
    )

    (issuer,) = shown()["issuers"]

    source = "dialtone.toml, issuers[0]"
    assert issuer["audiences"] == {"value": ["desk", "phones"], "source": source}
    assert issuer["leeway_seconds"] == {"value": 5, "source": source}
    assert issuer["required_claims"] == {"value": {"tier": {"one_of": ["gold"]}}, "source": source}
    assert issuer["discovery_url"] == {"value": None, "source": "default"}


@pytest.mark.parametrize("field", ["jwks_url", "discovery_url"])
def test_query_of_a_key_url_is_not_shown(file: pytest.MonkeyPatch, field: str) -> None:
    write_file(f'{field} = "https://id.example.com/keys?key=CANARY"')

    (issuer,) = shown()["issuers"]

    assert issuer[field]["value"] == "https://id.example.com/keys?(set)"


def test_settings_of_a_preset_are_shown_with_its_name(file: pytest.MonkeyPatch) -> None:
    own = 'provider = "auth0"\ndomain = "tenant.eu.auth0.com"\naudiences = ["phones"]\nleeway_seconds = 5\n'
    Path("dialtone.toml").write_text(f"[[issuers]]\n{own}")

    (issuer,) = shown()["issuers"]

    source = "dialtone.toml, issuers[0]"
    assert issuer["issuer"] == {"value": "https://tenant.eu.auth0.com/", "source": "preset auth0"}
    assert issuer["required_claims"]["source"] == "preset auth0"
    assert issuer["domain"] == {"value": "tenant.eu.auth0.com", "source": source}
    assert issuer["leeway_seconds"] == {"value": 5, "source": source}
    assert issuer["subject_claim"] == {"value": "sub", "source": "default"}
    assert "realm" not in issuer


def test_settings_of_a_preset_in_variables_are_shown(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("DIALTONE_ISSUER")
    environment.setenv("DIALTONE_PROVIDER", "auth0")
    environment.setenv("DIALTONE_PROVIDER_DOMAIN", '"tenant.eu.auth0.com"')

    lines = show().splitlines()

    assert "issuers[0].issuer=https://tenant.eu.auth0.com/  # preset auth0" in lines
    assert "issuers[0].domain=tenant.eu.auth0.com  # DIALTONE_PROVIDER_DOMAIN, environment" in lines


def test_keys_of_a_load_balancer_are_shown(file: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/phones/0123456789abcdef"
    write_file(f'header = "x-amzn-oidc-data"\nsigner = "{arn}"\n')

    (issuer,) = shown()["issuers"]

    assert issuer["jwks_url"]["value"] == "https://public-keys.auth.elb.eu-west-1.amazonaws.com"
    assert issuer["algorithms"]["value"] == ["ES256"]


def test_no_secret_is_shown(environment: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        environment.setenv(name, value)
    environment.setenv("DIALTONE_ISSUER_SECRET", "CANARY" * 8)

    found = shown()

    assert {found["settings"][name]["value"] for name in SECRETS} == {"(set)"}
    assert found["issuers"][0]["secret_env"]["value"] == "DIALTONE_ISSUER_SECRET"
    assert "CANARY" not in show() + json.dumps(found)


def test_public_key_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DIALTONE_ISSUER_PEM", pem())

    (issuer,) = shown()["issuers"]

    assert issuer["pem"] == {"value": "(set)", "source": "DIALTONE_ISSUER_PEM, environment"}
