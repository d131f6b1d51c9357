"""Keys of the ASGI scope that middleware and routes share, and functions that read the scope."""

import re
from collections.abc import Mapping

from starlette.types import Scope

from app.vending.ids import new_id

HEADERS = "dialtone.headers"
"""The request's headers by lower-case name. Holds the last of repeated headers; HeaderLimitsMiddleware checks those."""

REQUEST_ID = "dialtone.request_id"
"""The request's id."""

PRINCIPAL = "dialtone.principal"
"""The caller, set by BearerAuthMiddleware. Routes fail without it, so a route cannot bypass authentication."""

VISIBILITY = "dialtone.visibility"
"""The issuers that the operator may see, set by the guard of the operators' API. Its routes fail without it."""

RATE_LIMIT = "dialtone.rate_limit"
"""The state of the user's rate limit, if there is one. Every response carries it in headers."""

BODY = "dialtone.body"
"""The whole body, after it was read."""

KEY_PENDING = "dialtone.key_pending"
"""True if the logout token's key is unknown until the next fetch of the keys."""

STATUS = "dialtone.status"
"""The status of the response, after it has started."""

PROBE_PATHS = ("/livez", "/readyz", "/version")
"""Paths of health checks, which every listener serves."""

HEALTH_PATHS = (*PROBE_PATHS, "/metrics")
"""Paths of health checks and monitoring, which bypass every queue."""

BACKCHANNEL_LOGOUT = "/v1/backchannel-logout"
"""The only path under /v1 without a bearer token. It takes a form, whose logout token authenticates the caller."""

_OWN_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] | None = scope.get(HEADERS)
    if found is None:
        found = scope[HEADERS] = dict(scope["headers"])
    return found


def path_of(scope: Scope) -> str:
    """The path that routes see."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path.removeprefix(prefix) if prefix else path


def client_of(scope: Scope) -> str | None:
    """The caller's address. Behind a proxy that is not trusted, the proxy's address."""
    client = scope.get("client")
    return client[0] if client else None


def route_of(scope: Scope) -> str:
    """The pattern of the route; `-` for requests that reached no route."""
    path: str = getattr(scope.get("route"), "path", "-")
    return path


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's `X-Request-ID` if its characters are safe, so that traces continue; otherwise a new id."""
    own = headers.get(b"x-request-id")
    if own is not None and _OWN_REQUEST_ID.match(own):
        return own.decode("ascii")
    return new_id()
