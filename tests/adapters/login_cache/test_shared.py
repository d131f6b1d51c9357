"""The shared login cache: rotation of keys, deletions, and what counts as a failure."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app.adapters.login_cache.redis_store import RedisStore
from app.adapters.login_cache.sealing import NAME_PREFIX, LoginSealer
from app.adapters.login_cache.shared import SharedLoginCache
from tests.support.leases import LEASE, NOW
from tests.support.redis_server import RedisServer, redis_server
from tests.support.shared_logins import FIRST, LOGIN, SECOND
from tests.support.waiting import HOUR


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.client.flushall()
    return server


def patient_store(redis: RedisServer) -> RedisStore:
    """A store whose deadlines no response misses. They are tested in test_redis_store."""
    return RedisStore(redis.url, NAME_PREFIX, call_seconds=20, probe_seconds=20)


@asynccontextmanager
async def cache_of(redis: RedisServer, *keys: bytes) -> AsyncIterator[SharedLoginCache]:
    cache = SharedLoginCache(patient_store(redis), LoginSealer(keys or (FIRST,), "dialtone"), lambda: NOW)
    await cache.maintain()
    yield cache
    await cache.close()


async def test_login_is_found_while_keys_are_rotated(redis: RedisServer) -> None:
    async with cache_of(redis, FIRST) as old, cache_of(redis, SECOND, FIRST) as both, cache_of(redis, SECOND) as new:
        await old.put(LOGIN)
        found = [await cache.get(LEASE) for cache in (old, both, new)]
        await both.put(LOGIN)

        assert found == [LOGIN, LOGIN, None]
        assert await new.get(LEASE) == LOGIN
        assert (both.status.hits, new.status.misses, new.status.failures) == (1, 1, {})


async def test_login_that_is_due_for_a_refresh_is_neither_stored_nor_returned(redis: RedisServer) -> None:
    async with cache_of(redis) as cache:
        await cache.put(replace(LOGIN, refresh_after=NOW))
        assert redis.entries() == {}
        await cache.put(LOGIN)
        later = SharedLoginCache(patient_store(redis), LoginSealer([FIRST], "dialtone"), lambda: NOW + 2 * HOUR)
        await later.maintain()

        assert await later.get(LEASE) is None
        await later.close()


async def test_discarded_logins_are_deleted_under_every_key(redis: RedisServer) -> None:
    async with cache_of(redis, FIRST) as old, cache_of(redis, SECOND, FIRST) as both:
        await old.put(LOGIN)
        await both.put(LOGIN)
        both.discard(LEASE)
        before = len(redis.entries())
        await both.maintain()

        assert (before, redis.entries()) == (2, {})


async def test_discarded_login_is_deleted_after_an_outage(redis: RedisServer) -> None:
    async with cache_of(redis) as cache:
        await cache.put(LOGIN)
        (name,) = redis.entries()
        cache.discard(LEASE)
        redis.stop()
        await cache.maintain()
        redis.start()
        redis.client.set(name, b"x")
        for _ in range(3):
            await cache.maintain()

        assert redis.entries() == {}
        assert cache.status.is_available


async def test_oversized_entry_is_a_failure(redis: RedisServer) -> None:
    async with cache_of(redis) as cache:
        await cache.put(LOGIN)
        (name,) = redis.entries()
        redis.client.set(name, b"x" * 100_000)

        assert await cache.get(LEASE) is None
        assert cache.status.failures == {"oversized": 1}
