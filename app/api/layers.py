"""Pure ASGI layers around the framework. Outside in: Edge, Origins, Catch, Caps, gate, Body.

Pure ASGI, because Starlette's BaseHTTPMiddleware costs two thirds of the throughput and breaks cancellation.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.problems import Kind, Problem, standing_headers
from app.api.scope import (
    PROBES,
    REQUEST_ID,
    STANDING,
    STATUS,
    client_of,
    headers_of,
    path_of,
    request_id_of,
    route_of,
)
from app.observability import logging as logs
from app.observability.tracing import Note, Spans
from app.vending.audit import CIRCUMSTANCES, Circumstances

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 * 1024

Tell = Callable[[str, str, str, str, int, float, str | None], None]
"""Told of every answer: the request's id, its method, path and route, the status, when it began, and whose it was."""


def telling(count: Callable[[str, str, int], None]) -> Tell:
    """A figure and a line of the access log. `count` hears of the method, the route and the status."""

    def tell(
        request_id: str, method: str, path: str, route: str, status: int, began: float, address: str | None
    ) -> None:
        count(method, route, status)
        logs.request_line(request_id, method, path, status, (time.perf_counter() - began) * 1000, address)

    return tell


class Edge:
    """The request's id, the headers that every answer carries, and the access log."""

    def __init__(
        self,
        app: ASGIApp,
        extra_headers: tuple[tuple[bytes, bytes], ...] = (),
        tell: Tell = lambda *_: None,
        is_crowded: Callable[[], bool] = lambda: False,
        spans: Spans | None = None,
    ) -> None:
        """`is_crowded`: whether connections wait to be read from, so that those who were answered should make room."""
        self._app = app
        self._is_crowded = is_crowded
        self._spans = spans
        self._tell = tell
        self._headers = (
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            *extra_headers,
        )
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no WebSocket here: refuse the handshake
            await send({"type": "websocket.close", "code": 1000})
            return
        began = time.perf_counter()
        headers = headers_of(scope)
        request_id = scope[REQUEST_ID] = request_id_of(headers)
        address, user_agent = client_of(scope), headers.get(b"user-agent")
        CIRCUMSTANCES.set(
            Circumstances(request_id, address, None if user_agent is None else user_agent.decode("latin-1"))
        )

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope[STATUS] = message["status"]
                message["headers"] = self._completed(message.get("headers", ()), scope)
            await send(message)

        try:
            if self._spans is None:
                await self._app(scope, receive, with_headers)
            else:
                with self._spans(scope["method"], "server", _trace_of(headers)) as note:
                    await self._app(scope, receive, with_headers)
                    _tell(note, scope)
        finally:
            status = scope.get(STATUS, 0)
            self._tell(request_id, scope["method"], scope["path"], route_of(scope), status, began, address)

    def _completed(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> list[tuple[bytes, bytes]]:
        """The answer's own headers, and those that all have."""
        complete = [header for header in headers if header[0] not in self._names]
        if prefix := scope.get("root_path"):
            complete = [(n, prefix.encode("ascii") + value if n == b"location" else value) for n, value in complete]
        if (standing := scope.get(STANDING)) is not None:
            complete += standing_headers(standing)
        complete += self._headers
        complete.append((b"x-request-id", scope[REQUEST_ID].encode("ascii")))
        if self._is_crowded() and path_of(scope) not in PROBES:
            complete.append((b"connection", b"close"))
        return complete


class Origins:
    """CORS for whoever names an origin. Who names none is no page of another site, and goes past it."""

    def __init__(self, app: ASGIApp, cors: ASGIApp) -> None:
        """`cors` is around the same app."""
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_from_a_page = scope["type"] == "http" and b"origin" in headers_of(scope)
        await (self._cors if is_from_a_page else self._app)(scope, receive, send)


class Catch:
    """Inside CORS, so that a page can read even this: what breaks becomes one problem, its story goes to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise
            structlog.get_logger("dialtone").exception("unhandled")
            if STATUS not in scope:
                await Problem(problems.INTERNAL, scope[REQUEST_ID]).send(send)


class Caps:
    """Refuses what is too long or ambiguous before anything looks at it closely."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (kind := _oddity(scope)) is not None:
            await Problem(kind, scope[REQUEST_ID], (("Connection", "close"),)).send(send)
            return
        await self._app(scope, receive, send)


def _oddity(scope: Scope) -> Kind | None:
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
    # Two ways to say where a request ends or whom it is for are how requests are smuggled (RFC 9112 sections 3.2, 6.1).
    length = headers.get(b"content-length")
    if length is not None and (b"transfer-encoding" in headers or not length.isdigit()):
        return problems.MALFORMED
    return None


def _trace_of(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """What the caller says of the trace that this request is part of."""
    names = (b"traceparent", b"tracestate")
    return {name.decode("ascii"): headers[name].decode("latin-1") for name in names if name in headers}


def _tell(note: Note, scope: Scope) -> None:
    """OpenTelemetry's names for HTTP servers; the route, never the address."""
    route = route_of(scope)
    note("name", f"{scope['method']} {route}")
    note("http.request.method", scope["method"])
    note("http.route", route)
    note("http.response.status_code", scope.get(STATUS, 0))
    note("dialtone.request_id", scope[REQUEST_ID])
