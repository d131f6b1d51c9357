"""Connections to a key source that fail: each has a reason and one fix, in `dialtone doctor` and in the log."""

from dataclasses import replace
from typing import Any

import pytest

from app.adapters.http_client import HttpClient, HttpClients
from app.adapters.identity.key_sets import FETCH_SECONDS, KeySetLocation
from tests.support.certificates import OTHER_NAME, certificate_authority
from tests.support.http_proxy import http_proxy
from tests.support.http_server import free_port, serve
from tests.support.key_server import KeyServer, fetch_fault
from tests.support.raw_server import http_response, raw_server
from tests.support.verification import ALGORITHMS

ISSUER = "https://id.example.com"


async def test_unreachable_port_is_named() -> None:
    port = free_port()
    async with HttpClient("dialtone/test") as client:
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, f"http://localhost:{port}/keys"), client)

    assert reason == f"no connection to http://localhost:{port}: the host refuses connections to this port"
    assert fix == "check the host and the port, and that the server is running"


async def test_unknown_host_is_named() -> None:
    async with HttpClient("dialtone/test") as client:
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, "https://id.invalid/keys"), client)

    assert reason == "no connection to https://id.invalid: the host name cannot be resolved"
    assert "spelling" in fix


async def test_server_that_does_not_respond_is_named() -> None:
    async with HttpClient("dialtone/test") as client, raw_server(None) as port:
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, f"http://127.0.0.1:{port}/keys"), client)

    assert reason == f"no complete response from http://127.0.0.1:{port}: the deadline has passed"
    assert FETCH_SECONDS == 3.0
    assert "overloaded" in fix


async def test_port_that_does_not_respond_to_tls_is_named() -> None:
    async with HttpClient("dialtone/test") as client, raw_server(None) as port:
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, f"https://localhost:{port}/"), client)

    assert reason == f"no connection to https://localhost:{port}: the host did not respond within 2 seconds"
    assert "if a proxy is required, set DIALTONE_EGRESS_PROXY" in fix


CERTIFICATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "expired": ({"days": (-2, -1)}, "the TLS certificate has expired", "renew"),
    "not yet valid": ({"days": (1, 2)}, "the TLS certificate is not valid yet", "clock"),
    "another host": ({"host": "other.example.com"}, "the TLS certificate is for another host name", "host name"),
}


@pytest.mark.parametrize(("options", "reason", "fix"), CERTIFICATES.values(), ids=CERTIFICATES)
async def test_fault_of_a_certificate_is_named(options: dict[str, Any], reason: str, fix: str) -> None:
    authority = certificate_authority("private", **options)
    async with HttpClients("dialtone/test") as clients, raw_server(http_response(b"{}"), authority) as port:
        location = KeySetLocation(ISSUER, ALGORITHMS, f"https://localhost:{port}/keys", ca_pem=authority.pem)
        found, suggested = await fetch_fault(location, clients.get(authority.pem))

    assert found == f"no connection to https://localhost:{port}: {reason}"
    assert fix in suggested


async def test_certificate_of_a_private_ca_names_ca_file() -> None:
    authority, another = certificate_authority(), certificate_authority("another")
    async with HttpClients("dialtone/test") as clients, raw_server(http_response(b"{}"), authority) as port:
        location = KeySetLocation(ISSUER, ALGORITHMS, f"https://localhost:{port}/keys")
        without = await fetch_fault(location, clients.get())
        wrong = await fetch_fault(replace(location, ca_pem=another.pem), clients.get(another.pem))

    assert without[0] == wrong[0] == f"no connection to https://localhost:{port}: the TLS certificate is not trusted"
    assert "set `ca_file` to the CA's certificates" in without[1]
    assert "add the CA of the server's certificate to `ca_file`" in wrong[1]


async def test_self_signed_certificate_is_named() -> None:
    authority = certificate_authority("own", is_self_signed=True)
    async with HttpClients("dialtone/test") as clients, raw_server(http_response(b"{}"), authority) as port:
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, f"https://localhost:{port}/"), clients.get())

    assert reason.endswith(": the TLS certificate is self-signed")
    assert "set `ca_file` to a file with this certificate" in fix


async def test_port_without_tls_is_named() -> None:
    async with HttpClient("dialtone/test") as client, serve(KeyServer().app()) as url:
        port = url.rpartition(":")[2]
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, f"https://localhost:{port}/"), client)

    assert reason == f"no connection to https://localhost:{port}: the TLS handshake failed"
    assert "offers https on this port" in fix


# -- the egress proxy -----------------------------------------------------------------------------------------------

BEHIND = KeySetLocation(ISSUER, ALGORITHMS, f"https://{OTHER_NAME}/keys")


async def test_proxy_that_rejects_the_password_is_named() -> None:
    async with http_proxy("user:CANARY") as proxy, HttpClients("dialtone/test", proxy.url) as clients:
        proxy.credentials = "user:changed"
        reason, fix = await fetch_fault(BEHIND, clients.get())

    assert reason == f"no connection to https://{OTHER_NAME}: the egress proxy rejects the user or the password"
    assert fix == "correct the user and the password in DIALTONE_EGRESS_PROXY"


async def test_proxy_that_rejects_the_host_is_named() -> None:
    answer = http_response(b"CANARY", status="403 Forbidden")
    async with raw_server(answer) as port, HttpClients("dialtone/test", f"http://127.0.0.1:{port}") as clients:
        reason, fix = await fetch_fault(BEHIND, clients.get())

    assert reason == f"no connection to https://{OTHER_NAME}: the egress proxy rejects the connection"
    assert "allow connections to this host on the proxy" in fix


async def test_unreachable_proxy_is_named_without_its_password() -> None:
    url = f"http://user:CANARY@127.0.0.1:{free_port()}"
    async with HttpClients("dialtone/test", url) as clients:
        reason, fix = await fetch_fault(BEHIND, clients.get())

    assert reason == f"no connection to https://{OTHER_NAME}: the egress proxy is unreachable"
    assert "CANARY" not in reason + fix


async def test_untrusted_certificate_of_the_proxy_is_not_reported_as_the_providers() -> None:
    async with (
        raw_server(b"", certificate_authority()) as port,
        HttpClients("dialtone/test", f"https://localhost:{port}") as clients,
    ):
        reason, _ = await fetch_fault(BEHIND, clients.get())

    assert reason.endswith(": the TLS certificate of the egress proxy is not trusted")
