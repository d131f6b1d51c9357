"""The turnstile: however many requests come at once, so many begin in one round of the event loop, and so many wait.

Ten thousand phones that reconnect would otherwise all be begun in one breath: for seconds nothing else would be heard,
`/livez` neither, and each of them would hold memory while it waits. Who finds the queue full is told so at once, which
costs a tenth of a request, and comes back spread over some seconds.
"""

import asyncio
import random
from collections import deque
from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.layers import REQUEST_ID
from app.api.problems import problem_of
from app.vending.errors import Busy

A_ROUND = 32
"""Requests begun between two looks at what else there is to do: some 15 ms."""

MOST_WAITING = 1000
COMEBACK_SECONDS = 15.0

ALWAYS_LET_IN = ("/livez", "/readyz", "/metrics", "/version")


class Turnstile:
    """A pure ASGI layer, before anything that costs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ALWAYS_LET_IN:
            if len(self._waiting) >= MOST_WAITING:
                await self._turn_away(scope, send)
                return
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if self._begun == 0:
            loop.call_soon(self._next_round)
        if self._begun < A_ROUND:
            self._begun += 1
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def _next_round(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < A_ROUND:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_round)

    async def _turn_away(self, scope: Scope, send: Send) -> None:
        seconds = random.uniform(1, COMEBACK_SECONDS)  # noqa: S311 - so that they do not come back in step
        problem = problem_of(Busy(retry_after_seconds=seconds), scope[REQUEST_ID])
        # Ten thousand idle connections would cost more memory than their being made anew.
        await replace(problem, headers=(*problem.headers, ("Connection", "close"))).send(send)
