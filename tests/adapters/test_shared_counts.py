"""Rate limits that several replicas share through Redis."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from app.adapters.rate_limiter import RateLimiter, RateLimits, parse_rate_limit
from app.adapters.shared_counts import REDIS_SECONDS, SharedCounts
from app.vending.errors import RateLimited
from tests.support.http_server import free_port
from tests.support.redis_server import RedisServer, redis_server
from tests.support.sandbox import Telnyx
from tests.support.service import running_service
from tests.support.tokens import principal

RATES = RateLimits(parse_rate_limit("3/hour"), parse_rate_limit("100/hour"), parse_rate_limit("2/hour"))
ADDRESS = "192.0.2.1"


@dataclass
class Replica:
    """A rate limiter with its clock and its connection to Redis."""

    url: str
    prefix: str
    now: float = 0.0
    seconds: float = 20.0
    """How long Redis may take. Only a test of the deadlines meets it."""
    counts: SharedCounts = field(init=False)
    limiter: RateLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.counts = SharedCounts(
            self.url, lambda: self.now, self.prefix, redis_seconds=self.seconds, call_seconds=4 * self.seconds
        )
        self.limiter = RateLimiter(RATES, lambda: self.now, self.counts)

    async def request(self, user: str = "alice") -> None:
        self.limiter.check_user(principal(user))
        await self.counts.exchange()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest_asyncio.fixture
async def replicas(redis: RedisServer) -> AsyncIterator[list[Replica]]:
    found = [Replica(redis.url, prefix) for prefix in [uuid.uuid4().hex] * 2]
    yield found
    for each in found:
        await each.counts.close()


async def test_replicas_add_their_counts(replicas: list[Replica]) -> None:
    one, other = replicas
    await other.request()
    await one.request()
    await one.request()
    await other.request()

    with pytest.raises(RateLimited):
        other.limiter.check_user(principal())


async def test_users_have_counts_of_their_own(replicas: list[Replica]) -> None:
    one, other = replicas
    for _ in range(3):
        await one.request()

    await other.request("bob")


async def test_rejected_tokens_of_an_address_count_on_all_replicas(replicas: list[Replica]) -> None:
    one, other = replicas
    for replica in (other, one, one):
        replica.limiter.record_failure(ADDRESS)
        await replica.counts.exchange()
    other.limiter.check_address(ADDRESS)

    other.limiter.record_failure(ADDRESS)
    await other.counts.exchange()

    for replica in (one, other):
        with pytest.raises(RateLimited):
            replica.limiter.check_address(ADDRESS)


async def test_replica_adopts_the_end_of_the_window(replicas: list[Replica], redis: RedisServer) -> None:
    one, other = replicas
    await one.request()
    for key in redis.client.keys(f"{one.prefix}:*"):
        redis.client.pexpire(key, 1_200_000)

    await other.request()

    status = other.limiter.check_user(principal())
    assert status is not None
    assert 1_190 < status.reset_seconds <= 1_200


async def test_redis_holds_no_names(replicas: list[Replica], redis: RedisServer) -> None:
    await replicas[0].request("secret-name")

    keys = b" ".join(redis.client.keys(f"{replicas[0].prefix}:*"))
    assert b"user:" in keys
    assert b"secret" not in keys


async def test_counts_in_redis_end_with_the_window(replicas: list[Replica], redis: RedisServer) -> None:
    await replicas[0].request()

    assert all(0 < redis.client.ttl(key) <= 3600 for key in redis.client.keys(f"{replicas[0].prefix}:*"))


async def test_replica_counts_alone_during_an_outage() -> None:
    one = Replica(f"redis://127.0.0.1:{free_port()}/0", "outage")
    for _ in range(3):
        await one.request()

    with pytest.raises(RateLimited):
        one.limiter.check_user(principal())
    assert one.counts.failures == 1, "Redis is not called again at once"
    one.now += 6
    await one.request("bob")
    assert one.counts.failures == 2
    assert not await one.counts.is_reachable()


@pytest.mark.parametrize(
    "answer",
    [b"rubbish\r\n", b"$9999999999\r\n", b"-NOAUTH Authentication required.\r\n", b"+\xff\xfe\r\n" * 20, b"", None],
)
async def test_unusable_responses_are_an_outage(answer: bytes | None) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            if answer is None:
                continue
            writer.write(answer)
            if not answer:
                break
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        one = Replica(url, "unusable", seconds=REDIS_SECONDS)
        await one.request()
        await one.counts.close()

    assert one.counts.failures == 1


async def test_a_key_of_another_type_does_not_affect_other_users(replicas: list[Replica], redis: RedisServer) -> None:
    one, other = replicas
    await one.request()
    [key] = [key for key in redis.client.keys(f"{one.prefix}:*") if b":user:" in key]
    redis.client.delete(key)
    redis.client.lpush(key, "rubbish")
    one.limiter.check_user(principal("bob"))
    await one.request()

    assert one.counts.failures == 1
    await other.request("bob")
    status = other.limiter.check_user(principal("bob"))
    assert status is not None
    assert status.remaining == 0


async def test_services_share_a_limit(telnyx: Telnyx, postgres: str, redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        namespace = f"n{uuid.uuid4().hex[:8]}"
        one, other = [
            await stack.enter_async_context(
                running_service(telnyx, postgres, redis_url=redis.url, limit_user="4/hour", namespace=namespace)
            )
            for _ in range(2)
        ]
        statuses = [(await each.issue("laptop")).status_code for each in (one, other, one, other)]
        async with asyncio.timeout(30):
            while {(await each.issue("laptop")).status_code for each in (one, other)} != {429}:
                await asyncio.sleep(0.1)

    assert sorted(statuses) == [200, 200, 200, 201]
