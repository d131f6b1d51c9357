"""With an admin listener, operators' paths do not exist on the public one."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from app.composition.build import build_components
from app.composition.components import Overrides
from app.main import build_admin_app, build_server_app, openapi_document
from app.vending.policy import ADMIN_SCOPE
from tests.support.databases import migrate_database
from tests.support.front_server import Connection
from tests.support.http_server import http_client, serve
from tests.support.sandbox import Telnyx
from tests.support.service import settings_for
from tests.support.tokens import token

PAGE = {"Origin": "https://app.example.com"}
OPERATOR = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
CALLERS = {
    "no token": {},
    "invalid token": {"Authorization": "Bearer garbage"},
    "user": {"Authorization": f"Bearer {token()}"},
    "operator": OPERATOR,
    "page of an operator": PAGE | OPERATOR,
    "preflight": PAGE | {"Access-Control-Request-Method": "GET"},
    "foreign preflight": {"Origin": "https://other.example.com", "Access-Control-Request-Method": "GET"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DOCUMENTED = sorted(path for path in openapi_document()["paths"] if path.startswith("/v1/admin"))
OPERATOR_PATHS = [
    "/metrics",
    "/ops",
    "/ops/ops.js",
    "/docs",
    "/docs/swagger-ui.css",
    "/openapi.json",
    "/openapi/user.json",
    "/openapi/operators.json",
    *(re.sub(r"\{.*?\}", "x", path) for path in DOCUMENTED),
]
TRICKS = [
    "//metrics",
    "/metrics/",
    "/METRICS",
    "/metrics?a=b",
    "/metrics;a=b",
    "/metrics%00",
    "/metrics%20",
    "/%6detrics",
    "/%256detrics",
    "/metrics%2f",
    "/metrics%3f",
    "/./metrics",
    "/livez/../metrics",
    "/livez/%2e%2e/metrics",
    "/livez%2f..%2fmetrics",
    "/v1/../metrics",
    "http://127.0.0.1/metrics",
    "https://dialtone/ops",
    "/docs/",
    "/openapi%2ejson",
    "/V1/ADMIN/state",
    "/v1/Admin/state",
    "/v1//admin/state",
    "//v1/admin/state",
    "/v1/admin/",
    "/v1/admin/state/",
    "/v1/%61dmin/state",
    "/v1%2fadmin%2fstate",
    "/v1/x/../admin/state",
    "/v1/telephony-credentials/../admin/state",
    "http://127.0.0.1/v1/admin/state",
]
VARYING = ("date", "x-request-id", "ratelimit-remaining", "ratelimit-reset")


@dataclass(frozen=True)
class TwoListeners:
    """A client of each listener."""

    public: httpx.AsyncClient
    admin: httpx.AsyncClient


@pytest.fixture
async def listeners(telnyx: Telnyx, sqlite: str) -> AsyncIterator[TwoListeners]:
    await migrate_database(sqlite)
    settings = settings_for(telnyx.url, sqlite, admin_port=1)
    components = build_components(settings, Overrides(clock=telnyx.clock))
    limiter, app, readiness = build_server_app(settings, components)
    admin_limiter, admin_app = build_admin_app(settings, components, readiness)
    async with (
        serve(app, limiter) as public_url,
        serve(admin_app, admin_limiter, has_lifespan=False) as admin_url,
        http_client(public_url, timeout=60) as public,
        http_client(admin_url, timeout=60) as admin,
    ):
        yield TwoListeners(public, admin)


def seen(answer: httpx.Response) -> tuple[object, ...]:
    """The distinguishable parts of a response: all but the request's id, the time and the count of requests."""
    headers = {name: value for name, value in answer.headers.items() if name not in VARYING}
    return answer.status_code, headers, answer.text.replace(answer.headers["x-request-id"], "<id>")


@pytest.mark.parametrize("caller", CALLERS)
async def test_operators_paths_are_unknown_paths_on_the_public_listener(listeners: TwoListeners, caller: str) -> None:
    for method in METHODS:
        content: dict[str, str] | None = {} if method in ("POST", "PUT", "PATCH") else None

        async def ask(path: str, method: str = method, content: dict[str, str] | None = content) -> tuple[object, ...]:
            return seen(await listeners.public.request(method, path, headers=CALLERS[caller], json=content))

        unknown = {prefix: await ask(f"{prefix}unknown") for prefix in ("/", "/v1/")}
        for path in OPERATOR_PATHS:
            assert await ask(path) == unknown["/v1/" if path.startswith("/v1/") else "/"], (method, path)


@pytest.mark.parametrize("caller", ["no token", "operator"])
async def test_no_spelling_of_a_path_passes(listeners: TwoListeners, caller: str) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in CALLERS[caller].items())
    connection = await Connection.to(listeners.public.base_url.port or 0)
    for target in TRICKS:
        for method in ("GET", "POST", "HEAD"):
            connection.writer.write(
                f"{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: 0\r\n\r\n".encode()
            )
            head = await connection.reader.readuntil(b"\r\n\r\n")
            if method != "HEAD":
                length = re.search(rb"content-length: (\d+)", head)
                await connection.reader.readexactly(int(length[1]) if length else 0)

            assert head.split()[1] in ((b"404",) if caller == "operator" else (b"401", b"404")), (method, target)
    connection.writer.close()


async def test_user_api_and_probes_are_on_the_public_listener(listeners: TwoListeners) -> None:
    login = await listeners.public.post(
        "/v1/telephony-credentials", headers=CALLERS["user"], json={"device_id": "laptop"}
    )

    assert login.status_code == 201
    for path in ("/livez", "/readyz", "/version"):
        assert (await listeners.public.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/metrics", "/ops", "/docs", "/openapi.json"])
async def test_admin_listener_serves_operators_and_probes(listeners: TwoListeners, path: str) -> None:
    assert (await listeners.admin.get(path)).status_code == 200


async def test_admin_api_is_on_the_admin_listener(listeners: TwoListeners) -> None:
    assert (await listeners.admin.get("/v1/admin/state", headers=OPERATOR)).status_code == 200
    assert (await listeners.admin.get("/v1/admin/state", headers=CALLERS["user"])).status_code == 403
    assert (await listeners.admin.get("/v1/admin/state")).status_code == 401


async def test_metrics_count_the_requests_of_both_listeners(listeners: TwoListeners) -> None:
    await listeners.public.post("/v1/telephony-credentials", headers=CALLERS["user"], json={"device_id": "laptop"})

    text = (await listeners.admin.get("/metrics")).text

    assert re.search(r'dialtone_http_requests_total\{[^}]*route="/v1/telephony-credentials"[^}]*\} 1', text)
