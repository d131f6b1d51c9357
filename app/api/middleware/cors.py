"""CORS for listed origins."""

from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.request_scope import headers_of

EXPOSED_HEADERS = (
    "X-Request-ID",
    "Retry-After",
    "WWW-Authenticate",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
"""Response headers that a page's script may read."""

PREFLIGHT_SECONDS = 600
"""How long a browser may cache a preflight."""


class OriginAwareCORSMiddleware:
    """Starlette's CORS middleware for requests with an `Origin`. All others bypass it, and its cost."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            app,
            allow_origins=sorted(origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_origin = scope["type"] == "http" and b"origin" in headers_of(scope)
        await (self._cors if has_origin else self._app)(scope, receive, send)
