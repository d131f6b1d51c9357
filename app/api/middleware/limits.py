"""Limits on request headers and target, and rejection of ambiguous framing.

Under `dialtone serve`, `app/serving/framing.py` has rejected ambiguous framing before. Other ASGI servers may not.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.api.problems import Problem, ProblemKind
from app.api.request_scope import (
    REQUEST_ID,
    headers_of,
)

MAX_HEADER_BYTES = 32 * 1024


MAX_HEADERS = 100


MAX_TARGET_BYTES = 8 * 1024


class HeaderLimitsMiddleware:
    """Rejects requests with too many or too long headers, a too long target, or ambiguous framing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (kind := _violation(scope)) is not None:
            await Problem(kind, scope[REQUEST_ID], (("Connection", "close"),)).send(send)
            return
        await self._app(scope, receive, send)


def _violation(scope: Scope) -> ProblemKind | None:
    raw, headers = scope["headers"], headers_of(scope)
    if len(raw) > MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > MAX_HEADER_BYTES:
        return problems.HEADERS_TOO_LARGE
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return problems.URI_TOO_LONG
    if len(headers) < len(raw):
        names = [name for name, _ in raw]
        if names.count(b"authorization") > 1:
            return problems.BAD_AUTHORIZATION
        if names.count(b"host") > 1 or names.count(b"content-length") > 1:
            return problems.MALFORMED
    # Request smuggling uses conflicting lengths or hosts (RFC 9112 sections 3.2 and 6.1).
    length = headers.get(b"content-length")
    if length is not None and (b"transfer-encoding" in headers or not length.isdigit()):
        return problems.MALFORMED
    return None
