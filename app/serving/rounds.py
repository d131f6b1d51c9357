"""Rounds: the requests that arrive in one round of the event loop are parsed together, and then answered together.

The parts of Dialtone that a request runs through do not fit into a processor's fastest caches together. Doing one
step for all requests before the next step takes half of the time. No client waits longer, because responses are sent at
the end of the round anyway.

A round also has a time limit. Thousands of clients that send at once cannot block other work of the event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Protocol

import structlog

from app.serving.front_host import Answer, Request, Responder
from app.serving.outbox import Outbox

ROUND_SECONDS = 0.004
"""Time for parsing and answering in one round of the event loop, before it handles other events."""

BATCH_SIZE = 64
"""Connections that are advanced together. Smaller batches are slower per request; larger ones delay other events.
64 new tokens take 6 ms."""

MAX_URGENT = BATCH_SIZE // 4
"""Urgent connections in a batch, so that a flood of health checks cannot block logins."""


class Advancing(Protocol):
    """The part of FrontProtocol that Rounds uses."""

    def advance(self) -> Request | None:
        """Serve what has arrived, as far as possible. Returns a request that the fast path may answer."""

    def conclude(self, answer: Answer | None) -> None:
        """Send the answer to that request. None: the app must run."""

    def abort(self) -> None: ...


class Rounds:
    """The queue of connections with bytes that were received and not parsed."""

    def __init__(
        self, fast_path: Callable[[], Responder | None], outbox: Outbox, round_seconds: float = ROUND_SECONDS
    ) -> None:
        """`outbox` is sent at the end of each round."""
        self._fast_path = fast_path
        self._outbox = outbox
        self._round_seconds = round_seconds
        self._queue: deque[Advancing] = deque()
        self._urgent: deque[Advancing] = deque()
        self._is_scheduled = False

    @property
    def has_backlog(self) -> bool:
        """Whether connections that are added now may have to wait for a later round."""
        return len(self._queue) > BATCH_SIZE or len(self._urgent) > MAX_URGENT

    def add(self, connection: Advancing, *, is_urgent: bool = False) -> None:
        """Advance the connection at the end of this round, or in a later one if there is not enough time.

        Urgent connections go first: if ten thousand devices reconnect at once, their requests take seconds, and a
        health check would time out.
        """
        (self._urgent if is_urgent else self._queue).append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            # With an empty context: a round that the app's response begins does not belong to that request, in logs.
            asyncio.get_running_loop().call_soon(self._run, context=Context())

    def _run(self) -> None:
        self._is_scheduled = False
        ends = time.monotonic() + self._round_seconds
        try:
            while (self._urgent or self._queue) and time.monotonic() < ends:
                self._serve(self._next_batch())
        finally:
            self._outbox.send()
            if self._queue or self._urgent:
                self._schedule()

    def _next_batch(self) -> list[Advancing]:
        urgent, queue = self._urgent, self._queue
        batch = [urgent.popleft() for _ in range(min(MAX_URGENT, len(urgent)))]
        return batch + [queue.popleft() for _ in range(min(BATCH_SIZE - len(batch), len(queue)))]

    def _serve(self, batch: Sequence[Advancing]) -> None:
        """Advance the connections. One that fails is aborted, and does not affect the others."""
        advanced, requests = [], []
        for connection in batch:
            try:
                request = connection.advance()
            except Exception:
                _abort(connection)
                continue
            if request is not None:
                advanced.append(connection)
                requests.append(request)
        answers = self._answer(requests) if requests else ()
        for connection, answer in zip(advanced, answers, strict=True):
            try:
                connection.conclude(answer)
            except Exception:
                _abort(connection)

    def _answer(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        fast_path, nothing = self._fast_path(), [None] * len(requests)
        if fast_path is None:
            return nothing
        try:
            return fast_path.answer(requests)
        except Exception:
            structlog.get_logger("dialtone").exception("fast_path_failed")
            return nothing  # the app can still answer


def _abort(connection: Advancing) -> None:
    structlog.get_logger("dialtone").exception("connection_failed")
    connection.abort()
