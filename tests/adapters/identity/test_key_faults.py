"""Faults of key sets and discovery documents: each has a reason and one fix, in `dialtone doctor` and in the log."""

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from app.adapters.addresses import is_safe_url
from app.adapters.http_client import HttpClient, HttpResponse
from app.adapters.identity.key_faults import (
    DISCOVERY_DOCUMENT,
    KEY_SET,
    MAX_SHOWN_LENGTH,
    FetchFailed,
    body_fault,
    jwks_uri_of,
    keys_fault,
    shown_text,
    shown_url,
    status_fault,
)
from app.adapters.identity.key_sets import MAX_DOCUMENT_BYTES, KeySetLocation
from app.adapters.identity.keys import KeySet
from tests.support.key_server import fetch_fault
from tests.support.raw_server import http_response, raw_server
from tests.support.tokens import pem, rsa_key
from tests.support.verification import ALGORITHMS, JSON

KEYS = {"keys": [rsa_key().as_dict(private=False)]}
ISSUER = "https://id.example.com"


async def fault_of_answer(answer: bytes, *, discovered: bool = False) -> tuple[str, str]:
    """The fault of a key set, or of a discovery document, which is this answer. `PORT` in a reason is the server's."""
    async with HttpClient("dialtone/test") as client, raw_server(answer) as port:
        url = f"http://127.0.0.1:{port}/provider?api_key=CANARY"
        source: dict[str, Any] = {"discovery_url": url} if discovered else {"jwks_url": url}
        reason, fix = await fetch_fault(KeySetLocation(ISSUER, ALGORITHMS, **source), client)
    assert "CANARY" not in reason + fix
    return reason.replace(str(port), "PORT"), fix


# -- responses ------------------------------------------------------------------------------------------------------

AT = "the key set at http://127.0.0.1:PORT/provider"
REQUEST = "the request for the key set at http://127.0.0.1:PORT/provider returned status"
GZIP = b"\x1f\x8b\x08\x00"

ANSWERS: dict[str, tuple[bytes, str, str]] = {
    "404": (http_response(b"", status="404 Not Found"), f"{REQUEST} 404", "set `jwks_url`"),
    "401": (http_response(b"", status="401 Unauthorized"), f"{REQUEST} 401", "without credentials"),
    "403": (http_response(b"", status="403 Forbidden"), f"{REQUEST} 403", "without credentials"),
    "407": (http_response(b"", status="407 Proxy"), f"{REQUEST} 407", "DIALTONE_EGRESS_PROXY"),
    "429": (http_response(b"", status="429 Slow down"), f"{REQUEST} 429", "wait"),
    "503": (http_response(b"", status="503 Unavailable"), f"{REQUEST} 503", "wait until"),
    "204": (http_response(b"", status="204 No Content"), f"{REQUEST} 204", "check that the URL"),
    "redirect": (
        http_response(b"", "Location: https://u:CANARY@new.example.com/keys?CANARY", status="302 Found"),
        f"{REQUEST} 302, a redirect to https://new.example.com; redirects are not followed",
        "set `jwks_url` to the URL to which it redirects",
    ),
    "redirect to a path": (
        http_response(b"", "Location: /CANARY", status="308 Moved"),
        f"{REQUEST} 308, a redirect to another path of the same host; redirects are not followed",
        "set `jwks_url`",
    ),
    "redirect to nothing": (http_response(b"", status="301 Moved"), f"{REQUEST} 301, a redirect to no URL", ""),
    "redirect to an invalid URL": (
        http_response(b"", "Location: https://[CANARY", status="301 Moved"),
        f"{REQUEST} 301, a redirect to an invalid URL",
        "",
    ),
    "HTML": (http_response(b"\n <!doctype html>CANARY"), f"{AT} is an HTML page instead of JSON", "login page"),
    "XML": (http_response(b"<?xml version='1.0'?><CANARY/>"), f"{AT} is XML instead of JSON", "set `jwks_url`"),
    "PEM": (http_response(pem().encode()), f"{AT} is a PEM text instead of JSON", "set `pem`"),
    "empty": (http_response(b""), f"{AT} is empty", "set `jwks_url`"),
    "invalid JSON": (http_response(b'{"keys": CANARY'), f"{AT} is not valid JSON", "set `jwks_url`"),
    "deep JSON": (http_response(b"[" * 100_000), f"{AT} is not valid JSON", ""),
    "list": (http_response(b'["CANARY"]'), f"{AT} is not a JSON object", "set `jwks_url`"),
    "gzip": (
        http_response(GZIP, "Content-Encoding: gzip"),
        "no complete response from http://127.0.0.1:PORT: the response is compressed",
        "turn off compression",
    ),
    "gzip without a header": (
        http_response(GZIP),
        f"{AT} is compressed, without a Content-Encoding header",
        "turn off",
    ),
    "too large": (
        http_response(b" " * (MAX_DOCUMENT_BYTES + 1)),
        "no complete response from http://127.0.0.1:PORT: the response is too large",
        "check that the URL",
    ),
    "cut": (
        http_response(b"{}")[:-1],
        "no complete response from http://127.0.0.1:PORT: the connection was closed early",
        "check the server's log",
    ),
    "closed": (
        b"",
        "no complete response from http://127.0.0.1:PORT: the connection was closed early",
        "check the server's log",
    ),
    "not HTTP": (
        b"220 mail.example.com CANARY\r\n\r\n",
        "no complete response from http://127.0.0.1:PORT: the response is not valid HTTP",
        "right scheme and port",
    ),
    "discovery document": (
        http_response(json.dumps({"issuer": ISSUER, "jwks_uri": ISSUER}).encode()),
        "the key set is a discovery document",
        "set `discovery_url` to its URL instead of `jwks_url`",
    ),
    "another object": (http_response(b'{"CANARY": 1}'), "the key set is not a JWK set", "set `jwks_url`"),
    "no keys": (http_response(b'{"keys": []}'), "the key set is empty", "private key"),
}


@pytest.mark.parametrize(("answer", "reason", "fix"), ANSWERS.values(), ids=ANSWERS)
async def test_fault_of_a_response_is_named(answer: bytes, reason: str, fix: str) -> None:
    found, suggested = await fault_of_answer(answer)

    assert found.startswith(reason)
    assert fix in suggested


KEY_SETS: dict[str, tuple[list[Any], str, str]] = {
    "other algorithms": (
        [{"kty": "RSA", "alg": "PS256", "kid": "CANARY"}, {"kty": "EC", "crv": "P-256", "alg": "ES256K"}],
        "the key set has no key for the allowed algorithms ES256, RS256; it has keys for PS256",
        "add the algorithm to `algorithms`",
    ),
    "another curve": (
        [ECKey.generate_key("P-384", private=False).as_dict()],
        "the key set has no key for the allowed algorithms ES256, RS256; it has keys for ES384",
        "add the algorithm to `algorithms`",
    ),
    "allowed algorithm of another type of key": (
        [rsa_key().as_dict(private=False) | {"alg": "ES256"}],
        "the key set has no key for the allowed algorithms ES256, RS256",
        "for signatures",
    ),
    "other key operations": (
        [rsa_key().as_dict(private=False) | {"alg": "PS256", "key_ops": ["encrypt"]}],
        "the key set has no key for the allowed algorithms ES256, RS256",
        "for signatures",
    ),
    "key for key agreement": (
        [{"kty": "OKP", "crv": "X25519", "x": "A" * 43}],
        "the key set has no key for the allowed algorithms ES256, RS256",
        "for signatures",
    ),
    "only for encryption": (
        [rsa_key().as_dict(private=False) | {"use": "enc"}],
        "the key set has no key for the allowed algorithms ES256, RS256",
        "for signatures",
    ),
    "weak": (
        [{"kid": "old\u202e", "kty": "RSA", "n": "AQAB", "e": "AQAB"}],
        "the key set has no usable key; old\\u202e: an RSA key of 17 bits",
        "ask the operator",
    ),
}


@pytest.mark.parametrize(("keys", "reason", "fix"), KEY_SETS.values(), ids=KEY_SETS)
async def test_key_set_without_a_usable_key_is_explained(keys: list[Any], reason: str, fix: str) -> None:
    async with (
        HttpClient("dialtone/test") as client,
        raw_server(http_response(json.dumps({"keys": keys}).encode())) as port,
    ):
        location = KeySetLocation(ISSUER, frozenset({"RS256", "ES256"}), jwks_url=f"http://127.0.0.1:{port}/keys")
        found, suggested = await fetch_fault(location, client)

    assert found.startswith(reason)
    assert fix in suggested


# -- discovery ------------------------------------------------------------------------------------------------------

NAMES = "the discovery document names the issuer"
DOCUMENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "another issuer": (
        {"issuer": "https://other.example.com"},
        f"{NAMES} https://other.example.com instead of {ISSUER}",
        "if tokens have the `iss` https://other.example.com, set `issuer` to it",
    ),
    "missing slash": (
        {"issuer": f"{ISSUER}/"},
        f"{NAMES} {ISSUER}/ instead of {ISSUER}",
        f"set `issuer` to {ISSUER}/, with a slash at its end",
    ),
    "http behind a proxy": (
        {"issuer": "http://id.example.com"},
        f"{NAMES} http://id.example.com instead of {ISSUER}",
        "correct the provider's public URL",
    ),
    "no issuer": ({"jwks_uri": ISSUER}, "the discovery document names no issuer", "set `discovery_url`"),
    "key set": (KEYS, "the discovery document is a key set", "set `jwks_url` to its URL instead of `discovery_url`"),
    "text that is no issuer": (
        {"issuer": "x\n\x1b[31m\u202e" + "y" * 10_000},
        f"{NAMES} x\\n\\x1b[31m\\u202eyyy",
        "set `issuer`",
    ),
    "no jwks_uri": ({"issuer": ISSUER}, "the discovery document has no jwks_uri", "set `jwks_url`"),
    "http jwks_uri": (
        {"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys?CANARY"},
        "the jwks_uri of the discovery document is plain http: http://id.example.com/keys",
        "correct the provider's public URL",
    ),
    "private http jwks_uri": (
        {"issuer": ISSUER, "jwks_uri": "http://keycloak:8080/keys"},
        "the jwks_uri of the discovery document is plain http: http://keycloak:8080/keys",
        "set `allow_http`",
    ),
    "jwks_uri of another scheme": (
        {"issuer": ISSUER, "jwks_uri": "file:///etc/keys"},
        "the jwks_uri of the discovery document is not an https URL: file:///etc/keys",
        "set `jwks_url`",
    ),
    "jwks_uri with a password": (
        {"issuer": ISSUER, "jwks_uri": "https://u:CANARY@id.example.com/keys"},
        "the jwks_uri of the discovery document is not an https URL: https://id.example.com/keys",
        "set `jwks_url`",
    ),
    "jwks_uri that is no text": (
        {"issuer": ISSUER, "jwks_uri": [5]},
        "the jwks_uri of the discovery document is not an https URL: [5]",
        "set `jwks_url`",
    ),
}


@pytest.mark.parametrize(("document", "reason", "fix"), DOCUMENTS.values(), ids=DOCUMENTS)
async def test_fault_of_a_discovery_document_is_named(document: dict[str, Any], reason: str, fix: str) -> None:
    found, suggested = await fault_of_answer(http_response(json.dumps(document).encode()), discovered=True)

    assert found.startswith(reason)
    assert fix in suggested
    assert len(found) < 1000


async def test_superfluous_slash_is_named() -> None:
    answer = http_response(json.dumps({"issuer": ISSUER}).encode())
    async with HttpClient("dialtone/test") as client, raw_server(answer) as port:
        location = KeySetLocation(f"{ISSUER}/", ALGORITHMS, discovery_url=f"http://127.0.0.1:{port}/")
        _, fix = await fetch_fault(location, client)

    assert fix == f"set `issuer` to {ISSUER}, without a slash at its end"


async def test_missing_discovery_document_is_named_with_its_url() -> None:
    async with HttpClient("dialtone/test") as client, raw_server(http_response(b"", status="404 Not Found")) as port:
        location = KeySetLocation(f"http://127.0.0.1:{port}/realms/staff", ALGORITHMS)
        reason, fix = await fetch_fault(location, client)

    url = f"http://127.0.0.1:{port}/realms/staff/.well-known/openid-configuration"
    assert reason == f"the request for the discovery document at {url} returned status 404"
    assert fix == "correct the issuer, or set `discovery_url` to its discovery document or `jwks_url` to its key set"


# -- texts of the provider ------------------------------------------------------------------------------------------


MEMBERS = st.sampled_from(["issuer", "jwks_uri", "keys", "kty", "alg", "crv", "use", "kid", "x5c"])
DOCUMENT = st.dictionaries(MEMBERS | st.text(max_size=5), JSON | st.lists(st.dictionaries(MEMBERS, JSON), max_size=3))


@given(document=DOCUMENT, jwks_uri=st.text() | st.none())
def test_no_document_breaks_the_report(document: dict[str, Any], jwks_uri: str | None) -> None:
    with pytest.raises(FetchFailed) as discovery:
        jwks_uri_of(document, ISSUER, allows_http=True)
    with suppress(FetchFailed):
        assert is_safe_url(jwks_uri_of({"issuer": ISSUER, "jwks_uri": jwks_uri}, ISSUER, allows_http=False))
    key_set = keys_fault(document, KeySet(()), ALGORITHMS)

    for failure in (discovery.value, key_set):
        assert f"{failure}{failure.fix}".isprintable()
        assert len(str(failure)) < 1000


@given(body=st.binary(max_size=50), location=st.text(max_size=50))
def test_no_response_breaks_the_report(body: bytes, location: str) -> None:
    for what in (KEY_SET, DISCOVERY_DOCUMENT):
        headers = httpx.Headers({b"location": location.encode("utf-8", "replace")})
        redirected = status_fault(HttpResponse(302, headers, body), "https://id.example.com/keys", what)

        assert str(body_fault(body, "https://id.example.com/keys", what)).isprintable()
        assert str(redirected).isprintable()
        assert len(str(redirected)) < 1000


def test_providers_text_is_escaped_and_shortened() -> None:
    assert shown_text("a\n\x1b[31m\u202e\ud800é") == "a\\n\\x1b[31m\\u202e\\ud800\\xe9"
    assert len(shown_text("\U0001f600" * 10_000)) == MAX_SHOWN_LENGTH + 3


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@id.example.com:8443/a?b=c#d", "https://id.example.com:8443/a"),
        ("https://[::1", "an invalid URL"),
        ("https://id.example.com/\n", "https://id.example.com/"),
        ("", ""),
    ],
)
def test_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
