"""CORS for listed origins."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.scope import (
    headers_of,
)


class OriginAwareCORSMiddleware:
    """CORS for whoever names an origin. Who names none is no page of another site, and goes past it."""

    def __init__(self, app: ASGIApp, cors: ASGIApp) -> None:
        """`cors` is around the same app."""
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_from_a_page = scope["type"] == "http" and b"origin" in headers_of(scope)
        await (self._cors if is_from_a_page else self._app)(scope, receive, send)
