"""The OpenAPI documents and `/docs`."""

import importlib.resources
import json
from functools import cache

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response

from app.api.openapi import Api, document

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
"""Files of the page, and their media types."""


def router(app: FastAPI) -> APIRouter:
    """The documents and `/docs`. Its script and style are served from the package, so that it works offline."""
    routes = APIRouter(include_in_schema=False)
    assets = importlib.resources.files("fastapi_offline") / "static"

    @cache
    def rendered(api: Api | None, root_path: str) -> bytes:
        """A document with the path prefix of this service as its server. Cached, because rendering takes long."""
        spec = document(app) if api is None else document(app, api)
        return json.dumps(spec | {"servers": [{"url": root_path or "/"}]}, ensure_ascii=False).encode()

    @routes.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        return Response(rendered(None, request.scope.get("root_path", "")), media_type="application/json")

    @routes.get("/openapi/{name}.json")
    async def half(name: str, request: Request) -> Response:
        if name not in list(Api):
            raise HTTPException(404)
        return Response(rendered(Api(name), request.scope.get("root_path", "")), media_type="application/json")

    @routes.get("/docs")
    async def docs() -> Response:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            swagger_ui_parameters={"persistAuthorization": False, "tryItOutEnabled": True},
        )
        page.headers["Content-Security-Policy"] = DOCS_POLICY
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
