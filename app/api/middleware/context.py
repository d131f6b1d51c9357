"""Pure ASGI layers around the framework. Outside in: Edge, Origins, Catch, Caps, gate, Body.

Pure ASGI, because Starlette's BaseHTTPMiddleware costs two thirds of the throughput and breaks cancellation.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import standing_headers
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
