"""The OpenAPI document: every answer with an example, the bearer scheme, and `/docs` served from this very machine."""

import importlib.resources
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from app.api import problems
from app.api.problems import FAULT_KINDS, KINDS, MEDIA_TYPE, Kind, Problem
from app.api.schemas.problem import ProblemDocument
from app.api.scope import BACKCHANNEL_LOGOUT

DESCRIPTION = """\
Hands a phone to a signed-in user: show the access token of your identity provider, get a login for the WebRTC SDK.

Every error is `application/problem+json`; branch on its `code`. Errors that pass say `retryable: true`, and 503 carries
`Retry-After`. No answer may be stored.
"""

ALWAYS = (
    "malformed_request",
    "missing_token",
    "invalid_token",
    "insufficient_scope",
    "internal_error",
    "identity_unavailable",
    "rate_limited",
    "audit_unavailable",
)
"""Codes that any guarded call may answer with."""

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def all_kinds() -> dict[str, Kind]:
    """Every problem that can be answered, by code."""
    own = [value for value in vars(problems).values() if isinstance(value, Kind)]
    return {kind.code: kind for kind in [*KINDS.values(), *own, *FAULT_KINDS.values()]}


UNGUARDED = ("malformed_request", "internal_error", "identity_unavailable", "rate_limited", "audit_unavailable")
"""Codes that the call without a bearer token shares with the others."""


def problems_of(*codes: str, guarded: bool = True) -> dict[int | str, dict[str, Any]]:
    """The error half of a route's `responses`: its own codes and those of every guarded call, each with an example."""
    kinds = all_kinds()
    found: dict[int | str, dict[str, Any]] = {}
    for code in (*(ALWAYS if guarded else UNGUARDED), *codes):
        kind = kinds[code]
        answer = found.setdefault(
            kind.status,
            {
                "description": HTTPStatus(kind.status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": {}}},
            },
        )
        example = Problem(kind, "7a1c2b9e4d5f4a0e8b6c3d2e1f0a9b8c").as_json()
        answer["content"][MEDIA_TYPE]["examples"][code] = {"summary": kind.title, "value": example}
    return found


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the app."""
    if app.openapi_schema:
        return app.openapi_schema
    spec = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    components = spec.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["ProblemDocument"] = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas["ProblemDocument"]["properties"]["code"]["enum"] = sorted(all_kinds())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access token that your identity provider issued for this service.",
        }
    }
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            if path.startswith("/v1") and path != BACKCHANNEL_LOGOUT:
                operation["security"] = [{"bearer": []}]
            _replace_framework_422(operation)
            _show_examples(operation, schemas)
            _add_headers(operation)
    app.openapi_schema = spec
    return spec


def docs_router(app: FastAPI) -> APIRouter:
    """`/docs` with its script and style from the package, so that it works without the internet."""
    router = APIRouter(include_in_schema=False)
    assets = importlib.resources.files("fastapi_offline") / "static"

    @router.get("/openapi.json")
    async def openapi(request: Request) -> dict[str, Any]:
        prefix = request.scope.get("root_path", "")
        return document(app) | ({"servers": [{"url": prefix}]} if prefix else {})

    @router.get("/docs")
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

    @router.get("/docs/{name}")
    async def asset(name: str) -> Response:
        if name not in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
            return Response(status_code=404)
        return FileResponse(str(assets / name))

    return router


def _replace_framework_422(operation: dict[str, Any]) -> None:
    """FastAPI describes its own 422 body wherever a parameter can be wrong; ours is a problem like any other."""
    answer = operation.get("responses", {}).get("422")
    if answer is not None and "application/json" in answer.get("content", {}):
        operation["responses"]["422"] = problems_of("invalid_request")[422]


def _show_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """A success shows the example of its model."""
    for answer in operation.get("responses", {}).values():
        content = answer.get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if "example" in schemas.get(name, {}):
            content["example"] = schemas[name]["example"]


def _add_headers(operation: dict[str, Any]) -> None:
    text = {"schema": {"type": "string"}}
    for status, answer in operation.get("responses", {}).items():
        headers = answer.setdefault("headers", {})
        headers["X-Request-ID"] = {"description": "Quote it when you ask for help.", **text}
        if status in ("429", "503"):
            headers["Retry-After"] = {
                "description": "Seconds to wait before the next try.",
                "schema": {"type": "integer"},
            }
        if status in ("401", "403"):
            headers["WWW-Authenticate"] = {"description": "RFC 6750 challenge.", **text}
