"""Request context: the request's id and caller, common response headers, the access log and the request's span.

All middleware here is pure ASGI: Starlette's BaseHTTPMiddleware costs two thirds of the throughput and breaks
cancellation.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanKind, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import rate_limit_headers
from app.api.request_scope import (
    RATE_LIMIT,
    REQUEST_ID,
    STATUS,
    client_of,
    headers_of,
    request_id_of,
    route_of,
)
from app.observability.logging import log_request
from app.vending.audit import REQUEST_CONTEXT, RequestContext

AccessLog = Callable[[str, str, str, str, int, float, str | None], None]
"""Records a response: request id, method, path, route, status, start (`perf_counter`) and client address."""


def build_access_log(count: Callable[[str, str, int], None]) -> AccessLog:
    """Record a response in the metrics and in the access log. `count` gets the method, the route and the status."""

    def record(
        request_id: str, method: str, path: str, route: str, status: int, began: float, address: str | None
    ) -> None:
        count(method, route, status)
        log_request(request_id, method, path, status, (time.perf_counter() - began) * 1000, address)

    return record


class RequestContextMiddleware:
    """Sets the request id and the caller, completes the response headers, and records the response."""

    def __init__(
        self,
        app: ASGIApp,
        extra_headers: tuple[tuple[bytes, bytes], ...] = (),
        access_log: AccessLog = lambda *_: None,
        tracer: Tracer | None = None,
    ) -> None:
        """If `tracer` is None, tracing is off."""
        self._app = app
        self._tracer = tracer
        self._access_log = access_log
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
        if scope["type"] != "http":  # Dialtone has no WebSocket: reject the handshake
            await send({"type": "websocket.close", "code": 1000})
            return
        began = time.perf_counter()
        headers = headers_of(scope)
        request_id = scope[REQUEST_ID] = request_id_of(headers)
        address, user_agent = client_of(scope), headers.get(b"user-agent")
        REQUEST_CONTEXT.set(
            RequestContext(request_id, address, None if user_agent is None else user_agent.decode("latin-1"))
        )

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope[STATUS] = message["status"]
                message["headers"] = self._completed(message.get("headers", ()), scope)
            await send(message)

        try:
            if self._tracer is None:
                await self._app(scope, receive, with_headers)
            else:
                # Exceptions are not recorded, because their texts may contain values.
                with self._tracer.start_as_current_span(
                    scope["method"],
                    context=parent_trace(headers),
                    kind=SpanKind.SERVER,
                    record_exception=False,
                    set_status_on_exception=False,
                ) as span:
                    await self._app(scope, receive, with_headers)
                    _describe(span, scope)
        finally:
            status = scope.get(STATUS, 0)
            self._access_log(request_id, scope["method"], scope["path"], route_of(scope), status, began, address)

    def _completed(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> list[tuple[bytes, bytes]]:
        """The response's own headers and the common ones."""
        complete = [header for header in headers if header[0] not in self._names]
        if prefix := scope.get("root_path"):
            complete = [(n, prefix.encode("ascii") + value if n == b"location" else value) for n, value in complete]
        if (rate_limit := scope.get(RATE_LIMIT)) is not None:
            complete += rate_limit_headers(rate_limit)
        complete += self._headers
        complete.append((b"x-request-id", scope[REQUEST_ID].encode("ascii")))
        return complete


def parent_trace(headers: Mapping[bytes, bytes]) -> Context:
    """The caller's W3C Trace Context."""
    names = (b"traceparent", b"tracestate")
    return extract({name.decode("ascii"): headers[name].decode("latin-1") for name in names if name in headers})


def span_attributes(method: str, route: str, status: int, request_id: str) -> dict[str, str | int]:
    """OpenTelemetry's attributes for HTTP servers. The route is recorded and never the path, which may hold ids."""
    return {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "dialtone.request_id": request_id,
    }


def _describe(span: Span, scope: Scope) -> None:
    method, route = scope["method"], route_of(scope)
    span.update_name(f"{method} {route}")
    span.set_attributes(span_attributes(method, route, scope.get(STATUS, 0), scope[REQUEST_ID]))
