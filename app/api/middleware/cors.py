"""CORS for listed origins."""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.api.origins import AllowedOrigins
from app.api.problems import Problem
from app.api.request_scope import REQUEST_ID, headers_of

ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "X-Request-ID",
    # Tracing libraries of browsers add these to every request: W3C Trace Context and Baggage, and Sentry.
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
)
"""Request headers that a page's script may send."""

EXPOSED_HEADERS = (
    "X-Request-ID",
    "Retry-After",
    "WWW-Authenticate",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
"""Response headers that a page's script may read."""

REQUESTED_HEADERS = "access-control-request-headers"

PREFLIGHT_SECONDS = 600
"""How long a browser may cache a preflight."""


class OriginAwareCORSMiddleware:
    """Starlette's CORS middleware for requests with an `Origin`. All others bypass it, and its cost."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], headers: Iterable[str] = ()) -> None:
        """`headers`: request headers that pages may send besides ALLOWED_HEADERS."""
        self._app = app
        self._cors = _CORSMiddleware(app, origins, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_origin = scope["type"] == "http" and b"origin" in headers_of(scope)
        await (self._cors if has_origin else self._app)(scope, receive, send)


class _CORSMiddleware(CORSMiddleware):
    """Starlette's middleware with wildcard labels, and with problem documents for rejected preflights."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], headers: Iterable[str]) -> None:
        super().__init__(
            app,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[*ALLOWED_HEADERS, *headers],
            allow_private_network=True,  # for listed origins, of which the setting is the permission
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_SECONDS,
        )
        self._origins = AllowedOrigins(origins)

    def is_allowed_origin(self, origin: str) -> bool:
        return origin in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            await super().__call__(scope, receive, send)
            return
        response = self.preflight_response(_with_one_list_of_names(headers))
        if response.status_code < 400:
            await response(scope, receive, send)
            return
        kept = [(name, value) for name, value in response.headers.items() if not name.startswith("content-")]
        await Problem(problems.PREFLIGHT_REJECTED, scope[REQUEST_ID], tuple(kept)).send(send)


def _with_one_list_of_names(headers: Headers) -> Headers:
    """The headers of a preflight, with the names that it requests in one list without empty elements.

    Starlette reads only the first list, and rejects an empty element, which has no meaning (RFC 9110 section 5.6.1).
    """
    names = [name for value in headers.getlist(REQUESTED_HEADERS) for name in value.split(",") if name.strip()]
    found = headers.mutablecopy()
    del found[REQUESTED_HEADERS]
    if names:
        found[REQUESTED_HEADERS] = ",".join(names)
    return found
