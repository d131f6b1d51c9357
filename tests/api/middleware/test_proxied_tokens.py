"""Tokens in a header that a proxy adds: one issuer's tokens, only in its header, only from allowed origins."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import AUDIENCE, ISSUER, ec_key, pem, rsa_key, token

PATH = "/v1/telephony-credentials"
ACCESS, IAP = "https://team.cloudflareaccess.com", "https://cloud.google.com/iap"
ACCESS_HEADER, IAP_HEADER = "Cf-Access-Jwt-Assertion", "x-goog-iap-jwt-assertion"
LISTED = {"Origin": "https://app.example.com"}


def pem_of(name: str) -> str:
    return rsa_key(name).as_pem(private=False).decode()


def access_token(user: str = "alice", **changes: Any) -> str:
    return token(user, key=rsa_key("access"), **({"iss": ACCESS} | changes))


def iap_token(user: str = "alice", **changes: Any) -> str:
    return token(user, header={"alg": "ES256"}, key=ec_key("P-256", "iap"), **({"iss": IAP} | changes))


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A service with an issuer of bearer tokens, Cloudflare Access and Google IAP."""
    tables = [
        {"issuer": ISSUER, "pem": pem()},
        {"issuer": ACCESS, "pem": pem_of("access"), "header": ACCESS_HEADER},
        {"issuer": IAP, "pem": ec_key("P-256", "iap").as_pem(private=False).decode(), "header": IAP_HEADER},
    ]
    text = ""
    for table in tables:
        lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
        text += "\n".join(["[[issuers]]", f'audiences = ["{AUDIENCE}"]', *lines, ""])
    path = tmp_path / "dialtone.toml"
    path.write_text(text)
    async with running_service(telnyx, sqlite, config=str(path), issuer=..., audience=..., issuer_pem=...) as service:
        yield service


async def ask(service: Service, headers: Any, method: str = "GET", **content: Any) -> Any:
    return await service.client.request(method, PATH, headers=headers, **content)


async def test_token_in_its_header_logs_in(service: Service) -> None:
    for headers in ({ACCESS_HEADER: access_token()}, {IAP_HEADER: iap_token()}):
        answer = await ask(service, headers | LISTED, "POST", json={"device_id": "laptop"})
        again = await ask(service, headers | LISTED, "POST", json={"device_id": "laptop"})

        assert answer.status_code == 201
        assert again.status_code == 200


async def test_users_of_the_header_and_of_bearer_tokens_are_different_users(service: Service) -> None:
    await ask(service, {"Authorization": f"Bearer {token()}"}, "POST", json={"device_id": "laptop"})

    answer = await ask(service, {ACCESS_HEADER: access_token()})

    assert answer.json()["data"] == []


CONFUSED: dict[str, dict[str, str]] = {
    "bearer issuer's token in a header": {ACCESS_HEADER: token()},
    "another header's token": {ACCESS_HEADER: iap_token()},
    "header's token as bearer": {"Authorization": f"Bearer {access_token()}"},
    "bearer issuer's name, header's key": {ACCESS_HEADER: token(key=rsa_key("access"))},
    "header issuer's name, bearer issuer's key": {ACCESS_HEADER: token(iss=ACCESS)},
    "bearer issuer's name as bearer, header's key": {"Authorization": f"Bearer {token(key=rsa_key('access'))}"},
    "other audience": {ACCESS_HEADER: access_token(aud="other")},
    "expired": {ACCESS_HEADER: access_token(exp=1)},
    "scheme in the header": {ACCESS_HEADER: f"Bearer.{access_token()}"},
    "two tokens in one line": {ACCESS_HEADER: f"{access_token()},{access_token('bob')}"},
}


@pytest.mark.parametrize("headers", CONFUSED.values(), ids=CONFUSED.keys())
@pytest.mark.parametrize("is_known", [False, True], ids=["unknown", "verified before"])
async def test_token_in_another_issuers_place_is_rejected(
    service: Service, headers: dict[str, str], *, is_known: bool
) -> None:
    if is_known:
        for right in (
            {"Authorization": f"Bearer {token()}"},
            {ACCESS_HEADER: access_token()},
            {IAP_HEADER: iap_token()},
        ):
            assert (await ask(service, right)).status_code == 200

    assert_problem(await ask(service, headers), 401, "invalid_token")


async def test_cached_token_is_accepted_only_in_its_header(service: Service) -> None:
    """The same text, which the verifier has cached, in each of the three places."""
    right = access_token()
    assert (await ask(service, {ACCESS_HEADER: right})).status_code == 200

    assert_problem(await ask(service, {"Authorization": f"Bearer {right}"}), 401, "invalid_token")
    assert_problem(await ask(service, {IAP_HEADER: right}), 401, "invalid_token")
    assert (await ask(service, {ACCESS_HEADER: right})).status_code == 200


SEVERAL: dict[str, list[tuple[str, str]]] = {
    "bearer and header": [("Authorization", f"Bearer {token()}"), (ACCESS_HEADER, access_token())],
    "one token in both": [("Authorization", f"Bearer {access_token()}"), (ACCESS_HEADER, access_token())],
    "malformed bearer and header": [("Authorization", "Bearer"), (ACCESS_HEADER, access_token())],
    "bearer and empty header": [("Authorization", f"Bearer {token()}"), (ACCESS_HEADER, "")],
    "two headers": [(ACCESS_HEADER, access_token()), (IAP_HEADER, iap_token())],
    "one header twice": [(ACCESS_HEADER, access_token()), (ACCESS_HEADER, access_token("bob"))],
    "one header in two cases": [(ACCESS_HEADER, access_token()), (ACCESS_HEADER.upper(), access_token())],
}


@pytest.mark.parametrize("headers", SEVERAL.values(), ids=SEVERAL.keys())
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_tokens_in_several_headers_are_400(service: Service, headers: list[tuple[str, str]], method: str) -> None:
    await ask(service, {"Authorization": f"Bearer {token()}"}, "POST", json={"device_id": "laptop"})
    content = {"json": {"device_id": "laptop"}} if method == "POST" else {}

    answer = await ask(service, [*headers, *LISTED.items()], method, **content)

    assert_problem(answer, 400, "several_tokens")
    assert 'error="invalid_request"' in answer.headers["www-authenticate"]


async def test_other_authorization_scheme_does_not_count_as_a_token(service: Service) -> None:
    assert (await ask(service, {"Authorization": "Basic YTpi", ACCESS_HEADER: access_token()})).status_code == 200


@pytest.mark.parametrize("value", ["", "a b", "tok\u00e9n"], ids=ascii)
async def test_malformed_header_is_400(service: Service, value: str) -> None:
    headers = [(ACCESS_HEADER.encode(), value.encode())]

    assert_problem(await ask(service, headers), 400, "malformed_authorization")


async def test_header_without_an_issuer_is_ignored(service: Service) -> None:
    assert_problem(await ask(service, {"X-Token": access_token()}), 401, "missing_token")
    assert (await ask(service, {"X-Token": "x", "Authorization": f"Bearer {token()}"})).status_code == 200


# -- requests of other origins, to which the proxy adds the token too ----------------------------------------------

ORIGINS: dict[str, tuple[str, list[tuple[str, str]], int]] = {
    "listed": ("POST", [("Origin", "https://app.example.com")], 201),
    "other": ("POST", [("Origin", "https://evil.example.com")], 403),
    "null": ("POST", [("Origin", "null")], 403),
    "missing": ("POST", [], 403),
    "suffix": ("POST", [("Origin", "https://app.example.com.evil.example")], 403),
    "other scheme": ("POST", [("Origin", "http://app.example.com")], 403),
    "two": ("POST", [("Origin", "https://app.example.com"), ("Origin", "https://evil.example.com")], 403),
    "two, the last listed": ("POST", [("Origin", "https://evil.example.com"), *LISTED.items()], 403),
    "empty": ("POST", [("Origin", "")], 403),
    "own": ("POST", [("Host", "phones.example.com"), ("Origin", "http://phones.example.com")], 201),
    "own, with a port": (
        "POST",
        [("Host", "phones.example.com:8443"), ("Origin", "http://phones.example.com:8443")],
        201,
    ),
    "own, default port": ("POST", [("Host", "Phones.example.com:80"), ("Origin", "http://phones.example.com")], 201),
    "own, other port": ("POST", [("Host", "phones.example.com"), ("Origin", "http://phones.example.com:81")], 403),
    "own, other scheme": ("POST", [("Host", "phones.example.com"), ("Origin", "https://phones.example.com")], 403),
    "own, behind TLS": (
        "POST",
        [("Host", "a.example"), ("X-Forwarded-Proto", "https"), ("Origin", "https://a.example")],
        201,
    ),
    "downgraded": (
        "POST",
        [("Host", "a.example"), ("X-Forwarded-Proto", "https"), ("Origin", "http://a.example")],
        403,
    ),
    "read of another origin": ("GET", [("Origin", "https://evil.example.com")], 403),
    "read without an origin": ("GET", [], 200),
}


@pytest.mark.parametrize(("method", "headers", "status"), ORIGINS.values(), ids=ORIGINS.keys())
async def test_origin_must_be_listed_or_the_services_own(
    service: Service, method: str, headers: list[tuple[str, str]], status: int
) -> None:
    content = {"json": {"device_id": "laptop"}} if method == "POST" else {}

    answer = await ask(service, [(ACCESS_HEADER, access_token()), *headers], method, **content)

    assert answer.status_code == status
    if status == 403:
        assert_problem(answer, 403, "origin_not_allowed")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://a.preview.example.com", 201),
        ("capacitor://localhost", 201),
        ("https://a.b.preview.example.com", 403),
        ("https://preview.example.com", 403),
        ("https://*.preview.example.com", 403),
    ],
)
async def test_origin_may_match_a_wildcard_label(telnyx: Telnyx, sqlite: str, origin: str, status: int) -> None:
    origins = "https://*.preview.example.com capacitor://localhost"
    async with running_service(telnyx, sqlite, issuer_header="X-Token", cors_origins=origins) as service:
        answer = await ask(service, {"X-Token": token(), "Origin": origin}, "POST", json={"device_id": "laptop"})

    assert answer.status_code == status


async def test_origin_is_not_checked_for_bearer_tokens(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token()}", "Origin": "https://evil.example.com"}

    assert (await ask(service, headers, "POST", json={"device_id": "laptop"})).status_code == 201


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_body_that_a_form_can_send_is_rejected(service: Service, media_type: str) -> None:
    headers = {ACCESS_HEADER: access_token(), "Content-Type": media_type} | LISTED

    answer = await ask(service, headers, "POST", content=b'{"device_id": "laptop"}')

    assert_problem(answer, 415, "unsupported_media_type")


async def test_preflight_does_not_allow_the_header(service: Service) -> None:
    asked = LISTED | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ACCESS_HEADER}

    answer = await service.client.options(PATH, headers=asked)

    assert answer.status_code == 400
    assert ACCESS_HEADER.lower() not in answer.headers.get("access-control-allow-headers", "").lower()


async def test_rejected_tokens_in_a_header_count_for_the_address(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, issuer_header="X-Token", limit_failures="2/minute") as service:
        answers = [await ask(service, {"X-Token": token(exp=1)}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]


# -- the fast path ---------------------------------------------------------------------------------------------------


async def test_fast_path_leaves_requests_with_the_header_to_the_app(service: Service) -> None:
    bearer = {"Authorization": f"Bearer {token()}"} | LISTED
    for headers in (bearer, {ACCESS_HEADER: access_token()} | LISTED):
        assert (await ask(service, headers, "POST", json={"device_id": "laptop"})).status_code == 201
    service.app.requests = 0

    assert (await ask(service, bearer, "POST", json={"device_id": "laptop"})).status_code == 200
    assert service.app.requests == 0
    both = await ask(service, bearer | {ACCESS_HEADER: access_token()}, "POST", json={"device_id": "laptop"})
    alone = await ask(service, {ACCESS_HEADER: access_token()} | LISTED, "POST", json={"device_id": "laptop"})

    assert (both.status_code, alone.status_code) == (400, 200)
    assert service.app.requests == 2
