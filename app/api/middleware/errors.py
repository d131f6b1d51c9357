"""Unhandled exceptions: one problem document for the caller, one log entry for the operator."""

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.api.problems import Problem
from app.api.request_scope import (
    REQUEST_ID,
    STATUS,
)


class UnhandledErrorMiddleware:
    """Logs an unhandled exception and sends a problem. Runs inside CORS, so that pages can read the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise
            structlog.get_logger("dialtone").exception("unhandled_exception")
            if STATUS not in scope:
                await Problem(problems.INTERNAL, scope[REQUEST_ID]).send(send)
