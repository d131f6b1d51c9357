"""The OpenAPI documents: the whole API, the user API and the operators' API."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.api.openapi_responses import BODY, problems_of, resolve
from app.api.problems import all_kinds
from app.api.request_scope import BACKCHANNEL_LOGOUT
from app.api.schemas.problem import ProblemDocument
from app.vending.operators.sign_in import SignIn

DESCRIPTION = """\
Dialtone exchanges the access token of a signed-in user for a short-lived Telnyx WebRTC login.

Every error is an `application/problem+json` document (RFC 9457). Branch on its `code`. If `retryable` is true, the same
request may succeed later; 429 and 503 carry `Retry-After`. Every response carries `Cache-Control: no-store`.
"""

CONTACT = {"name": "The operator of this Dialtone service"}
"""The operator is the contact. The project itself publishes no address."""

LICENSE = {"name": "Apache 2.0", "identifier": "Apache-2.0"}

USER_TAGS = [
    {
        "name": "Telephony credentials",
        "description": "Logins for the WebRTC SDK: issue, refresh, list and revoke those of the caller's devices.",
    },
    {
        "name": "Push credentials",
        "description": "Apple and Google push material that wakes the caller's mobile apps for an incoming call.",
    },
    {
        "name": "Grants",
        "description": "A backend vouches for a user without an access token, or for a guest. Requires its own token.",
    },
]
OPERATOR_TAGS = [
    {"name": "Identity provider", "description": "Called by the identity provider, not by users or operators."},
    {"name": "Operators", "description": "Leases, revocation, the audit and upkeep. Requires an operator's token."},
    {"name": "Health", "description": "Health checks, metrics and the version. Takes no token."},
]

HEADERS: dict[str, Any] = {
    "RequestId": {
        "description": "Identifies the request in the log and the audit. Quote it in a support request.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}},
    "WwwAuthenticate": {"description": "The challenge of RFC 6750.", "schema": {"type": "string"}},
    "Location": {"description": "The path of the resource.", "schema": {"type": "string"}},
}


SIGN_IN_SCHEME = "identityProvider"
"""The security scheme of `with_sign_in`."""


class Api(StrEnum):
    """One half of the API. Each operation belongs to exactly one."""

    USER = "user"
    """Operations of frontends, mobile apps and voice clients, with a user's token."""
    OPERATORS = "operators"
    """Operations of operators, the voice backend, the identity provider and monitoring."""


def operation_id(route: APIRoute) -> str:
    """`issue_telephony_credential` becomes `issueTelephonyCredential`."""
    first, *words = route.name.split("_")
    return first + "".join(word.capitalize() for word in words)


def document(app: FastAPI, api: Api | None = None) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the whole API, or of one half with only the components that it uses."""
    if not app.openapi_schema:
        app.openapi_schema = _whole_document(app)
    return app.openapi_schema if api is None else _half(app.openapi_schema, api)


def _whole_document(app: FastAPI) -> dict[str, Any]:
    spec = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        contact=CONTACT,
        license_info=LICENSE,
        routes=app.routes,
        tags=[*USER_TAGS, *OPERATOR_TAGS],
        servers=[{"url": "/"}],
    )
    components = spec["components"]
    components |= {"headers": dict(HEADERS), "responses": {}, "examples": {}}
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access token that the identity provider issued for this service.",
        }
    }
    _add_problem_schemas(components["schemas"])
    _restore_examples(components["schemas"])
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            is_guarded = path.startswith("/v1") and path != BACKCHANNEL_LOGOUT
            operation["security"] = [{"bearer": []}] if is_guarded else []
            _replace_framework_422(operation)
            if "requestBody" in operation:
                operation["responses"] |= {str(status): entry for status, entry in problems_of(common=BODY).items()}
            resolve(operation, components)
            operation["responses"] = dict(sorted(operation["responses"].items()))
            _add_request_id(operation)
    _drop_titles(spec)
    return _pruned(spec)


def with_sign_in(spec: dict[str, Any], sign_in: SignIn) -> dict[str, Any]:
    """The document with a second security scheme: operators sign in with the identity provider of this deployment."""
    scopes = dict.fromkeys(sign_in.client.scopes, "")
    flow = {
        "authorizationUrl": sign_in.authorization_endpoint,
        "tokenUrl": sign_in.token_endpoint,
        "scopes": scopes,
    }
    scheme = {
        "type": "oauth2",
        "description": "Sign in with the identity provider. Leave client_secret empty.",
        "flows": {"authorizationCode": flow},
        "x-tokenName": "id_token" if sign_in.client.uses_id_token else "access_token",
    }
    paths = {
        path: {
            method: operation | {"security": [*operation["security"], {SIGN_IN_SCHEME: []}]}
            if operation["security"]
            else operation
            for method, operation in operations.items()
        }
        for path, operations in spec["paths"].items()
    }
    schemes = spec["components"]["securitySchemes"] | {SIGN_IN_SCHEME: scheme}
    return spec | {"paths": paths, "components": spec["components"] | {"securitySchemes": schemes}}


def _half(spec: dict[str, Any], api: Api) -> dict[str, Any]:
    tags = USER_TAGS if api is Api.USER else OPERATOR_TAGS
    names = {tag["name"] for tag in tags}
    title = "Dialtone user API" if api is Api.USER else "Dialtone operators' API"
    paths = {}
    for path, operations in spec["paths"].items():
        kept = {method: found for method, found in operations.items() if names.issuperset(found["tags"])}
        if kept:
            paths[path] = kept
    return _pruned(spec | {"info": spec["info"] | {"title": title}, "paths": paths, "tags": tags})


def _add_problem_schemas(schemas: dict[str, Any]) -> None:
    """Add the schemas of error responses, which FastAPI does not know."""
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs")
    schema["properties"]["code"] = {"$ref": "#/components/schemas/ProblemCode"}
    schemas["ProblemDocument"] = schema
    schemas["ProblemCode"] = {
        "type": "string",
        "enum": sorted(all_kinds()),
        "description": "Stable: clients branch on it.",
    }


def _restore_examples(schemas: dict[str, Any], base: type[BaseModel] = BaseModel) -> None:
    """FastAPI (as of 0.165) removes every null from the document, even where an example needs it to be valid."""
    for model in base.__subclasses__():
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in schemas and isinstance(extra, dict) and "examples" in extra:
            schemas[model.__name__]["examples"] = extra["examples"]
        _restore_examples(schemas, model)


def _replace_framework_422(operation: dict[str, Any]) -> None:
    """Replace FastAPI's own 422 schema, which it adds to every operation with parameters, by a problem document."""
    response = operation["responses"].get("422", {})
    if "application/json" in response.get("content", {}):
        operation["responses"]["422"] = problems_of("invalid_request", common=())[422]


def _add_request_id(operation: dict[str, Any]) -> None:
    for response in operation["responses"].values():
        if "$ref" not in response:
            response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}


def _drop_titles(node: Any, *, is_map_of_schemas: bool = False) -> None:
    """Remove pydantic's titles, which only repeat field names and fill two thousand lines."""
    if isinstance(node, list):
        for item in node:
            _drop_titles(item)
    if not isinstance(node, dict):
        return
    if not is_map_of_schemas and ("type" in node or "anyOf" in node or "oneOf" in node or "properties" in node):
        node.pop("title", None)
    for name, value in node.items():
        if name not in ("example", "examples", "value"):
            _drop_titles(value, is_map_of_schemas=name in ("properties", "schemas"))


def _pruned(spec: dict[str, Any]) -> dict[str, Any]:
    """The document with only the components that its operations reach, each section sorted by name."""
    components = spec["components"]
    used: set[tuple[str, str]] = set()
    found = set(_references(spec["paths"]))
    while found:
        used |= found
        found = {ref for section, name in found for ref in _references(components[section][name])} - used
    kept = {
        section: {name: entries[name] for name in sorted(entries) if (section, name) in used}
        for section, entries in components.items()
    }
    schemes = {"securitySchemes": components["securitySchemes"]}
    return spec | {"components": {section: entries for section, entries in (kept | schemes).items() if entries}}


def _references(node: Any) -> Iterator[tuple[str, str]]:
    """(section, name) of each component that something refers to."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for value in node.values():
            if isinstance(value, str) and (match := re.fullmatch(r"#/components/(\w+)/(\w+)", value)):
                yield match[1], match[2]
            else:
                yield from _references(value)
