"""The OpenAPI documents and `/docs`."""

import importlib.resources
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from app.api.openapi import Api, document

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def router(app: FastAPI) -> APIRouter:
    """The documents and `/docs`. Its script and style are served from the package, so that it works offline."""
    routes = APIRouter(include_in_schema=False)
    assets = importlib.resources.files("fastapi_offline") / "static"

    @routes.get("/openapi.json")
    async def openapi(request: Request) -> dict[str, Any]:
        return _served(document(app), request)

    @routes.get("/openapi/{name}.json")
    async def half(name: str, request: Request) -> dict[str, Any]:
        if name not in list(Api):
            raise HTTPException(404)
        return _served(document(app, Api(name)), request)

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

    @routes.get("/docs/{name}")
    async def asset(name: str) -> Response:
        if name not in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
            return Response(status_code=404)
        return FileResponse(str(assets / name))

    return routes


def _served(spec: dict[str, Any], request: Request) -> dict[str, Any]:
    """The document with the path prefix of this service as its server."""
    return spec | {"servers": [{"url": request.scope.get("root_path", "") or "/"}]}
