"""Each provider that the sandbox simulates: the printed settings accept one kind of token, and reject all others.

The provider listens on a socket. The verifier is the service's, with the printed settings and keys fetched over HTTP.
"""

import base64
import json
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.adapters.identity.verifier import TokenVerifier
from app.cli import app
from app.composition.issuers import open_verifier
from app.config.providers import PRESETS
from app.sandbox.identity_provider import create_identity_provider
from app.sandbox.provider import DEMO_USERS, SimulatedProvider
from app.sandbox.providers import DEMO, NOT_VERIFIABLE, PROVIDERS, UnknownProvider, simulate
from app.vending.errors import LogoutTokenRejected, TokenRejected
from tests.support.configuration import load_file
from tests.support.http_server import DeferredApp, http_client, serve


@dataclass
class Running:
    """A provider on a socket."""

    simulated: SimulatedProvider
    http: httpx.AsyncClient

    async def token(self, user: str = "alice", **wanted: Any) -> str:
        answer = await self.http.post("/token", json={"user": user, **wanted})
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["access_token"]
        return text

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, path
        return answer.json()


@asynccontextmanager
async def running(name: str) -> AsyncIterator[Running]:
    identity = DeferredApp()
    async with serve(identity) as base, http_client(base) as http:
        identity.app = create_identity_provider(base, provider=name)
        yield Running(simulate(name, base), http)


@asynccontextmanager
async def verifier(provider: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[TokenVerifier]:
    """The service's verifier with the printed settings."""
    settings = load_file(monkeypatch, tmp_path, provider.simulated.block(), **provider.simulated.variables)
    async with open_verifier(settings) as opened:
        yield opened


async def is_accepted(by: TokenVerifier, token: str, header: str | None) -> bool:
    try:
        await by.verify(token, None if header is None else header.lower())
    except TokenRejected:
        return False
    return True


def header(token: str) -> dict[str, Any]:
    return _part(token, 0)


def payload(token: str) -> dict[str, Any]:
    return _part(token, 1)


def _part(token: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[number] + "=="))
    return found


@pytest.mark.parametrize("name", PROVIDERS)
async def test_printed_settings_accept_the_right_kind_and_reject_all_others(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with running(name) as provider, verifier(provider, monkeypatch, tmp_path) as checked:
        tokens = {kind: await provider.token(kind=kind) for kind in provider.simulated.kinds}
        accepted = {
            kind
            for kind, token in tokens.items()
            if await is_accepted(checked, token, provider.simulated.provider.header)
        }

    assert accepted == {provider.simulated.accepted_kind}


@pytest.mark.parametrize("name", PROVIDERS)
def test_tokens_of_demo_users_differ(name: str) -> None:
    simulated = simulate(name, "http://127.0.0.1:1")
    of_users = [
        simulated.claims(user, simulated.accepted_kind, now=0, ttl_seconds=60, session="s") for user in DEMO_USERS
    ]
    first, second, third = [{**claims, "jti": "j"} for claims in of_users]

    assert first != second != third != first


@pytest.mark.parametrize("kind", ["access", "id", "refresh", "machine", "other-client", "other-tenant"])
@pytest.mark.parametrize("name", ["auth0", "entra", "okta", "cognito", "keycloak"])
async def test_common_providers_issue_each_kind(name: str, kind: str) -> None:
    assert kind in simulate(name, "http://127.0.0.1:1").kinds


def test_every_preset_is_played() -> None:
    assert PRESETS.keys() <= PROVIDERS.keys()


@pytest.mark.parametrize("name", PROVIDERS)
def test_printed_settings_are_toml(name: str) -> None:
    simulated = simulate(name, "http://127.0.0.1:8012")

    assert tomllib.loads(simulated.block()) == {"issuers": [simulated.settings()]}


# -- what is particular to a provider ---------------------------------------------------------------------------------


async def test_keys_of_entra_have_an_issuer_and_no_algorithm() -> None:
    async with running("entra-multitenant") as provider:
        document = await provider.get("/common/v2.0/.well-known/openid-configuration")
        [key] = (await provider.get("/common/discovery/v2.0/keys"))["keys"]

    assert document["issuer"].endswith("/{tenantid}/v2.0")
    assert key["issuer"] == document["issuer"]
    assert "alg" not in key


async def test_firebase_publishes_certificates_by_kid() -> None:
    async with running("firebase") as provider:
        certificates = await provider.get("/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com")
        token = await provider.token()

    assert certificates[header(token)["kid"]].startswith("-----BEGIN CERTIFICATE-----")


async def test_load_balancer_publishes_each_key_at_its_own_url() -> None:
    async with running("aws-alb") as provider:
        token = await provider.token()
        found = await provider.http.get(f"/{header(token)['kid']}")
        missing = await provider.http.get("/11111111-1111-1111-1111-111111111111")

    assert "=" in token
    assert found.text.startswith("-----BEGIN PUBLIC KEY-----")
    assert missing.status_code == 403


async def test_access_tokens_of_cognito_have_no_audience() -> None:
    async with running("cognito") as provider:
        claims = payload(await provider.token())

    assert "aud" not in claims
    assert claims["iss"].endswith("/eu-west-1_EXAMPLE")


async def test_discovery_document_names_the_issuer_of_the_tokens() -> None:
    async with running("auth0") as provider:
        document = await provider.get("/.well-known/openid-configuration")
        claims = payload(await provider.token())

    assert document["issuer"] == claims["iss"]
    assert claims["iss"].endswith("/")


@pytest.mark.parametrize(
    ("name", "claim", "expected"),
    [("okta", "scp", ["a", "b"]), ("entra", "scp", "a b"), ("duende", "scope", ["a", "b"]), (DEMO, "scope", "a b")],
)
async def test_requested_scope_has_the_provider_s_form(name: str, claim: str, expected: Any) -> None:
    async with running(name) as provider:
        assert payload(await provider.token(scope="a b"))[claim] == expected


async def test_token_of_the_previous_key_stays_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with running("okta") as provider, verifier(provider, monkeypatch, tmp_path) as checked:
        before = await provider.token()
        await provider.http.post("/rotate")

        assert await is_accepted(checked, await provider.token(), None)
        assert await is_accepted(checked, before, None)


@pytest.mark.parametrize("name", [DEMO, "keycloak", "hydra", "logto", "duende"])
async def test_logout_token_ends_the_session_of_the_access_token(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with running(name) as provider, verifier(provider, monkeypatch, tmp_path) as checked:
        principal = await checked.verify(await provider.token())
        try:
            logout = await checked.verify_logout(await provider.token(kind="logout"))
        except LogoutTokenRejected as refusal:
            pytest.fail(refusal.reason)

    assert logout.subject == principal.subject
    assert principal.session in (None, logout.session)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"user": "mallory"}, {"error": "invalid_grant", "demo_users": list(DEMO_USERS)}),
        ({}, {"error": "invalid_request"}),
        ({"user": "alice", "ttl_seconds": "soon"}, {"error": "invalid_request"}),
        ([], {"error": "invalid_request"}),
    ],
)
async def test_invalid_token_request_is_explained(wanted: Any, error: dict[str, Any]) -> None:
    async with running(DEMO) as provider:
        answer = await provider.http.post("/token", json=wanted)

    assert (answer.status_code, answer.json()) == (400, error)


async def test_unknown_kind_lists_the_kinds_of_the_provider() -> None:
    async with running("google") as provider:
        answer = await provider.http.post("/token", json={"user": "alice", "kind": "machine"})

    assert answer.status_code == 400
    assert answer.json()["kinds"] == provider.simulated.kinds


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cognitoo", "Did you mean cognito"),
        ("azure", "Did you mean entra-b2c"),
        ("entraid", "Did you mean entra"),
        ("django", "Did you mean simplejwt?"),
        ("Auth0", "Did you mean auth0?"),
        ("okta-org", "Use a custom authorization server"),
        ("", "--list prints all"),
    ],
)
def test_unknown_provider_is_reported_with_near_names(name: str, hint: str) -> None:
    with pytest.raises(UnknownProvider, match=re.escape(hint)):
        simulate(name, "http://127.0.0.1:8012")


def test_command_lists_the_providers() -> None:
    listed = CliRunner().invoke(app, ["sandbox", "identity", "--list"])

    assert {line.split()[0] for line in listed.stdout.splitlines()} == PROVIDERS.keys() | NOT_VERIFIABLE.keys()


def test_command_reports_an_unknown_provider() -> None:
    ended = CliRunner().invoke(app, ["sandbox", "identity", "--provider", "cognitoo"])

    assert ended.exit_code == 2
    assert "Did you mean cognito" in ended.output
