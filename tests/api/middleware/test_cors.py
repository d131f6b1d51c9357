"""CORS: origins with a wildcard label, applications in a web view, and preflights."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service

PATH = "/v1/telephony-credentials"

ORIGINS = (
    "https://app.example.com https://*.preview.example.com http://*.localhost:5173 "
    "capacitor://localhost ionic://localhost tauri://localhost http://tauri.localhost"
)


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, sqlite, cors_origins=ORIGINS, cors_headers="X-Tenant") as service:
        yield service


ALLOWED = [
    "https://app.example.com",
    "https://pr-12.preview.example.com",
    "http://shop.localhost:5173",
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "http://tauri.localhost",
]
REFUSED = [
    "https://preview.example.com",
    "https://a.b.preview.example.com",
    "https://.preview.example.com",
    "https://*.preview.example.com",
    "http://a.preview.example.com",
    "https://a.preview.example.com:8443",
    "https://a.preview.example.com.evil.example",
    "https://evil.example/.preview.example.com",
    "https://user@a.preview.example.com",
    "https://evil.example?.preview.example.com",
    "https://preview.example.com.evil",
    "capacitor://evil",
    "null",
]


@pytest.mark.parametrize("origin", ALLOWED)
async def test_listed_origin_can_read_the_response(service: Service, origin: str) -> None:
    answer = await service.ask("POST", json={"device_id": "laptop"}, headers={"Origin": origin})

    assert answer.headers["access-control-allow-origin"] == origin
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", REFUSED)
async def test_other_origin_cannot_read_the_response(service: Service, origin: str) -> None:
    for _ in range(2):  # the second response is a cached login
        answer = await service.ask("POST", json={"device_id": "laptop"}, headers={"Origin": origin})

        assert answer.status_code in (200, 201)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ALLOWED)
async def test_cached_login_has_the_origin(service: Service, origin: str) -> None:
    await service.ask("POST", json={"device_id": "laptop"})

    answer = await service.ask("POST", json={"device_id": "laptop"}, headers={"Origin": origin})

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin


async def preflight(service: Service, origin: str, headers: str, method: str = "POST") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return await service.client.options(PATH, headers=asked)


@pytest.mark.parametrize("origin", ALLOWED)
@pytest.mark.parametrize("headers", ["traceparent,tracestate", "baggage,sentry-trace", "x-tenant"])
async def test_preflight_allows_tracing_and_configured_headers(service: Service, origin: str, headers: str) -> None:
    answer = await preflight(service, origin, f"authorization,content-type,{headers}")

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("headers", ["", ",", "authorization,,content-type", ",authorization , x-tenant,"])
async def test_empty_elements_of_a_requested_list_have_no_meaning(service: Service, headers: str) -> None:
    answer = await preflight(service, "https://app.example.com", headers)

    assert answer.status_code == 200


async def test_every_list_of_requested_headers_counts(service: Service) -> None:
    asked = [
        ("Origin", "https://app.example.com"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization"),
        ("Access-Control-Request-Headers", "x-other"),
    ]

    answer = await service.client.options(PATH, headers=asked)

    assert_problem(answer, 400, "preflight_rejected")


async def private_network_preflight(service: Service, origin: str) -> httpx.Response:
    """A preflight of Chrome for a page on the internet and a service in a private network."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Private-Network": "true",
    }
    return await service.client.options(PATH, headers=asked)


async def test_listed_origin_may_use_a_service_in_a_private_network(service: Service) -> None:
    answer = await private_network_preflight(service, "https://app.example.com")

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-private-network"] == "true"


async def test_other_origin_may_not_use_a_service_in_a_private_network(service: Service) -> None:
    answer = await private_network_preflight(service, "https://evil.example.com")

    assert_problem(answer, 400, "preflight_rejected")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "headers", "method"),
    [
        ("https://evil.example.com", "authorization", "POST"),
        ("https://app.example.com", "x-other", "POST"),
        ("https://app.example.com", "authorization", "TRACE"),
    ],
    ids=["origin", "header", "method"],
)
async def test_rejected_preflight_is_a_problem(service: Service, origin: str, headers: str, method: str) -> None:
    answer = await preflight(service, origin, headers, method)

    assert_problem(answer, 400, "preflight_rejected")


async def test_rejected_preflight_of_another_origin_cannot_be_read(service: Service) -> None:
    answer = await preflight(service, "https://evil.example.com", "authorization")

    assert "access-control-allow-origin" not in answer.headers
