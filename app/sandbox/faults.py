"""Faults on demand: a layer in front of the sandbox that makes Telnyx slow, silent, broken or odd.

A plan says which requests it hits, how often, what happens, and whether the request is carried out first: "committed,
but never answered" is the fault that tells good services from others.
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
    """Answer with `status`, `body` and `headers`."""
    DELAY = "delay"
    """Wait `seconds`, then answer as usual. With `after_commit` the wait comes after the work."""
    HANG = "hang"
    """Never answer."""
    DROP = "drop"
    """Close the connection without a byte."""
    DRIP = "drip"
    """The right answer, one byte every `seconds`."""
    GARBAGE = "garbage"
    """The right status with `body` in place of the answer."""
    HUGE = "huge"
    """The right status with an endless body."""


@dataclass(slots=True)
class Fault:
    """One plan. Text that is empty matches everything; `path` is a regular expression."""

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
        """Raises ValueError or TypeError for a plan that makes no sense."""
        fault = cls(**{**plan, "kind": FaultKind(plan.get("kind", ""))})
        re.compile(fault.path)
        return fault

    def hits(self, scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        return self.times > 0 and self.method in ("", method) and re.search(self.path, path) is not None


class FaultMiddleware:
    """The layer. Plans are tried in the order they were made."""

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
    """What the sandbox would have said."""

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
    """Reset the connection. ASGI has no word for it, but uvicorn's `receive` belongs to the transport's owner."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
