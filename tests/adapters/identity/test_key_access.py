"""Where keys are fetched from: a discovery address, a private CA, plain http to private hosts, an egress proxy."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.adapters.http_client import ConnectFailed, HttpClient, HttpClients, ResponseFailed
from app.adapters.identity.key_sets import KeySetLocation, RemoteKeySource
from app.vending.errors import IdentityUnavailable, TelnyxUnreachable
from tests.support.certificates import OTHER_NAME, certificate_authority
from tests.support.http_proxy import HttpProxy, http_proxy
from tests.support.http_server import serve
from tests.support.key_server import KeyServer
from tests.support.raw_server import http_response, raw_server
from tests.support.sandbox import Telnyx
from tests.support.service import running_components
from tests.support.tokens import ISSUER, rsa_key
from tests.support.verification import ALGORITHMS

LOCATION = KeySetLocation(ISSUER, ALGORITHMS)
KEYS = {"keys": [rsa_key().as_dict(private=False)]}


async def outcome(location: KeySetLocation, client: HttpClient) -> int | str | None:
    """The number of keys, or why they could not be fetched."""
    source = RemoteKeySource(location, client, lambda: 1000.0)
    try:
        return len(await source.current())
    except IdentityUnavailable:
        return source.status(ISSUER).last_failure


def provider(**document: Any) -> Starlette:
    """An identity provider whose discovery document is at an unusual place."""

    def discovery(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        return JSONResponse({"issuer": ISSUER, "jwks_uri": f"{base}/keys"} | document)

    return Starlette(routes=[Route("/internal/configuration", discovery), Route("/keys", lambda _: JSONResponse(KEYS))])


# -- discovery apart from the issuer --------------------------------------------------------------------------------


async def test_keys_are_discovered_at_the_configured_address() -> None:
    async with HttpClient("dialtone/test") as client, serve(provider()) as url:
        assert await outcome(replace(LOCATION, discovery_url=f"{url}/internal/configuration"), client) == 1


@pytest.mark.parametrize("issuer", ["https://other.example.com", f"{ISSUER}/", None, [ISSUER]], ids=str)
async def test_discovery_document_must_name_the_issuer_whatever_its_address(issuer: Any) -> None:
    async with HttpClient("dialtone/test") as client, serve(provider(issuer=issuer)) as url:
        reason = await outcome(replace(LOCATION, discovery_url=f"{url}/internal/configuration"), client)

    assert str(reason).startswith(
        ("the discovery document names the issuer ", "the discovery document names no issuer")
    )


@pytest.mark.parametrize(
    "jwks_uri", ["http://id.example.com/keys", "http://10.0.0.1/keys", "http://keycloak/keys", "file:///keys", 5, None]
)
async def test_discovered_key_set_must_be_https(jwks_uri: Any) -> None:
    async with HttpClient("dialtone/test") as client, serve(provider(jwks_uri=jwks_uri)) as url:
        reason = await outcome(replace(LOCATION, discovery_url=f"{url}/internal/configuration"), client)

    assert "jwks_uri" in str(reason)


async def test_wrong_discovery_address_is_reported_with_its_status() -> None:
    async with HttpClient("dialtone/test") as client, serve(provider()) as url:
        reason = await outcome(replace(LOCATION, discovery_url=f"{url}/realms"), client)

    assert reason == f"the request for the discovery document at {url}/realms returned status 404"


# -- plain http -----------------------------------------------------------------------------------------------------


async def test_key_set_at_a_private_host_is_fetched_over_http_only_if_that_is_allowed() -> None:
    async with serve(provider()) as url, http_proxy() as proxy:
        port = int(url.rsplit(":", 1)[1])
        proxy.resolves = {"keycloak": ("127.0.0.1", port), "keycloak.auth.svc": ("127.0.0.1", port)}
        async with HttpClient("dialtone/test", proxy_url=proxy.url) as client:
            location = replace(LOCATION, discovery_url=f"{url}/internal/configuration")
            for_http = replace(location, allows_http=True, discovery_url="http://keycloak/internal/configuration")

            assert await outcome(for_http, client) == 1
            assert "is plain http" in str(await outcome(replace(for_http, allows_http=False), client))


# -- a private CA ---------------------------------------------------------------------------------------------------


async def test_certificate_of_a_private_ca_is_trusted_only_with_its_ca_file() -> None:
    answer = http_response(json.dumps(KEYS).encode())
    async with HttpClients("dialtone/test") as clients, raw_server(answer, certificate_authority()) as port:
        location = replace(LOCATION, jwks_url=f"https://localhost:{port}/keys")

        assert await outcome(location, clients.get(certificate_authority().pem)) == 1
        for client in (clients.get(), clients.get(certificate_authority("another").pem)):
            assert str(await outcome(location, client)).endswith(": the TLS certificate is not trusted")


async def test_ca_file_does_not_trust_a_certificate_of_another_host() -> None:
    authority = certificate_authority(host="other.example.com")
    async with HttpClients("dialtone/test") as clients, raw_server(b"", authority) as port:
        reason = await outcome(replace(LOCATION, jwks_url=f"https://localhost:{port}/"), clients.get(authority.pem))

    assert str(reason).endswith(": the TLS certificate is for another host name")


async def test_issuers_with_equal_settings_share_a_client() -> None:
    async with HttpClients("dialtone/test", "http://proxy:3128") as clients:
        assert clients.get() is clients.get(None, uses_proxy=True)
        assert clients.get() is not clients.get(uses_proxy=False)
    async with HttpClients("dialtone/test") as clients:
        assert clients.get() is clients.get(uses_proxy=False)


# -- an egress proxy ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_proxy(credentials: str | None = None) -> AsyncIterator[tuple[HttpProxy, HttpClients]]:
    """A proxy, behind which `id.example.com` has a key set over https."""
    answer = http_response(json.dumps(KEYS).encode())
    async with raw_server(answer, certificate_authority()) as port, http_proxy(credentials) as proxy:
        proxy.resolves = {f"{OTHER_NAME}:443": ("127.0.0.1", port)}
        async with HttpClients("dialtone/test", proxy.url) as clients:
            yield proxy, clients


async def test_proxy_gets_a_tunnel_for_https_and_does_not_see_the_request() -> None:
    async with behind_proxy("user:secret") as (proxy, clients):
        client = clients.get(certificate_authority().pem)
        reason = await outcome(replace(LOCATION, jwks_url=f"https://{OTHER_NAME}/keys"), client)

    assert proxy.targets == [f"CONNECT {OTHER_NAME}:443"]
    assert reason == 1


async def test_unknown_name_of_the_proxy_is_not_reported_as_the_issuers() -> None:
    location = replace(LOCATION, jwks_url="https://id.example.com/keys")
    async with HttpClients("dialtone/test", "http://proxy.invalid:3128") as clients:
        reason = await outcome(location, clients.get())

    assert str(reason).endswith(": the host name of the egress proxy cannot be resolved")


async def test_proxy_that_rejects_the_password_is_reported_without_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with behind_proxy("user:right") as (proxy, _), HttpClients("dialtone/test", proxy.url) as clients:
        proxy.credentials = "user:changed"
        client = clients.get()
        reason = await outcome(replace(LOCATION, jwks_url="https://id.example.com/keys"), client)
        with pytest.raises(ConnectFailed) as failure:
            await client.send("GET", "https://id.example.com/", deadline_seconds=30, max_bytes=100)

    assert str(reason).endswith(": the egress proxy rejects the user or the password")
    assert "right" not in f"{failure.value!r} {failure.value.__cause__!r} {caplog.text}"


async def test_unreachable_proxy_means_that_nothing_was_sent() -> None:
    async with HttpClient("dialtone/test", proxy_url="http://user:CANARY@127.0.0.1:1") as client:
        with pytest.raises(ConnectFailed, match="egress proxy") as failure:
            await client.send("POST", "https://api.telnyx.com/v2", deadline_seconds=30, max_bytes=100)

    assert "CANARY" not in repr(failure.value)


async def test_proxy_is_not_used_for_this_machine_or_for_an_issuer_without_it() -> None:
    provider = KeyServer()
    async with http_proxy() as proxy, serve(provider.app()) as url, HttpClients("dialtone/test", proxy.url) as clients:
        assert await outcome(replace(LOCATION, jwks_url=f"{url}/jwks"), clients.get()) == 1
        direct = clients.get(uses_proxy=False)
        with pytest.raises((ConnectFailed, ResponseFailed)):
            await direct.send("GET", "http://keycloak.invalid/", deadline_seconds=30, max_bytes=100)

    assert proxy.targets == []


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_proxy() as proxy:
        for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with HttpClients("dialtone/test") as clients:
            with pytest.raises((ConnectFailed, ResponseFailed)):
                await clients.get().send("GET", "http://keycloak.invalid/", deadline_seconds=30, max_bytes=100)

    assert proxy.targets == []


async def test_service_sends_calls_to_telnyx_and_to_issuers_through_the_proxy(telnyx: Telnyx, sqlite: str) -> None:
    async with http_proxy("user:secret") as proxy:
        settings: dict[str, Any] = {
            "telnyx_base_url": "https://api.telnyx.test/v2",
            "issuer_pem": ...,
            "jwks_url": "https://id.test/keys",
            "egress_proxy": proxy.url,
        }
        proxy.credentials = "user:changed"
        async with running_components(telnyx, sqlite, **settings) as components:
            with pytest.raises(TelnyxUnreachable):
                await components.telnyx.check()
            assert await components.identity.verifier.missing_keys() == [ISSUER]

    assert set(proxy.targets) == {"CONNECT api.telnyx.test:443", "CONNECT id.test:443"}
