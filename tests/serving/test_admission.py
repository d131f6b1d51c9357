"""The connection limiter: limits concurrent requests, loses none, and serves all clients fairly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.api.request_scope import PROBE_PATHS
from app.serving.admission import MAX_HEALTH_CHECKS, MAX_SCRAPES, SWEEP_SECONDS, ConnectionLimiter
from tests.support.front_server import Connection, connection_limiter, front_server
from tests.support.waiting import eventually

LIMIT = 3


class CountingApp:
    """An app that counts concurrent requests, and answers them, except for health checks, once `may_answer` is set."""

    def __init__(self, seconds: float = 0.02, *, is_held: bool = False) -> None:
        """`seconds` by which each response is delayed. `is_held`: the test sets `may_answer`."""
        self.seconds = seconds
        self.now = self.most = self.served = 0
        self.may_answer = asyncio.Event()
        if not is_held:
            self.may_answer.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b"alive"
        if scope["path"] != "/livez":
            self.now += 1
            self.most = max(self.most, self.now)
            body, is_more = b"", True
            while is_more:
                message = await receive()
                if message["type"] != "http.request":
                    self.now -= 1
                    return
                body += message["body"]
                is_more = message["more_body"]
            await self.may_answer.wait()
            await asyncio.sleep(self.seconds)
            self.now -= 1
            self.served += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def limited_server(
    app: CountingApp, in_flight: int = 0, **limits: Any
) -> AsyncIterator[tuple[ConnectionLimiter, int]]:
    limiter = connection_limiter(lambda: in_flight, **{"max_requests": LIMIT, "request_seconds": 1.0, **limits})
    async with front_server(app, limiter) as port:
        yield limiter, port


def request(body: bytes = b"", headers: bytes = b"", path: bytes = b"/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


async def ask(port: int, body: bytes, headers: bytes = b"") -> bytes:
    """Send one request over a new connection and return the response's body."""
    connection = await Connection.to(port)
    try:
        return (await connection.ask(request(body, headers)))[1]
    finally:
        connection.writer.close()


async def probe(port: int) -> bytes:
    """The response to a health check over a new connection."""
    connection = await Connection.to(port)
    _, body = await connection.ask(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    connection.writer.close()
    return body


async def occupy(app: CountingApp, port: int) -> list[asyncio.Task[bytes]]:
    """Take all places with requests that the app answers when it may."""
    inside = [asyncio.create_task(ask(port, b"inside")) for _ in range(LIMIT)]
    await eventually(lambda: app.now == LIMIT)
    return inside


async def test_requests_above_the_limit_are_queued_and_all_are_answered() -> None:
    app = CountingApp()
    async with limited_server(app) as (limiter, port):
        bodies = [b"request %d" % number for number in range(60)]
        answers = await asyncio.gather(*(ask(port, body) for body in bodies))

    assert answers == bodies
    assert app.most <= LIMIT
    assert limiter.queued == 0


async def test_requests_that_wait_for_telnyx_do_not_count() -> None:
    app = CountingApp(is_held=True)
    async with limited_server(app, in_flight=4) as (limiter, port):
        requests = [asyncio.create_task(ask(port, b"x")) for _ in range(20)]
        await eventually(lambda: app.now + limiter.queued == 20)
        app.may_answer.set()
        await asyncio.gather(*requests)

    assert app.most == LIMIT + 4


async def test_health_check_is_not_queued() -> None:
    async with limited_server(CountingApp(is_held=True)) as (limiter, port):
        requests = [asyncio.create_task(ask(port, b"x")) for _ in range(10)]
        await eventually(lambda: limiter.queued > 0)

        assert await probe(port) == b"alive"
        for one in requests:
            one.cancel()


async def test_path_that_only_another_listener_serves_is_queued() -> None:
    async with limited_server(CountingApp(is_held=True), health_paths=PROBE_PATHS) as (limiter, port):
        requests = [asyncio.create_task(ask(port, b"x")) for _ in range(10)]
        await eventually(lambda: limiter.queued == 10 - LIMIT)
        connection = await Connection.to(port)
        connection.writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")

        await eventually(lambda: limiter.queued == 11 - LIMIT)
        connection.writer.close()
        for one in requests:
            one.cancel()


class HeldChecks(CountingApp):
    """Holds health checks too."""

    def __init__(self) -> None:
        super().__init__(is_held=True)
        self.checks = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.checks += 1
            await self.may_answer.wait()
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize(("path", "limit"), [(b"/livez", MAX_HEALTH_CHECKS), (b"/metrics", MAX_SCRAPES)])
async def test_client_with_many_health_checks_at_a_time_gets_503(path: bytes, limit: int) -> None:
    app = HeldChecks()
    async with limited_server(app) as (_, port):
        check = b"GET %b HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %b\r\n\r\n"
        many = [await Connection.to(port) for _ in range(limit + 4)]
        checks = [asyncio.create_task(one.ask(check % (path, b"203.0.113.7"))) for one in many]
        await eventually(lambda: app.checks + sum(one.done() for one in checks) == len(checks))
        app.may_answer.set()
        statuses = [head[9:12] for head, _ in await asyncio.gather(*checks)]
        other = await Connection.to(port)

        assert statuses.count(b"503") == 4
        assert (await other.ask(check % (path, b"203.0.113.8")))[0][9:12] == b"200"
        assert (await other.ask(check % (path, b"203.0.113.7")))[0][9:12] == b"200", "the places are free again"


async def test_scrapes_take_no_place_of_probes() -> None:
    app = HeldChecks()
    async with limited_server(app) as (_, port):
        scrapes = [await Connection.to(port) for _ in range(MAX_SCRAPES)]
        asked = [asyncio.create_task(one.ask(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")) for one in scrapes]
        await eventually(lambda: app.checks == MAX_SCRAPES)
        probed = asyncio.create_task(probe(port))
        await eventually(lambda: app.checks == MAX_SCRAPES + 1)
        app.may_answer.set()

        assert await probed == b"alive"
        await asyncio.gather(*asked)


async def test_newest_request_of_an_address_is_started_first() -> None:
    app = CountingApp(seconds=0.05, is_held=True)
    answered: list[bytes] = []

    async def one(port: int, body: bytes) -> None:
        answered.append(await ask(port, body))

    async with limited_server(app) as (limiter, port):
        requests = [asyncio.create_task(one(port, b"early")) for _ in range(30)]
        await eventually(lambda: limiter.queued == 30 - LIMIT)
        requests.append(asyncio.create_task(one(port, b"late")))
        await eventually(lambda: limiter.queued == 31 - LIMIT)
        app.may_answer.set()
        await asyncio.gather(*requests)

    assert answered.index(b"late") <= 3 * LIMIT


async def test_addresses_take_turns_behind_a_trusted_proxy() -> None:
    """One client with many requests does not delay another client of the same proxy."""
    app = CountingApp(seconds=0.05, is_held=True)
    answered: list[bytes] = []

    async def one(port: int, address: bytes) -> None:
        answered.append(await ask(port, address, b"X-Forwarded-For: %b\r\n" % address))

    async with limited_server(app) as (limiter, port):
        many = [asyncio.create_task(one(port, b"203.0.113.7")) for _ in range(30)]
        await eventually(lambda: limiter.queued == 30 - LIMIT)
        few = asyncio.create_task(one(port, b"203.0.113.8"))
        await eventually(lambda: limiter.queued == 31 - LIMIT)
        more = [asyncio.create_task(one(port, b"203.0.113.7")) for _ in range(10)]
        await eventually(lambda: limiter.queued == 41 - LIMIT)
        app.may_answer.set()
        await asyncio.gather(few, *many, *more)

    assert answered.index(b"203.0.113.8") <= 3 * LIMIT


@pytest.mark.parametrize("said", [b"", b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: "], ids=["silent", "half a head"])
async def test_connections_without_a_whole_request_take_no_place(said: bytes) -> None:
    async with limited_server(CountingApp(), request_seconds=60) as (limiter, port):
        silent = [await Connection.to(port) for _ in range(10 * LIMIT)]
        for connection in silent:
            connection.writer.write(said)
        await eventually(lambda: len(limiter.connections) == len(silent))
        await eventually(lambda: all(front.is_receiving == bool(said) for front in limiter.connections))

        assert await ask(port, b"new") == b"new"


async def test_half_bodies_leave_places_for_whole_requests() -> None:
    async with limited_server(CountingApp(), request_seconds=60, max_unfinished_requests=1) as (limiter, port):
        half = [await Connection.to(port) for _ in range(10 * LIMIT)]
        for connection in half:
            connection.writer.write(request(b"half a body")[:-3])
        await eventually(lambda: len(limiter.connections) == len(half))
        await eventually(lambda: all(front.is_receiving or front.is_in_app for front in limiter.connections))

        assert await ask(port, b"new") == b"new"
        for connection in half:
            connection.writer.write(b"ody")
        assert [(await connection.answer())[1] for connection in half] == [b"half a body"] * len(half)


@pytest.mark.parametrize("said", [b"POST / HTTP/1.1\r\nHost: a", request(b"half a body")[:-3]], ids=["head", "body"])
async def test_request_that_does_not_arrive_in_time_is_a_408(said: bytes) -> None:
    async with limited_server(CountingApp(), max_unfinished_requests=0) as (_, port):
        connection = await Connection.to(port)
        connection.writer.write(said)

        head, _ = await connection.answer()

        assert head.startswith(b"HTTP/1.1 408 ")
        assert await connection.is_over()


async def test_oldest_unfinished_requests_are_rejected_when_they_hold_too_much() -> None:
    limits = {"max_unfinished_requests": 0, "max_unfinished_bytes": 40_000}
    async with limited_server(CountingApp(), request_seconds=60, **limits) as (_, port):
        half = []
        for _ in range(12):
            half.append(await Connection.to(port))
            half[-1].writer.write(request(b"x" * 5_000)[:-1])
            await asyncio.sleep(0.01)

        assert (await half[0].answer())[0].startswith(b"HTTP/1.1 408 ")
        assert (await half[-1].ask(b"x"))[1] == b"x" * 5_000


async def test_connection_that_waited_longest_is_closed_for_a_new_one() -> None:
    async with limited_server(CountingApp(), max_connections=5) as (limiter, port):
        idle = [await Connection.to(port) for _ in range(5)]
        await eventually(lambda: len(limiter.connections) == 5)

        assert await ask(port, b"new") == b"new"

        assert await idle[0].is_over()
        assert not await idle[-1].is_over(seconds=0.1)


async def test_client_that_never_sends_the_rest_of_an_answered_body_is_disconnected() -> None:
    async with limited_server(EarlyApp()) as (_, port):
        connection = await Connection.to(port)
        head, _ = await connection.ask(request(b"half a body")[:-3])

        assert head.startswith(b"HTTP/1.1 401 ")
        assert await connection.is_over()


async def test_disconnected_clients_in_the_queue_are_skipped() -> None:
    app = CountingApp(is_held=True)
    async with limited_server(app) as (limiter, port):
        inside = await occupy(app, port)
        gone = [await Connection.to(port) for _ in range(5)]
        for connection in gone:
            connection.writer.write(request(b"gone"))
        await eventually(lambda: limiter.queued == len(gone))
        for connection in gone:
            connection.writer.transport.abort()
        await eventually(lambda: len(limiter.connections) == LIMIT)
        app.may_answer.set()
        await asyncio.gather(*inside)
        assert await ask(port, b"after") == b"after"

    assert app.served == LIMIT + 1


async def test_clients_that_disconnect_leave_the_queue() -> None:
    app = CountingApp(is_held=True)
    async with limited_server(app) as (limiter, port):
        inside = await occupy(app, port)
        gone = [await Connection.to(port) for _ in range(400)]
        for connection in gone:
            connection.writer.write(request(b"gone"))
        await eventually(lambda: limiter.queued == len(gone))
        for connection in gone:
            connection.writer.transport.abort()
        await eventually(lambda: limiter.queued == 0)
        app.may_answer.set()
        await asyncio.gather(*inside)

    assert app.served == LIMIT


async def test_many_clients_may_half_close_while_they_are_queued() -> None:
    app = CountingApp(is_held=True)
    async with limited_server(app) as (limiter, port):
        inside = await occupy(app, port)
        gone = [await Connection.to(port) for _ in range(400)]
        for connection in gone:
            connection.writer.write(request(b"gone"))
        await eventually(lambda: limiter.queued == len(gone))
        for connection in gone:
            connection.writer.write_eof()
        await asyncio.sleep(SWEEP_SECONDS + 0.1)  # the server notices it, and sweeps
        app.may_answer.set()
        await asyncio.gather(*inside)
        assert await ask(port, b"after") == b"after"


async def test_expected_body_is_requested_although_there_is_no_place_for_its_request() -> None:
    app = CountingApp()
    async with limited_server(app, max_unfinished_requests=0, request_seconds=60) as (_, port):
        connection = await Connection.to(port)
        connection.writer.write(request(b"body", b"Expect: 100-continue\r\n")[:-4])
        assert (await connection.answer())[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert app.now == 0

        head, body = await connection.ask(b"body")

        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b"body"


async def test_body_that_no_route_accepts_is_rejected_if_there_is_no_place_for_its_request() -> None:
    async with limited_server(CountingApp(), max_unfinished_requests=0) as (_, port):
        connection = await Connection.to(port)

        head, _ = await connection.ask(request(b"x" * 200_000)[:1000])

        assert head.startswith(b"HTTP/1.1 413 ")
        assert await connection.is_over()


class EarlyApp(CountingApp):
    """Rejects each request before its body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})


async def test_answered_request_frees_its_place_before_its_body_arrives() -> None:
    async with limited_server(EarlyApp(), max_unfinished_requests=2, request_seconds=60) as (_, port):
        for _ in range(3 * LIMIT):
            connection = await Connection.to(port)
            head, _ = await connection.ask(request(b"half a body")[:-3])
            assert head.startswith(b"HTTP/1.1 401 ")


async def test_peer_with_many_connections_makes_room_for_new_ones() -> None:
    async with limited_server(CountingApp(), max_connections=20) as (limiter, port):
        idle = await Connection.to(port, "127.0.0.3")
        await eventually(lambda: len(limiter.connections) == 1)
        many = [await Connection.to(port, "127.0.0.2") for _ in range(19)]
        await eventually(lambda: len(limiter.connections) == 20)
        await asyncio.sleep(SWEEP_SECONDS + 0.1)  # a sweep finds the largest peer
        more = [await Connection.to(port, "127.0.0.2") for _ in range(10)]

        assert not await idle.is_over(seconds=0.1)
        assert all([await connection.is_over() for connection in many[:10]])
        assert not await more[0].is_over(seconds=0.1)


async def test_requests_that_arrive_split_survive_a_flood_of_pipelined_ones() -> None:
    limits = {"max_unfinished_requests": 0, "max_unfinished_bytes": 40_000}
    async with limited_server(CountingApp(), request_seconds=60, **limits) as (limiter, port):
        half = await Connection.to(port)
        half.writer.write(request(b"half a body")[:-3])
        await eventually(lambda: any(front.is_receiving for front in limiter.connections))
        flood = [await Connection.to(port) for _ in range(10)]
        for connection in flood:
            connection.writer.write(request(b"x" * 1_000) * 200)
        await asyncio.sleep(0.3)

        assert (await half.ask(b"ody"))[1] == b"half a body"
        for connection in flood:
            connection.writer.transport.abort()
