"""Faults on demand: middleware that makes the sandbox slow, unresponsive or faulty.

A fault defines the requests that it applies to, how often it occurs, its effect, and whether the request is executed
first. The most important fault is a request that is executed but never answered: a client must not repeat a create
after it.
"""

import asyncio
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.sandbox.journal import Entry

MAX_HANG_SECONDS = 120.0


class FaultKind(StrEnum):
    STATUS = "status"
    """Respond with `status`, `body` and `headers`."""
    DELAY = "delay"
    """Wait for `seconds`, then respond as usual. With `after_commit`, execute the request before the wait."""
    HANG = "hang"
    """Never respond."""
    DROP = "drop"
    """Close the connection without a response."""
    DRIP = "drip"
    """Send the correct response, one byte every `seconds`."""
    GARBAGE = "garbage"
    """Send the correct status with `body` in place of the response body."""
    HUGE = "huge"
    """Send the correct status with a body of 64 MB."""


@dataclass(slots=True)
class Fault:
    """One fault. An empty `method` or `path` matches every request; `path` is a regular expression."""

    kind: FaultKind
    method: str = ""
    path: str = ""
    times: int = 1
    after_commit: bool = False
    status: int = 500
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def from_json(cls, plan: dict[str, Any]) -> "Fault":
        """Raises ValueError or TypeError for an invalid fault."""
        fault = cls(**{**plan, "kind": FaultKind(plan.get("kind", ""))})
        re.compile(fault.path)
        return fault

    def hits(self, scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        return self.times > 0 and self.method in ("", method) and re.search(self.path, path) is not None


class FaultMiddleware:
    """Applies the first fault that matches the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.plans: list[Fault] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http":
            fault = next((plan for plan in self.plans if plan.hits(scope)), None)
        if fault is None:
            await self._app(scope, receive, send)
            return
        fault.times -= 1
        entry: Entry = scope["sandbox.entry"]
        entry.fault = fault.kind
        answer = _Answer()
        if fault.kind is FaultKind.DELAY and not fault.after_commit:
            await asyncio.sleep(fault.seconds)
        if fault.after_commit or fault.kind in (FaultKind.DELAY, FaultKind.DRIP, FaultKind.GARBAGE, FaultKind.HUGE):
            await self._app(scope, receive, answer.take)
        await _misbehave(fault, answer, receive, send)


class _Answer:
    """The sandbox's response before the fault is applied."""

    def __init__(self) -> None:
        self.start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


async def _misbehave(fault: Fault, answer: _Answer, receive: Receive, send: Send) -> None:
    match fault.kind:
        case FaultKind.STATUS:
            headers = {"content-type": "application/json", **fault.headers}
            await _answer(send, fault.status, list(headers.items()), fault.body.encode())
        case FaultKind.DELAY:
            if fault.after_commit:
                await asyncio.sleep(fault.seconds)
            await send(answer.start)
            await send({"type": "http.response.body", "body": answer.body})
        case FaultKind.HANG:
            await _until_gone(receive)
        case FaultKind.DROP:
            _abort(receive)
        case FaultKind.DRIP:
            await send(answer.start)
            for byte in answer.body:
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                await asyncio.sleep(fault.seconds)
            await send({"type": "http.response.body"})
        case FaultKind.GARBAGE:
            headers = {"content-type": "application/json", **fault.headers}
            await _answer(send, answer.start["status"], list(headers.items()), fault.body.encode())
        case FaultKind.HUGE:
            await send({"type": "http.response.start", "status": answer.start["status"], "headers": []})
            for _ in range(1024):
                await send({"type": "http.response.body", "body": b" " * 65536, "more_body": True})
            await send({"type": "http.response.body"})


async def _answer(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _until_gone(receive: Receive) -> None:
    try:
        async with asyncio.timeout(MAX_HANG_SECONDS):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass
    _abort(receive)


def _abort(receive: Receive) -> None:
    """Reset the connection. ASGI has no message for this, but the object of uvicorn's `receive` holds the transport."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
