"""Limits of size, time, media type and coding of request bodies. Runs after authentication."""

import asyncio
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.problems import Problem, ProblemKind
from app.api.request_scope import BACKCHANNEL_LOGOUT, BODY, REQUEST_ID, headers_of, path_of

MAX_BODY_BYTES = 64 * 1024
MAX_PUSH_BODY_BYTES = 128 * 1024
PUSH_PATH = "/v1/push-credentials"
"""Bodies below this path may have MAX_PUSH_BODY_BYTES, because certificates and service accounts are large."""

BODY_SECONDS = 10.0
"""Deadline for the complete body. uvicorn has none."""

DISCARDED_BYTES = 256 * 1024
DISCARDED_SECONDS = 1.0
"""The part of a rejected body that is still read, so that the client receives the error response."""

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
IDENTITY = b"identity"
"""The coding of a body that is not compressed. Clients should not send it, but some do (RFC 9110 section 8.4.1)."""


class BodyLimitsMiddleware:
    """Reads the whole body before the route runs.

    Rejects bodies that are too large, too slow, compressed or of the wrong type.
    """

    def __init__(self, app: ASGIApp, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        kind, body = await _read(scope, receive, self._seconds)
        if kind is not None:
            # A body of another type is complete, so `receive` would wait for a disconnect.
            if kind is not problems.UNSUPPORTED_TYPE and not _is_body_withheld(scope, kind):
                await _discard(receive)
            await Problem(kind, scope[REQUEST_ID], (("Connection", "close"),)).send(send)
        elif body is not None:
            scope[BODY] = body
            whole = {"type": "http.request", "body": body, "more_body": False}
            await self._app(scope, followed_by(whole, receive), send)


def _is_body_withheld(scope: Scope, kind: ProblemKind) -> bool:
    """Whether the client sends its body only after 100 (Continue), which `receive` would send.

    The final response comes instead (RFC 9110 section 10.1.1). A body with a length is too large by its length, before
    any of it was read.
    """
    headers = headers_of(scope)
    return kind is problems.TOO_LARGE and b"content-length" in headers and b"expect" in headers


def followed_by(first: Message, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that returns `first`, and then the messages of `receive`."""
    is_read = False

    async def receiving() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return first

    return receiving


async def _read(scope: Scope, receive: Receive, seconds: float) -> tuple[ProblemKind | None, bytes | None]:
    """The problem and the body, one of them None. Both are None if the caller disconnected."""
    headers, path = headers_of(scope), path_of(scope)
    most = MAX_PUSH_BODY_BYTES if path.startswith(PUSH_PATH) else MAX_BODY_BYTES
    if int(headers.get(b"content-length", b"0")) > most:
        return problems.TOO_LARGE, None
    message = arrived(receive)
    body: bytes | None
    if message is not None and message["type"] == "http.request" and not message.get("more_body"):
        body = message.get("body", b"")
    else:
        try:
            async with asyncio.timeout(seconds):
                body = await _gathered(message, receive, most)
        except TimeoutError:
            return problems.TOO_SLOW, None
    if body is not None and len(body) > most:
        return problems.TOO_LARGE, None
    if body:
        media_type = headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
        encoding = headers.get(b"content-encoding", IDENTITY).strip().lower()
        if media_type != (FORM if path == BACKCHANNEL_LOGOUT else JSON).encode() or encoding not in (b"", IDENTITY):
            return problems.UNSUPPORTED_TYPE, None
    return None, body


def arrived(receive: Receive) -> Message | None:
    """The next message if it has arrived, which saves a timer; None if `receive` would wait."""
    waiting: Any = receive()
    if not isinstance(waiting, CoroutineType):
        return None
    try:
        waiting.send(None)
    except StopIteration as arrived:
        message: Message = arrived.value
        return message
    # `receive` would wait: close the coroutine. The caller calls `receive` again, with a deadline.
    waiting.close()
    return None


async def _gathered(first: Message | None, receive: Receive, most: int) -> bytes | None:
    """The body, cut off after it exceeds `most` bytes. None if the caller disconnected."""
    body, message = bytearray(), first or await receive()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > most or not message.get("more_body"):
            return bytes(body)
        message = await receive()
    return None


async def _discard(receive: Receive) -> None:
    """Read and discard a part of the body. Closing a connection with unread bytes resets it and loses the response."""
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
