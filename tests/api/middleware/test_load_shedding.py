"""Load shedding: which requests start, which are queued, and which are rejected."""

import asyncio
from collections import Counter

import httpx
from starlette.types import Message, Receive, Scope, Send

from app.api.middleware.load_shedding import (
    MAX_QUEUED,
    MAX_RETRY_AFTER_SECONDS,
    REJECTED_PER_ROUND,
    STARTED_PER_ROUND,
    LoadSheddingMiddleware,
)
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import running_service


class CountingApp:
    """Counts requests by event loop iteration."""

    def __init__(self) -> None:
        self.rounds: Counter[int] = Counter()
        self.paths: list[str] = []
        self.now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.rounds[self.now] += 1
        self.paths.append(scope["path"])

    async def count_rounds(self) -> None:
        while True:
            self.now += 1
            await asyncio.sleep(0)


async def send_requests(
    middleware: LoadSheddingMiddleware, requests: int, path: str = "/v1/telephony-credentials"
) -> None:
    async def nothing(*_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "path": path}
    await asyncio.gather(*(middleware(scope, nothing, nothing) for _ in range(requests)))  # type: ignore[arg-type]


async def test_requests_start_in_batches_and_all_are_served() -> None:
    app, rejections = CountingApp(), CountingApp()
    counting = asyncio.create_task(app.count_rounds())

    await send_requests(LoadSheddingMiddleware(app, rejections, short_round_seconds=0), MAX_QUEUED)

    counting.cancel()
    assert sum(app.rounds.values()) == MAX_QUEUED
    assert max(app.rounds.values()) <= 2 * STARTED_PER_ROUND
    assert rejections.paths == []


async def test_requests_beyond_the_queue_are_rejected_in_batches() -> None:
    app, rejections = CountingApp(), CountingApp()
    counting = asyncio.create_task(rejections.count_rounds())

    await send_requests(LoadSheddingMiddleware(app, rejections, short_round_seconds=0), 3000)

    counting.cancel()
    assert len(app.paths) == MAX_QUEUED + STARTED_PER_ROUND
    assert len(rejections.paths) == 3000 - len(app.paths)
    assert max(rejections.rounds.values()) <= 2 * REJECTED_PER_ROUND


async def test_cheap_requests_start_in_one_batch() -> None:
    app, rejections = CountingApp(), CountingApp()
    middleware = LoadSheddingMiddleware(app, rejections, short_round_seconds=60)

    await send_requests(middleware, 100)

    assert max(app.rounds.values()) == 100


async def test_health_checks_bypass_the_queue() -> None:
    app, rejections = CountingApp(), CountingApp()
    middleware = LoadSheddingMiddleware(app, rejections, short_round_seconds=0)
    sending = asyncio.create_task(send_requests(middleware, 3000))
    await asyncio.sleep(0)
    await send_requests(middleware, 1, "/livez")

    assert "/livez" in app.paths
    await sending


async def test_cancelled_request_does_not_block_the_queue() -> None:
    app, rejections = CountingApp(), CountingApp()
    middleware = LoadSheddingMiddleware(app, rejections, short_round_seconds=0)
    leaving = asyncio.create_task(send_requests(middleware, 200))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    await send_requests(middleware, 100)

    assert len(app.paths) >= 100


async def test_rejection_has_cors_headers_and_a_retry_after(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite) as service:
        headers = {"Origin": "https://app.example.com"}
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(base_url=service.url, transport=transport, headers=headers) as client:
            requests = [client.post("/v1/telephony-credentials") for _ in range(MAX_QUEUED + 200)]
            answers = await asyncio.gather(*requests)
        answer = next(answer for answer in answers if answer.status_code == 503)

    assert_problem(answer, 503, "overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 1.5 * MAX_RETRY_AFTER_SECONDS + 2
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
