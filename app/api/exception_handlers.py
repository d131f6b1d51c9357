"""Exception handlers that return problem documents. FastAPI's default responses would echo the request's body."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from app.api import problems
from app.api.pagination import InvalidCursor
from app.api.problems import MEDIA_TYPE, Problem, problem_of
from app.api.request_faults import InvalidInput, faults_of
from app.api.request_scope import PRINCIPAL, REQUEST_ID, path_of
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
"""Errors that the audit records: denials and failures, but not requests for missing resources."""

_BY_STATUS = {404: problems.NOT_FOUND, 405: problems.METHOD_NOT_ALLOWED, 400: problems.MALFORMED}


def install(app: FastAPI, audit: Audit) -> None:
    """Register a handler for every exception that a route can raise."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, DialtoneError)  # noqa: S101 - by registration
        if isinstance(error, AUDITED_ERRORS) and not error.is_recorded:
            principal: Principal | None = request.scope.get(PRINCIPAL)
            audit.record_nowait(Decision.denial(error, None if principal is None else principal.user_key))
        return _response(problem_of(error, request.scope[REQUEST_ID]))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - by registration
        body = getattr(request.scope.get("route"), "body_field", None)
        faults = faults_of(error, None if body is None else body.field_info)
        return _response(Problem(problems.INVALID, request.scope[REQUEST_ID], errors=faults))

    async def unparsable(request: Request, error: Exception) -> Response:
        assert isinstance(error, InvalidInput)  # noqa: S101 - by registration
        return _response(Problem(problems.INVALID, request.scope[REQUEST_ID], errors=(error.fault,)))

    async def invalid_cursor(request: Request, _: Exception) -> Response:
        return _response(Problem(problems.INVALID_CURSOR, request.scope[REQUEST_ID]))

    async def unroutable(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - by registration
        kind = _BY_STATUS.get(error.status_code, problems.INTERNAL)
        headers = (("Allow", _allowed(request)),) if kind is problems.METHOD_NOT_ALLOWED else ()
        return _response(Problem(kind, request.scope[REQUEST_ID], headers))

    app.add_exception_handler(DialtoneError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(InvalidInput, unparsable)
    app.add_exception_handler(InvalidCursor, invalid_cursor)
    app.add_exception_handler(HTTPException, unroutable)
    app.add_exception_handler(ResponseValidationError, _broken)
    app.add_exception_handler(Exception, _broken)  # re-raised: UnhandledErrorMiddleware logs it


def _allowed(request: Request) -> str:
    """All methods of the path (RFC 9110 section 15.5.6). Starlette lists only those of one route.

    A path without parameters is a resource of its own, although the pattern of another resource may match it too.
    """
    path = path_of(request.scope)
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path is not None]
    exact = [route for route in routes if route.path == path]
    matching = exact or [route for route in routes if compile_path(str(route.path))[0].match(path)]
    return ", ".join(sorted(set().union(*(route.methods or () for route in matching))))


async def _broken(request: Request, _: Exception) -> Response:
    """A response that violates its own schema. FastAPI's message would contain the response."""
    return _response(Problem(problems.INTERNAL, request.scope[REQUEST_ID]))


def _response(problem: Problem) -> Response:
    return Response(problem.body(), problem.kind.status, dict(problem.headers), MEDIA_TYPE)
