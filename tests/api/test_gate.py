"""Who gets in, and what those hear who do not."""

import asyncio
import socket
from typing import Any

import httpx
import pytest

from tests.stage import Service, Telnyx, service_in_front_of, token

PATH = "/v1/telephony-credentials"


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"] == f"urn:dialtone:problem:{code}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


async def test_without_a_token_there_is_a_challenge_and_no_error(service: Service) -> None:
    answer = await service.client.post(PATH, json={"device_id": "laptop"})

    assert_problem(answer, 401, "missing_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="dialtone"'


@pytest.mark.parametrize("bad", [{"exp": 1}, {"aud": "other"}, {"iss": "https://evil.example.com"}], ids=str)
async def test_a_bad_token_is_refused_without_saying_why(service: Service, bad: dict[str, Any]) -> None:
    answer = await service.client.get(PATH, headers={"Authorization": f"Bearer {token(**bad)}"})

    assert_problem(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="dialtone", error="invalid_token"'
    assert answer.json()["title"] == "The bearer token is missing, malformed, expired, or not meant for this service."


@pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "bearer a b", "Bearer \u00e4"], ids=ascii)
async def test_a_malformed_header_is_400(service: Service, value: str) -> None:
    answer = await service.client.get(PATH, headers=[(b"Authorization", value.encode())])

    assert answer.status_code in (400, 401)
    assert answer.json()["code"] in ("malformed_authorization", "missing_token")
    assert "www-authenticate" in answer.headers


async def test_the_scheme_may_be_written_in_any_case(service: Service) -> None:
    assert (await service.client.get(PATH, headers={"Authorization": f"bEARER {token()}"})).status_code == 200


@pytest.mark.parametrize("value", ["Basic YTpi", "Digest x", token()])
async def test_another_scheme_is_no_token(service: Service, value: str) -> None:
    assert_problem(await service.client.get(PATH, headers={"Authorization": value}), 401, "missing_token")


async def test_two_authorization_headers_are_400(service: Service) -> None:
    headers = [("Authorization", f"Bearer {token()}"), ("Authorization", f"Bearer {token('bob')}")]

    assert_problem(await service.client.get(PATH, headers=headers), 400, "malformed_authorization")


async def test_a_token_in_the_query_or_the_body_is_none(service: Service) -> None:
    assert_problem(await service.client.get(PATH, params={"access_token": token()}), 401, "missing_token")
    answer = await service.client.post(PATH, data={"access_token": token()})
    assert_problem(answer, 401, "missing_token")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", f"{PATH}/x/y/z", f"{PATH}/"])
async def test_everything_under_v1_wants_a_token_even_what_is_not_there(service: Service, path: str) -> None:
    assert_problem(await service.client.get(path), 401, "missing_token")
    known = await service.client.get(path, headers={"Authorization": f"Bearer {token()}"})
    assert_problem(known, 404, "not_found")


async def test_the_token_is_checked_before_a_byte_of_the_body_is_read(service: Service) -> None:
    """The body never comes: a service that waited for it would not answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n".encode()
    )

    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 2)

    assert answer.startswith(b"HTTP/1.1 401")
    writer.close()


async def test_a_key_set_that_cannot_be_had_is_503_and_not_401(telnyx: Telnyx, sqlite: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        keys = f"http://127.0.0.1:{nobody.getsockname()[1]}/jwks"
        async with service_in_front_of(telnyx, sqlite, issuer_pem=..., jwks_url=keys) as service:
            answer = await service.issue("laptop")
            ready = await service.client.get("/readyz")

    assert_problem(answer, 503, "identity_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"ledger": "ok", "identity": "failed", "telnyx": "ok"}


# -- request ids and odd requests -------------------------------------------------------------------------------


async def test_a_callers_request_id_goes_through_and_a_harmful_one_does_not(service: Service) -> None:
    kept = await service.client.get("/livez", headers={"X-Request-ID": "trace-1.2_3"})
    replaced = await service.client.get("/livez", headers={"X-Request-ID": "a b<script>"})

    assert kept.headers["x-request-id"] == "trace-1.2_3"
    assert len(replaced.headers["x-request-id"]) == 32


async def raw(service: Service, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(4096), 3)
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
    ids=["two hosts", "two lengths of two kinds", "two lengths", "negative", "nonsense", "long uri", "long", "many"],
)
async def test_an_ambiguous_or_oversized_request_is_refused(service: Service, request_text: str, status: bytes) -> None:
    answer = await raw(service, request_text.encode())

    assert answer.split(b" ", 2)[1] == status


async def test_a_twenty_megabyte_header_is_cut_off_and_the_service_goes_on(service: Service) -> None:
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

    await asyncio.wait_for(flood(), 20)

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
async def test_an_allowed_origin_can_read_every_answer(
    service: Service, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await service.client.request(method, path, headers=headers | ORIGIN)

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_another_origin_is_told_nothing(service: Service) -> None:
    answer = await service.client.get("/livez", headers={"Origin": "https://evil.example.com"})

    assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_needs_no_token_and_names_what_is_allowed(service: Service) -> None:
    asked = ORIGIN | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    answer = await service.client.options(PATH, headers=asked)

    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["cache-control"] == "no-store"
    assert "x-request-id" in answer.headers


async def test_a_crash_is_one_problem_that_even_a_page_can_read(telnyx: Telnyx, sqlite: str) -> None:
    def crash() -> str:
        raise RuntimeError("sip_password=hunter2")

    calls = iter(["replica"])
    async with service_in_front_of(telnyx, sqlite, ids=lambda: next(calls, None) or crash()) as service:
        answer = await service.ask("POST", json={"device_id": "laptop"}, headers=ORIGIN)

    assert_problem(answer, 500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "hunter2" not in answer.text
