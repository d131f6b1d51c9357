"""The OpenAPI documents and `/docs`."""

import base64
import hashlib
import importlib.resources
import json
import re
from functools import cache, lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from starlette.requests import Request
from starlette.responses import Response

from app.api.openapi import Api, document, with_sign_in
from app.api.routes.ops import available_sign_in
from app.vending.operators.sign_in import SignIn, SignInSource

REDIRECT_PATH = "/docs/oauth2-redirect"
"""Where the identity provider sends the browser back. It must be registered at the provider."""

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
"""Files of the page, and their media types."""


def router(app: FastAPI, sign_in: SignInSource) -> APIRouter:
    """The documents and `/docs`. Its script and style are served from the package, so that it works offline."""
    routes = APIRouter(include_in_schema=False)
    assets = importlib.resources.files("fastapi_offline") / "static"

    @lru_cache(maxsize=16)
    def rendered(api: Api | None, root_path: str, found: SignIn | None) -> bytes:
        """A document with the path prefix of this service as its server. Cached, because rendering takes long."""
        spec = document(app) if api is None else document(app, api)
        if found is not None:
            spec = with_sign_in(spec, found)
        return json.dumps(spec | {"servers": [{"url": root_path or "/"}]}, ensure_ascii=False).encode()

    @routes.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        body = rendered(None, request.scope.get("root_path", ""), await available_sign_in(sign_in))
        return Response(body, media_type="application/json")

    @routes.get("/openapi/{name}.json")
    async def half(name: str, request: Request) -> Response:
        if name not in list(Api):
            raise HTTPException(404)
        body = rendered(Api(name), request.scope.get("root_path", ""), await available_sign_in(sign_in))
        return Response(body, media_type="application/json")

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        found = await available_sign_in(sign_in)
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            oauth2_redirect_url=request.scope.get("root_path", "") + REDIRECT_PATH,
            init_oauth=None if found is None else _oauth_settings(found),
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            swagger_ui_parameters={"persistAuthorization": False, "tryItOutEnabled": True},
        )
        page.headers["Content-Security-Policy"] = _policy(page, found)
        return page

    @routes.get(REDIRECT_PATH)
    async def oauth2_redirect() -> Response:
        """Reads the code from its URL, and passes it to the page that opened it."""
        page = get_swagger_ui_oauth2_redirect_html()
        page.headers["Content-Security-Policy"] = _policy(page, None)
        page.headers["Referrer-Policy"] = "no-referrer"
        return page

    @cache
    def content(name: str) -> bytes:
        """The content of a file. Cached, so that all connections share one copy in memory."""
        return (assets / name).read_bytes()

    @routes.get("/docs/{name}")
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            return Response(status_code=404)
        return Response(content(name), media_type=ASSETS[name])

    return routes


def _oauth_settings(found: SignIn) -> dict[str, Any]:
    """Swagger UI's settings of the Authorize dialog. It sends `state`, and the challenge of PKCE with S256."""
    client = found.client
    more = {} if client.audience is None else {"additionalQueryStringParams": {"audience": client.audience}}
    return {
        "clientId": client.client_id,
        "scopes": " ".join(client.scopes),
        "usePkceWithAuthorizationCodeGrant": True,
    } | more


def _policy(page: Response, found: SignIn | None) -> str:
    """The page's own inline scripts are allowed by their hashes, and the provider's token endpoint by its URL."""
    scripts = _SCRIPT.findall(bytes(page.body).decode())
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    token_endpoint = "" if found is None else f" {found.token_endpoint}"
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        f"connect-src 'self'{token_endpoint}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
