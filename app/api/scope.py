"""What the layers know of a request: the places in the ASGI scope where they leave it for each other."""

import re
from collections.abc import Mapping

from starlette.types import Scope

from app.vending.ids import new_id

HEADERS = "dialtone.headers"
"""The request's headers by lower-case name, read once; of a name that comes twice the last, which `Caps` looks into."""

REQUEST_ID = "dialtone.request_id"
"""The request's id."""

PRINCIPAL = "dialtone.principal"
"""Where the gate puts who asks. A route without it fails: nothing behind the gate can be reached around it."""

RATE_LIMIT = "dialtone.standing"
"""How the user stands with their limit, where there is one: told with every answer."""

BODY = "dialtone.body"
"""The whole body, once it was read."""

RAW_REQUEST = "dialtone.asked"
"""The request as it came, where the server asked the shortcut and was told that it must go through all layers."""

STATUS = "dialtone.status"
"""The status of the answer, once it has begun."""

HEALTH_PATHS = ("/livez", "/readyz", "/metrics", "/version")
"""What looks after this service, and must not wait behind a crowd."""

BACKCHANNEL_LOGOUT = "/v1/backchannel-logout"
"""The one address under /v1 without a bearer token, and with a form: the logout token in it is the proof."""

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
    """Its address: the proxy's, unless that is one whose word is believed."""
    client = scope.get("client")
    return client[0] if client else None


def route_of(scope: Scope) -> str:
    """The pattern; requests that never came to a route are all alike."""
    path: str = getattr(scope.get("route"), "path", "-")
    return path


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own, if it is harmless, so that a trace goes through; else a new one."""
    own = headers.get(b"x-request-id")
    if own is not None and _OWN_REQUEST_ID.match(own):
        return own.decode("ascii")
    return new_id()
