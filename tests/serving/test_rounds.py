"""Rounds: connections that are advanced together do not affect each other, and a round has a time limit."""

import asyncio
import json
import random
import time
from collections.abc import Sequence

import pytest

from app.serving.framing import parse_head
from app.serving.front_host import Answer, Request
from app.serving.outbox import Outbox
from app.serving.rounds import BATCH_SIZE, MAX_URGENT, Rounds
from app.vending.audit import NO_REQUEST, REQUEST_CONTEXT, RequestContext
from tests.support.front_server import Connection
from tests.support.login_requests import cached_token, request_bytes
from tests.support.service import Service
from tests.support.tokens import token

REQUEST = Request("127.0.0.1", parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), b"")


class CountingFastPath:
    """Answers each request with its place in the batch."""

    target = b"/"
    max_body_bytes = 100

    def __init__(self) -> None:
        self.batches: list[int] = []

    def answer(self, requests: Sequence[Request]) -> list[Answer | None]:
        self.batches.append(len(requests))
        return [(200, b"%d" % number) for number in range(len(requests))]


class FakeConnection:
    """Has one request for the fast path. `fails` names the step that raises."""

    def __init__(self, *, fails: str = "", seconds: float = 0.0) -> None:
        self.fails = fails
        self.seconds = seconds
        self.answer: Answer | None = None
        self.is_aborted = False
        self.context = NO_REQUEST

    def advance(self) -> Request | None:
        self.context = REQUEST_CONTEXT.get()
        time.sleep(self.seconds)
        if self.fails == "advance":
            raise ValueError
        return REQUEST

    def conclude(self, answer: Answer | None) -> None:
        if self.fails == "conclude":
            raise ValueError
        self.answer = answer

    def abort(self) -> None:
        self.is_aborted = True


async def run(connections: Sequence[FakeConnection], round_seconds: float = 10.0) -> CountingFastPath:
    """Add all connections, and let one round pass."""
    fast_path = CountingFastPath()
    rounds = Rounds(lambda: fast_path, Outbox(), round_seconds)
    for connection in connections:
        rounds.add(connection)
    await asyncio.sleep(0)
    return fast_path


async def test_requests_of_one_round_are_answered_in_batches() -> None:
    fast_path = await run([FakeConnection() for _ in range(BATCH_SIZE + 3)])

    assert fast_path.batches == [BATCH_SIZE, 3]


@pytest.mark.parametrize("step", ["advance", "conclude"])
async def test_connection_that_fails_is_aborted(step: str) -> None:
    failing = FakeConnection(fails=step)
    await run([FakeConnection(), failing, FakeConnection()])

    assert failing.is_aborted


@pytest.mark.parametrize("step", ["advance", "conclude"])
async def test_connection_that_fails_does_not_affect_the_others(step: str) -> None:
    others = FakeConnection(), FakeConnection()
    await run([others[0], FakeConnection(fails=step), others[1]])

    assert all(other.answer is not None and not other.is_aborted for other in others)


async def test_connections_beyond_the_time_of_a_round_wait_for_the_next_one() -> None:
    connections = [FakeConnection(seconds=0.001) for _ in range(2 * BATCH_SIZE)]
    await run(connections, round_seconds=0.001)
    answered = sum(connection.answer is not None for connection in connections)
    await asyncio.sleep(0)

    assert answered == BATCH_SIZE
    assert all(connection.answer is not None for connection in connections)


async def test_urgent_connection_is_served_before_thousands_that_came_first() -> None:
    rounds, probe = Rounds(CountingFastPath, Outbox(), 0.001), FakeConnection()
    for _ in range(3000):
        rounds.add(FakeConnection(seconds=0.0001))
    rounds.add(probe, is_urgent=True)

    await asyncio.sleep(0)

    assert probe.answer is not None


async def test_flood_of_urgent_connections_leaves_most_of_a_round_to_others() -> None:
    rounds, others = Rounds(CountingFastPath, Outbox(), 0.001), [FakeConnection() for _ in range(BATCH_SIZE)]
    for _ in range(3000):
        rounds.add(FakeConnection(seconds=0.001), is_urgent=True)
    for other in others:
        rounds.add(other)

    await asyncio.sleep(0)

    assert sum(other.answer is not None for other in others) == BATCH_SIZE - MAX_URGENT


async def test_more_urgent_connections_than_fit_into_a_batch_are_a_backlog() -> None:
    """Their bytes are then counted before they are served, so that a flood of health checks cannot fill the memory."""
    rounds = Rounds(CountingFastPath, Outbox())
    for _ in range(MAX_URGENT):
        rounds.add(FakeConnection(), is_urgent=True)
    assert not rounds.has_backlog

    rounds.add(FakeConnection(), is_urgent=True)

    assert rounds.has_backlog


async def test_round_does_not_run_in_the_context_of_the_request_that_began_it() -> None:
    """The app's response to one request begins the round in which the next requests are served."""
    connection = FakeConnection()
    before = REQUEST_CONTEXT.set(RequestContext("of another request"))
    try:
        await run([connection])
    finally:
        REQUEST_CONTEXT.reset(before)

    assert connection.context == NO_REQUEST


USERS = [f"user-{number}" for number in range(12)]


async def test_each_of_many_concurrent_requests_gets_its_own_answer(service: Service) -> None:
    connections = [await Connection.to(service.port) for _ in range(2 * BATCH_SIZE)]
    sip_usernames = {}
    for user in USERS:
        created = (await connections[0].ask(request_bytes(user=user)))[1]
        sip_usernames[user] = json.loads(created)["sip_username"]
    chance = random.Random(1)  # noqa: S311

    for burst in range(5):
        expected = []
        for number, connection in enumerate(connections):
            user, mine = chance.choice(USERS), f"{burst}-{number}"
            bearer, status = chance.choice(
                [
                    (cached_token(user), "200"),
                    (token(user), "200"),
                    (token(user, exp=1), "401"),
                    (token(user)[:-8] + "AAAAAAAA", "401"),
                    ("garbage", "401"),
                    (f"{token(user)} {token(user)}", "400"),
                ]
            )
            connection.writer.write(request_bytes(f"X-Request-ID: {mine}", bearer=bearer))
            expected.append((status, mine, sip_usernames[user] if status == "200" else None))
        received = []
        for connection in connections:
            head, body = await connection.answer()
            request_id = head.partition(b"x-request-id: ")[2].partition(b"\r")[0].decode()
            received.append((head[9:12].decode(), request_id, json.loads(body).get("sip_username")))

        assert received == expected
