"""Bearer authentication: which requests are admitted, and what rejected callers get."""

import asyncio
import socket
from typing import Any

import pytest

from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token

PATH = "/v1/telephony-credentials"


async def test_missing_token_gets_a_challenge_without_an_error_code(service: Service) -> None:
    answer = await service.client.post(PATH, json={"device_id": "laptop"})

    assert_problem(answer, 401, "missing_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="dialtone"'


@pytest.mark.parametrize("bad", [{"exp": 1}, {"aud": "other"}, {"iss": "https://evil.example.com"}], ids=str)
async def test_invalid_token_is_rejected_without_a_reason(service: Service, bad: dict[str, Any]) -> None:
    answer = await service.client.get(PATH, headers={"Authorization": f"Bearer {token(**bad)}"})

    assert_problem(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="dialtone", error="invalid_token"'
    assert answer.json()["title"] == "The bearer token is missing, malformed, expired, or not meant for this service."


@pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "bearer a b", "Bearer \u00e4"], ids=ascii)
async def test_malformed_authorization_header_is_rejected(service: Service, value: str) -> None:
    answer = await service.client.get(PATH, headers=[(b"Authorization", value.encode())])

    assert answer.status_code in (400, 401)
    assert answer.json()["code"] in ("malformed_authorization", "missing_token")
    assert "www-authenticate" in answer.headers


async def test_scheme_is_case_insensitive(service: Service) -> None:
    assert (await service.client.get(PATH, headers={"Authorization": f"bEARER {token()}"})).status_code == 200


@pytest.mark.parametrize("value", ["Basic YTpi", "Digest x", token()])
async def test_other_schemes_count_as_a_missing_token(service: Service, value: str) -> None:
    assert_problem(await service.client.get(PATH, headers={"Authorization": value}), 401, "missing_token")


async def test_two_authorization_headers_are_400(service: Service) -> None:
    headers = [("Authorization", f"Bearer {token()}"), ("Authorization", f"Bearer {token('bob')}")]

    assert_problem(await service.client.get(PATH, headers=headers), 400, "malformed_authorization")


async def test_token_in_the_query_or_body_is_ignored(service: Service) -> None:
    assert_problem(await service.client.get(PATH, params={"access_token": token()}), 401, "missing_token")
    answer = await service.client.post(PATH, data={"access_token": token()})
    assert_problem(answer, 401, "missing_token")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", f"{PATH}/x/y/z", f"{PATH}/"])
async def test_unknown_paths_below_v1_require_a_token(service: Service, path: str) -> None:
    assert_problem(await service.client.get(path), 401, "missing_token")
    known = await service.client.get(path, headers={"Authorization": f"Bearer {token()}"})
    assert_problem(known, 404, "not_found")


async def test_token_is_checked_before_the_body_is_read(service: Service) -> None:
    """The body is never sent: a service that waited for it would not respond."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n".encode()
    )

    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)

    assert answer.startswith(b"HTTP/1.1 401")
    writer.close()


async def test_unavailable_key_set_is_503(telnyx: Telnyx, sqlite: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        keys = f"http://127.0.0.1:{nobody.getsockname()[1]}/jwks"
        async with running_service(telnyx, sqlite, issuer_pem=..., jwks_url=keys) as service:
            answer = await service.issue("laptop")
            ready = await service.client.get("/readyz")

    assert_problem(answer, 503, "identity_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"ledger": "ok", "identity": "failed", "telnyx": "ok"}


# -- request ids and malformed requests -------------------------------------------------------------------------


async def test_valid_request_id_is_kept_and_an_unsafe_one_is_replaced(service: Service) -> None:
    kept = await service.client.get("/livez", headers={"X-Request-ID": "trace-1.2_3"})
    replaced = await service.client.get("/livez", headers={"X-Request-ID": "a b<script>"})

    assert kept.headers["x-request-id"] == "trace-1.2_3"
    assert len(replaced.headers["x-request-id"]) == 32


async def send_raw(service: Service, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(4096), 30)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        ("POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        ("POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", b"400"),
        ("POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\nab", b"400"),
        ("nonsense\r\n\r\n", b"400"),
        (f"GET /livez?{'q' * 9000} HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (f"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: {'x' * 40_000}\r\n\r\n", b"431"),
        ("GET /livez HTTP/1.1\r\nHost: a\r\n" + "X-Many: 1\r\n" * 120 + "\r\n", b"431"),
    ],
    ids=[
        "two hosts",
        "content-length and chunked",
        "two lengths",
        "negative",
        "malformed",
        "long uri",
        "long header",
        "many headers",
    ],
)
async def test_ambiguous_or_oversized_request_is_rejected(service: Service, request_text: str, status: bytes) -> None:
    answer = await send_raw(service, request_text.encode())

    assert answer.split(b" ", 2)[1] == status


async def test_twenty_megabyte_header_ends_only_its_own_connection(service: Service) -> None:
    async def flood() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
        try:
            writer.write(b"GET /v1/telephony-credentials HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ")
            for _ in range(20):
                writer.write(b"a" * 1_000_000)
                await writer.drain()
            writer.write(b"\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    await asyncio.wait_for(flood(), 60)

    assert (await service.client.get("/livez")).status_code == 200


# -- CORS -------------------------------------------------------------------------------------------------------

ORIGIN = {"Origin": "https://app.example.com"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", PATH, {}, 401),
        ("GET", PATH, {"Authorization": f"Bearer {token()}"}, 200),
        ("GET", f"{PATH}/{'0' * 32}", {"Authorization": f"Bearer {token()}"}, 404),
        ("POST", PATH, {"Authorization": f"Bearer {token()}"}, 422),
        ("GET", "/nothing", {}, 404),
        ("GET", "/livez", {"X-Long": "x" * 40_000}, 431),
    ],
)
async def test_allowed_origin_can_read_every_response(
    service: Service, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await service.client.request(method, path, headers=headers | ORIGIN)

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_other_origins_get_no_cors_headers(service: Service) -> None:
    answer = await service.client.get("/livez", headers={"Origin": "https://evil.example.com"})

    assert "access-control-allow-origin" not in answer.headers


async def test_preflight_needs_no_token_and_lists_methods_and_headers(service: Service) -> None:
    asked = ORIGIN | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    answer = await service.client.options(PATH, headers=asked)

    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["cache-control"] == "no-store"
    assert "x-request-id" in answer.headers


async def test_unhandled_error_is_a_problem_with_cors_headers(telnyx: Telnyx, sqlite: str) -> None:
    def crash() -> str:
        raise RuntimeError("sip_password=hunter2")

    calls = iter(["replica"])
    async with running_service(telnyx, sqlite, ids=lambda: next(calls, None) or crash()) as service:
        answer = await service.ask("POST", json={"device_id": "laptop"}, headers=ORIGIN)

    assert_problem(answer, 500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "hunter2" not in answer.text
