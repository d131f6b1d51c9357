"""The innermost layer but one: a whole JSON body within its size and time, or none. No stranger's body is read."""

import asyncio
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.problems import Problem, ProblemKind
from app.api.scope import BACKCHANNEL_LOGOUT, BODY, REQUEST_ID, headers_of, path_of

MAX_BODY_BYTES = 64 * 1024
MAX_PUSH_BODY_BYTES = 128 * 1024
PUSH_PATH = "/v1/push-credentials"
"""Certificates and service accounts are larger than anything else that is sent here."""

BODY_SECONDS = 10.0
"""A body must be complete after this long: uvicorn itself waits for ever."""

DISCARDED_BYTES = 256 * 1024
DISCARDED_SECONDS = 1.0
"""So much of a refused body is still read, so that an honest client with a body too large hears why."""

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class BodyLimitsMiddleware:
    """Behind the gate."""

    def __init__(self, app: ASGIApp, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        kind, body = await _read(scope, receive, self._seconds)
        if kind is not None:
            await _discard(receive)
            await Problem(kind, scope[REQUEST_ID], (("Connection", "close"),)).send(send)
        elif body is not None:
            scope[BODY] = body
            whole = {"type": "http.request", "body": body, "more_body": False}
            await self._app(scope, followed_by(whole, receive), send)


def followed_by(first: Message, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """What was received already, as if it came now, and then the rest."""
    is_read = False

    async def receiving() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return first

    return receiving


async def _read(scope: Scope, receive: Receive, seconds: float) -> tuple[ProblemKind | None, bytes | None]:
    """The body, or the kind of problem with it. Neither: the caller hung up."""
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
        if media_type != (FORM if path == BACKCHANNEL_LOGOUT else JSON).encode():
            return problems.UNSUPPORTED_TYPE, None
    return None, body


def arrived(receive: Receive) -> Message | None:
    """The next message if it is there already, as it mostly is: that saves a timer. None: it must be waited for."""
    waiting: Any = receive()
    if not isinstance(waiting, CoroutineType):
        return None
    try:
        waiting.send(None)
    except StopIteration as arrived:
        message: Message = arrived.value
        return message
    # It would wait: given up as if cancelled, and asked again by who has a deadline.
    waiting.close()
    return None


async def _gathered(first: Message | None, receive: Receive, most: int) -> bytes | None:
    """All that comes, or a little more than `most`. None: the caller hung up."""
    body, message = bytearray(), first or await receive()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > most or not message.get("more_body"):
            return bytes(body)
        message = await receive()
    return None


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
