"""However many come at once: so many begin at a time, the rest waits or is told when to come back."""

import asyncio
from collections import Counter
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.api.middleware.load_shedding import BEGUN_A_ROUND, COMEBACK_SECONDS, MOST_WAITING, REFUSED_A_ROUND, Turnstile
from tests.api.test_gate import assert_problem
from tests.stage import Telnyx, service_in_front_of


class Inside:
    """Counts who is let in, and in which round of the event loop."""

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


async def rush(turnstile: Turnstile, requests: int, path: str = "/v1/telephony-credentials") -> None:
    async def nothing(*_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "path": path}
    await asyncio.gather(*(turnstile(scope, nothing, nothing) for _ in range(requests)))  # type: ignore[arg-type]


async def test_so_many_begin_in_a_round_and_everybody_comes_in() -> None:
    inside, refused = Inside(), Inside()
    counting = asyncio.create_task(inside.count_rounds())

    await rush(Turnstile(inside, refused, short_round_seconds=0), MOST_WAITING)

    counting.cancel()
    assert sum(inside.rounds.values()) == MOST_WAITING
    assert max(inside.rounds.values()) <= 2 * BEGUN_A_ROUND
    assert refused.paths == []


async def test_who_finds_the_queue_full_is_refused_and_that_is_paced_too() -> None:
    inside, refused = Inside(), Inside()
    counting = asyncio.create_task(refused.count_rounds())

    await rush(Turnstile(inside, refused, short_round_seconds=0), 3000)

    counting.cancel()
    assert len(inside.paths) == MOST_WAITING + BEGUN_A_ROUND
    assert len(refused.paths) == 3000 - len(inside.paths)
    assert max(refused.rounds.values()) <= 2 * REFUSED_A_ROUND


async def test_what_costs_next_to_nothing_is_begun_in_one_round() -> None:
    inside, refused = Inside(), Inside()
    turnstile = Turnstile(inside, refused, short_round_seconds=60)

    await rush(turnstile, 100)

    assert max(inside.rounds.values()) == 100


async def test_probes_do_not_queue() -> None:
    inside, refused = Inside(), Inside()
    turnstile = Turnstile(inside, refused, short_round_seconds=0)
    rushing = asyncio.create_task(rush(turnstile, 3000))
    await asyncio.sleep(0)
    await rush(turnstile, 1, "/livez")

    assert "/livez" in inside.paths
    await rushing


async def test_a_caller_who_leaves_the_queue_holds_up_nobody() -> None:
    inside, refused = Inside(), Inside()
    turnstile = Turnstile(inside, refused, short_round_seconds=0)
    leaving = asyncio.create_task(rush(turnstile, 200))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    await rush(turnstile, 100)

    assert len(inside.paths) >= 100


async def test_a_refusal_can_be_read_by_a_page_and_says_when_to_come_back(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite) as service:
        outermost: Any = service.app
        turnstile: Turnstile = outermost._app
        turnstile._begins._waiting.extend(asyncio.get_running_loop().create_future() for _ in range(MOST_WAITING))
        headers = {"Origin": "https://app.example.com"}
        answer = await service.client.post("/v1/telephony-credentials", headers=headers)

    assert_problem(answer, 503, "issue_in_progress")
    assert 1 <= int(answer.headers["retry-after"]) <= 1.5 * COMEBACK_SECONDS + 2
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
