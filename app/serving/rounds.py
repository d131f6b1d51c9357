"""Rounds: the requests that arrive in one round of the event loop are answered together, once all of them are read.

The parts of Dialtone that a request runs through do not fit into a processor's fastest caches together. Working in
turns, reading all requests, then answering all of them, takes half of the time. No client waits longer: responses are
sent at the end of the round anyway.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from app.serving.front_host import Answer, Request, Responder
from app.serving.outbox import Outbox

ROUND_SECONDS = 0.004
"""Time that the fast path may take in one round of the event loop, before it lets other events in."""

BATCH = 32
"""Requests that are answered together. Fewer are slower; more make the round too long."""


class Answerable(Protocol):
    """The part of FrontProtocol that Rounds uses."""

    def pending_request(self) -> Request | None:
        """The request that waits for an answer; None if the connection is closing."""

    def conclude(self, answer: Answer | None) -> None:
        """Send the answer of the fast path; None if the app must run. Does not raise."""


class Rounds:
    """The queue of connections whose request the fast path may answer."""

    def __init__(self, fast_path: Callable[[], Responder | None], outbox: Outbox) -> None:
        """`outbox` is sent at the end of each round."""
        self._fast_path = fast_path
        self._outbox = outbox
        self._queue: deque[Answerable] = deque()
        self._is_scheduled = False

    def add(self, connection: Answerable) -> None:
        """Conclude the connection's request at the end of this round, or in a later one if there is not enough time."""
        self._queue.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        queue, ends = self._queue, time.monotonic() + ROUND_SECONDS
        try:
            while queue and time.monotonic() < ends:
                batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
                pending = [(each, request) for each in batch if (request := each.pending_request()) is not None]
                answers = self._answer([request for _, request in pending])
                for (connection, _), answer in zip(pending, answers, strict=True):
                    connection.conclude(answer)
        finally:
            self._outbox.send()
            if queue:
                self._schedule()

    def _answer(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        fast_path, nothing = self._fast_path(), [None] * len(requests)
        if fast_path is None:
            return nothing
        try:
            return fast_path.answer(requests)
        except Exception:
            structlog.get_logger("dialtone").exception("fast_path_failed")
            return nothing  # the app can still answer
