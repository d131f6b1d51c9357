"""What the framework raises, as problems. Its own answers would echo the request's body and our tracebacks' values."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from app.api import problems
from app.api.pagination import InvalidCursor
from app.api.problems import MEDIA_TYPE, Problem, problem_of
from app.api.scope import PRINCIPAL, REQUEST_ID
from app.vending.audit import Audit, Decision
from app.vending.errors import (
    AccessDenied,
    DialtoneError,
    LedgerUnavailable,
    LogoutTokenRejected,
    PushMaterialRejected,
    TelnyxError,
    TokenRejected,
)
from app.vending.models import Principal

AUDITED_ERRORS = (
    AccessDenied,
    TokenRejected,
    LogoutTokenRejected,
    PushMaterialRejected,
    TelnyxError,
    LedgerUnavailable,
)
"""What the audit hears of: refusals and trouble, not questions after what is not there."""

MAX_FAULTS = 20
REDACTED_NAME = "[unknown]"
"""Stands in `loc` for a name that the caller made up."""

_BY_STATUS = {404: problems.NOT_FOUND, 405: problems.METHOD_NOT_ALLOWED, 400: problems.MALFORMED}


def install(app: FastAPI, audit: Audit) -> None:
    """Every way in which a route can end badly leads here."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, DialtoneError)  # noqa: S101 - by registration
        if isinstance(error, AUDITED_ERRORS) and not error.is_recorded:
            asking: Principal | None = request.scope.get(PRINCIPAL)
            audit.record_nowait(Decision.denial(error, None if asking is None else asking.user_key))
        return _response(problem_of(error, request.scope[REQUEST_ID]))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - by registration
        faults = tuple(_fault(fault) for fault in error.errors()[:MAX_FAULTS])
        return _response(Problem(problems.INVALID, request.scope[REQUEST_ID], errors=faults))

    async def invalid_cursor(request: Request, _: Exception) -> Response:
        return _response(Problem(problems.INVALID_CURSOR, request.scope[REQUEST_ID]))

    async def unroutable(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - by registration
        kind = _BY_STATUS.get(error.status_code, problems.INTERNAL)
        headers = (("Allow", _allowed(request)),) if kind is problems.METHOD_NOT_ALLOWED else ()
        return _response(Problem(kind, request.scope[REQUEST_ID], headers))

    app.add_exception_handler(DialtoneError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(InvalidCursor, invalid_cursor)
    app.add_exception_handler(HTTPException, unroutable)
    app.add_exception_handler(ResponseValidationError, _broken)
    app.add_exception_handler(Exception, _broken)  # answers, and raises on: the `Catch` layer tells the log


def _allowed(request: Request) -> str:
    """Every method of the address (RFC 9110 section 15.5.6). The framework names those of one route of it."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods))


async def _broken(request: Request, _: Exception) -> Response:
    """An answer of ours that does not fit its model. FastAPI's text would hold the answer itself."""
    return _response(Problem(problems.INTERNAL, request.scope[REQUEST_ID]))


def _fault(fault: dict[str, Any]) -> dict[str, Any]:
    """Where and what, never the value: no `input`, no `ctx`, and no field name that the caller made up."""
    loc = [part if isinstance(part, int) else str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        return {"loc": [*loc[:-1], REDACTED_NAME], "type": fault["type"], "message": "There is no such field."}
    if fault["type"] == "json_invalid":
        return {"loc": loc[:1], "type": fault["type"], "message": "The body is not JSON."}
    return {"loc": loc, "type": fault["type"], "message": str(fault["msg"])}


def _response(problem: Problem) -> Response:
    return Response(problem.body(), problem.kind.status, dict(problem.headers), MEDIA_TYPE)
