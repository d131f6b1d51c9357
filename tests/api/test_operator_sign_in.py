"""The published settings of the sign-in of operators, and the policy that operators see."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.vending.policy import ADMIN_SCOPE
from tests.support.http_server import DeferredApp, serve
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token

OPERATOR = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}


@asynccontextmanager
async def service_with_provider(telnyx: Telnyx, database: str, **changes: Any) -> AsyncIterator[tuple[Service, str]]:
    """The service, and an issuer whose discovery document has these changes. `...` removes a member."""
    provider = DeferredApp()
    async with serve(provider) as url:
        document = {
            "issuer": url,
            "jwks_uri": f"{url}/keys",
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
        } | changes

        async def discovery(_: Request) -> Response:
            return JSONResponse({name: value for name, value in document.items() if value is not ...})

        provider.app = Starlette(routes=[Route("/.well-known/openid-configuration", discovery)])
        async with running_service(telnyx, database, issuer=url, issuer_pem=..., ops_client_id="ops") as service:
            yield service, url


async def test_endpoints_are_published_and_allowed_by_the_content_security_policy(telnyx: Telnyx, sqlite: str) -> None:
    async with service_with_provider(telnyx, sqlite) as (service, url):
        found = (await service.client.get("/ops/sign-in.json")).json()
        page = await service.client.get("/ops")
        docs = await service.client.get("/docs")

    assert found == {
        "status": "available",
        "issuer": url,
        "client_id": "ops",
        "scope": "openid dialtone:admin",
        "audience": "dialtone",
        "token": "access_token",
        "authorization_endpoint": f"{url}/authorize",
        "token_endpoint": f"{url}/token",
        "end_session_endpoint": None,
    }
    assert f"connect-src 'self' {url}/token;" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert f"connect-src 'self' {url}/token;" in docs.headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in docs.headers["content-security-policy"]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example.com"},
        {"token_endpoint": ...},
        {"token_endpoint": 7},
        {"token_endpoint": "http://id.example.com/token"},
        {"token_endpoint": "https://id.example.com/token; script-src *"},
        {"token_endpoint": "https://*.example.com/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"end_session_endpoint": "data:text/html,x"},
    ],
    ids=str,
)
async def test_unusable_discovery_document_disables_the_sign_in(
    telnyx: Telnyx, sqlite: str, changes: dict[str, Any]
) -> None:
    async with service_with_provider(telnyx, sqlite, **changes) as (service, _):
        found = await service.client.get("/ops/sign-in.json")
        page = await service.client.get("/ops")

    assert found.json() == {"status": "unavailable"}
    assert "connect-src 'self';" in page.headers["content-security-policy"]


async def test_unavailable_provider_disables_the_sign_in(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(
        telnyx, sqlite, issuer="http://127.0.0.1:9", issuer_pem=..., ops_client_id="ops"
    ) as service:
        assert (await service.client.get("/ops/sign-in.json")).json() == {"status": "unavailable"}
        assert (await service.client.get("/ops")).status_code == 200
        assert (await service.client.get("/docs")).status_code == 200


async def test_sign_in_is_not_configured_by_default(service: Service) -> None:
    assert (await service.client.get("/ops/sign-in.json")).json() == {"status": "not_configured"}
    assert (await service.client.get("/openapi.json")).json()["components"]["securitySchemes"].keys() == {"bearer"}


async def test_served_openapi_document_has_the_flow_of_the_provider(telnyx: Telnyx, sqlite: str) -> None:
    async with service_with_provider(telnyx, sqlite) as (service, url):
        spec = (await service.client.get("/openapi.json")).json()

    flow = spec["components"]["securitySchemes"]["identityProvider"]["flows"]["authorizationCode"]
    assert flow["tokenUrl"] == f"{url}/token"
    assert spec["paths"]["/v1/admin/state"]["get"]["security"] == [{"bearer": []}, {"identityProvider": []}]
    assert spec["paths"]["/livez"]["get"]["security"] == []


async def test_operators_see_that_there_is_no_policy(service: Service) -> None:
    answer = await service.client.get("/v1/admin/policy", headers=OPERATOR)

    assert answer.json() == {"mode": "none", "rules": [], "visible_issuers": None}


async def test_users_do_not_see_the_policy(service: Service) -> None:
    answer = await service.client.get("/v1/admin/policy", headers={"Authorization": f"Bearer {token()}"})

    assert answer.status_code == 403
