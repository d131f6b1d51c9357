"""The turnstile: however many requests come at once, so many begin in one round of the event loop, and so many wait.

Ten thousand phones that reconnect would otherwise all be begun in one breath: for seconds nothing else would be heard,
`/livez` neither, and each of them would hold memory while it waits. Who finds the queue full is told so soon, which
costs a tenth of a request, and comes back spread over some seconds.
"""

import asyncio
import random
import time
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import Problem, problem_of
from app.api.scope import HEALTH_PATHS, REQUEST_ID, path_of
from app.vending.errors import IssueInProgress

STARTED_PER_ROUND, REJECTED_PER_ROUND = 16, 64
"""Requests between two looks at what else there is to do: some 20 ms."""

SHORT_ROUND_SECONDS = 0.004
"""A round goes on beyond those while it is as young as this: logins at hand take a fraction of a millisecond each."""

MAX_QUEUED = 1_000
MAX_RETRY_AFTER_SECONDS = 15.0


class RoundQueue:
    """Waits for a turn; so many turns a round."""

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
    """The outermost layer, before anything that costs. `refusal` answers those who are not let in."""

    def __init__(self, app: ASGIApp, refusal: ASGIApp, short_round_seconds: float = SHORT_ROUND_SECONDS) -> None:
        self._app = app
        self._refusal = refusal
        self._begins = RoundQueue(STARTED_PER_ROUND, short_round_seconds)
        self._refusals = RoundQueue(REJECTED_PER_ROUND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and path_of(scope) not in HEALTH_PATHS:
            if len(self._begins) < MAX_QUEUED:
                await self._begins.wait()
            else:
                await self._refusals.wait()
                app = self._refusal
        await app(scope, receive, send)


async def reject_overload(scope: Scope, _: Receive, send: Send) -> None:
    """Too many at once: come back, at a time of your own."""
    seconds = random.uniform(1, MAX_RETRY_AFTER_SECONDS)  # noqa: S311 - so that they do not come back in step
    problem = problem_of(IssueInProgress(retry_after_seconds=seconds), scope[REQUEST_ID])
    # Ten thousand idle connections would cost more memory than their being made anew.
    close = ("Connection", "close")
    await Problem(problem.kind, problem.request_id, (*problem.headers, close)).send(send)
