"""Load shedding: limits the requests that start per iteration of the event loop, and the length of the queue.

Without it, ten thousand requests of reconnecting devices would start at the same time. The event loop would serve
nothing else for seconds, not even `/livez`, and each request would use memory while it waits. Requests that arrive
while the queue is full get 503 with a jittered `Retry-After`, at a tenth of the cost of a request.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import Problem, problem_of
from app.api.request_scope import HEALTH_PATHS, REQUEST_ID, path_of
from app.vending.errors import Overloaded

STARTED_PER_ROUND, REJECTED_PER_ROUND = 16, 64
"""Requests started or rejected per iteration of the event loop, about 20 ms."""

SHORT_ROUND_SECONDS = 0.004
"""Further requests start in an iteration until it has taken this long, because a cached login takes less than a
millisecond."""

MAX_QUEUED = 1_000
MAX_RETRY_AFTER_SECONDS = 15.0


class RoundQueue:
    """A queue that admits `a_round` waiters per iteration of the event loop."""

    def __init__(self, a_round: int, short_round_seconds: float = 0.0) -> None:
        self._a_round = a_round
        self._short_round_seconds = short_round_seconds
        self._taken = 0
        self._began = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self) -> None:
        if self._taken == 0:
            self._began = time.monotonic()
            asyncio.get_running_loop().call_soon(self._next_round)
        if self._taken < self._a_round or (not self._waiting and self._is_young()):
            self._taken += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _is_young(self) -> bool:
        return time.monotonic() - self._began < self._short_round_seconds

    def _next_round(self) -> None:
        self._taken = 0
        while self._waiting and self._taken < self._a_round:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._taken += 1
        if self._taken:
            asyncio.get_running_loop().call_soon(self._next_round)


class LoadSheddingMiddleware:
    """The outermost middleware. `refusal` answers requests that arrive while the queue is full."""

    def __init__(
        self,
        app: ASGIApp,
        refusal: ASGIApp,
        short_round_seconds: float = SHORT_ROUND_SECONDS,
        health_paths: Collection[str] = HEALTH_PATHS,
    ) -> None:
        """Requests for `health_paths` start at once."""
        self._app = app
        self._refusal = refusal
        self._health_paths = health_paths
        self._begins = RoundQueue(STARTED_PER_ROUND, short_round_seconds)
        self._refusals = RoundQueue(REJECTED_PER_ROUND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and path_of(scope) not in self._health_paths:
            if len(self._begins) < MAX_QUEUED:
                await self._begins.wait()
            else:
                await self._refusals.wait()
                app = self._refusal
        await app(scope, receive, send)


async def reject_overload(scope: Scope, _: Receive, send: Send) -> None:
    """Send 503 with a jittered `Retry-After`."""
    seconds = random.uniform(1, MAX_RETRY_AFTER_SECONDS)  # noqa: S311 - jitter
    problem = problem_of(Overloaded(retry_after_seconds=seconds), scope[REQUEST_ID])
    # Ten thousand idle connections would take more memory than new connections take CPU time.
    close = ("Connection", "close")
    await Problem(problem.kind, problem.request_id, (*problem.headers, close)).send(send)
