"""Pure ASGI layers around the framework. Outside in, behind the turnstile: `Edge`, CORS, `Catch`, `Caps`, gate, `Body`.

Pure ASGI, because Starlette's BaseHTTPMiddleware costs two thirds of the throughput and breaks cancellation.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.problems import Kind, Problem
from app.observability import logs
from app.observability.tracing import Note, Spans, no_spans
from app.vending.auditing import CIRCUMSTANCES, Circumstances

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_PUSH_BODY_BYTES = 128 * 1024
PUSH = "/v1/push-credentials"
"""Certificates and service accounts are larger than anything else that is sent here."""

BODY_SECONDS = 10.0
"""A body must be complete after this long: uvicorn itself waits for ever."""

DISCARDED_BYTES = 256 * 1024
DISCARDED_SECONDS = 1.0
"""So much of a refused body is still read, so that an honest client with a body too large hears why."""

REQUEST_ID = "dialtone.request_id"
"""Where the request's id lies in the ASGI scope."""

PRINCIPAL = "dialtone.principal"
"""Where the gate puts who asks. A route without it fails: nothing behind the gate can be reached around it."""

PROBES = ("/livez", "/readyz", "/metrics", "/version")
"""What looks after this service, and must not wait behind a crowd."""

BACKCHANNEL_LOGOUT = "/v1/backchannel-logout"
"""The one address under /v1 without a bearer token, and with a form: the logout token in it is the proof."""

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_OWN_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


class Edge:
    """The request's id, the headers that every answer carries, and the access log."""

    def __init__(
        self,
        app: ASGIApp,
        extra_headers: tuple[tuple[bytes, bytes], ...] = (),
        count: Callable[[str, str, int], None] = lambda method, route, status: None,
        is_crowded: Callable[[], bool] = lambda: False,
        spans: Spans = no_spans,
    ) -> None:
        """`count` hears of every request: its method, the pattern of its address, and the answer's status.

        `is_crowded`: whether connections wait to be read from, so that those who were answered should make room.
        """
        self._app = app
        self._is_crowded = is_crowded
        self._spans = spans
        self._count = count
        self._headers = (
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            *extra_headers,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no WebSocket here: refuse the handshake
            await send({"type": "websocket.close", "code": 1000})
            return
        began = time.perf_counter()
        request_id = _request_id(scope)
        scope[REQUEST_ID] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        address = client_of(scope)
        CIRCUMSTANCES.set(Circumstances(request_id, address, _user_agent(scope)))
        is_probe = path_of(scope) in PROBES
        status, prefix = 0, scope.get("root_path", "").encode("ascii")

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*self._headers, (b"x-request-id", request_id.encode("ascii"))]
                names = {name for name, _ in own}
                kept = [
                    (name, prefix + value if name == b"location" and prefix else value)
                    for name, value in message.get("headers", ())
                    if name.lower() not in names
                ]
                if self._is_crowded() and not is_probe:
                    own.append((b"connection", b"close"))
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        try:
            with self._spans(scope["method"], "server", _trace_of(scope)) as note:
                await self._app(scope, receive, with_headers)
                _tell(note, scope, status)
        finally:
            self._count(scope["method"], _route_of(scope), status)
            logs.line(
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round((time.perf_counter() - began) * 1000, 2),
                client=address,
            )


class Catch:
    """Inside CORS, so that a page can read even this: what breaks becomes one problem, its story goes to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            structlog.get_logger("dialtone").exception("unhandled")
            if not has_started:
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


class Body:
    """Innermost: a whole JSON body within its size and time, or none. Behind the gate: no stranger's body is read."""

    def __init__(self, app: ASGIApp, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        kind, body = await _read_body(scope, receive, self._seconds)
        if kind is not None:
            await _discard(receive)
            await Problem(kind, scope[REQUEST_ID], (("Connection", "close"),)).send(send)
        elif body is not None:
            await self._app(scope, replay(body, receive), send)


def _request_id(scope: Scope) -> str:
    """The caller's own, if it is harmless, so that a trace goes through; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _OWN_REQUEST_ID.match(value):
            return str(value, "ascii")
    return uuid.uuid4().hex


def _oddity(scope: Scope) -> Kind | None:
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        return problems.HEADERS_TOO_LARGE
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return problems.URI_TOO_LONG
    names = [name for name, _ in headers]
    if names.count(b"authorization") > 1:
        return problems.BAD_AUTHORIZATION
    # Two ways to say where a request ends or whom it is for are how requests are smuggled (RFC 9112 sections 3.2, 6.1).
    lengths = [value for name, value in headers if name == b"content-length"]
    is_smuggled = b"transfer-encoding" in names and lengths
    if names.count(b"host") > 1 or len(lengths) > 1 or is_smuggled or not all(value.isdigit() for value in lengths):
        return problems.MALFORMED
    return None


async def _read_body(scope: Scope, receive: Receive, seconds: float) -> tuple[Kind | None, bytes | None]:
    """The body, or the kind of problem with it. Neither: the caller hung up."""
    headers = dict(scope["headers"])
    most = MAX_PUSH_BODY_BYTES if path_of(scope).startswith(PUSH) else MAX_BODY_BYTES
    if int(headers.get(b"content-length", b"0")) > most:
        return problems.TOO_LARGE, None
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None, None
                body += message.get("body", b"")
                if len(body) > most:
                    return problems.TOO_LARGE, None
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        return problems.TOO_SLOW, None
    media_type = headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
    wanted = FORM if path_of(scope) == BACKCHANNEL_LOGOUT else JSON
    if body and media_type != wanted.encode():
        return problems.UNSUPPORTED_TYPE, None
    return None, bytes(body)


def client_of(scope: Scope) -> str | None:
    """Its address: the proxy's, unless that is one whose word is believed."""
    client = scope.get("client")
    return client[0] if client else None


def _user_agent(scope: Scope) -> str | None:
    value = next((value for name, value in scope["headers"] if name == b"user-agent"), None)
    return None if value is None else value.decode("latin-1")


def _trace_of(scope: Scope) -> dict[str, str]:
    """What the caller says of the trace that this request is part of."""
    return {
        name.decode("ascii"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }


def _tell(note: Note, scope: Scope, status: int) -> None:
    """OpenTelemetry's names for HTTP servers; the route, never the address."""
    route = _route_of(scope)
    note("name", f"{scope['method']} {route}")
    note("http.request.method", scope["method"])
    note("http.route", route)
    note("http.response.status_code", status)
    note("dialtone.request_id", scope[REQUEST_ID])


def _route_of(scope: Scope) -> str:
    """The pattern; requests that never came to a route are all alike."""
    path: str = getattr(scope.get("route"), "path", "-")
    return path


def path_of(scope: Scope) -> str:
    """The path that routes see."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _discard(receive: Receive) -> None:
    """Read on a little without keeping it: a connection closed on unread bytes is reset, and the answer with it."""
    left = DISCARDED_BYTES
    try:
        async with asyncio.timeout(DISCARDED_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """What was read, as if it came now."""
    is_read = False

    async def replaying() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying
