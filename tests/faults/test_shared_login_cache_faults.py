"""A store that is down, slow, or full of wrong entries: no wrong login, no error, and a mint instead.

In each test a replica stores the logins of some users. A fault begins, and a second replica, with an empty memory,
serves the same users under load.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.adapters.login_cache.redis_store import MAX_FAILURES
from app.vending.service_status import SharedLoginCacheStatus
from tests.support.load import LoadGenerator, check_invariants, finish_sweeps
from tests.support.redis_server import RedisServer, redis_server
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import Service, running_service
from tests.support.shared_logins import OTHER_KEY, sharing
from tests.support.waiting import eventually

USERS, DEVICES, REQUESTS = 6, 2, 40
PATIENT: dict[str, Any] = {"telnyx_call_seconds": 20.0, "request_timeout_seconds": 60.0}
"""The sandbox runs in this process, and a busy machine delays its responses."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def loaded(service: Service, telnyx: Telnyx, database: str) -> AsyncIterator[LoadGenerator]:
    """Load during the context; afterwards, every request has succeeded and every login is the right one."""
    load = LoadGenerator([service.client], random.Random(7), users=USERS, devices=DEVICES)  # noqa: S311
    requests = asyncio.create_task(load.run(REQUESTS))
    yield load
    await requests
    await load.run(REQUESTS)
    await load.settle()
    assert set(load.statuses) <= {200, 201, 202, 204}, load.statuses
    account = telnyx.sandbox.account
    for _, answer in load.answers:
        credential = account.credential_of_token(answer["login_token"])
        assert credential is None or credential.sip_username == answer["sip_username"], "a token of another credential"
    for _, answer in load.answers[-USERS * DEVICES :]:
        assert account.credential_of_token(answer["login_token"]) is not None, "a token that works"
    await finish_sweeps([service])
    await check_invariants(telnyx, database, load)


async def fill(telnyx: Telnyx, database: str, redis: RedisServer, **changes: str) -> dict[bytes, bytes]:
    """Store a login for each device; returns the entries."""
    settings = sharing(redis.url) | PATIENT | changes
    others = redis.entries().keys()
    for _ in range(10):  # on a busy machine, the store may be late, and then the next service stores what is missing
        async with running_service(telnyx, database, **settings) as service:
            answers = await asyncio.gather(
                *(service.issue(f"tab-{m}", user=f"user-{n}") for n in range(USERS) for m in range(DEVICES))
            )
        assert all(answer.is_success for answer in answers)
        if len(redis.entries().keys() - others) == USERS * DEVICES:
            break
    return redis.entries()


def status_of(service: Service) -> SharedLoginCacheStatus:
    shared = service.components.telephony.shared_logins
    assert shared is not None
    return shared.status


OUTAGES: dict[str, tuple[Callable[[RedisServer], object], Callable[[RedisServer], object]]] = {
    "stopped": (RedisServer.stop, RedisServer.start),
    "paused": (RedisServer.pause, RedisServer.resume),
    "read-only": (
        lambda redis: redis.client.replicaof("127.0.0.1", str(redis.port + 1)),
        lambda redis: redis.client.replicaof("NO", "ONE"),
    ),
    "full": (
        lambda redis: redis.client.config_set("maxmemory", "1"),
        lambda redis: redis.client.config_set("maxmemory", "0"),
    ),
    "password": (
        lambda redis: (redis.client.config_set("requirepass", "x"), redis.client.client_kill_filter(skipme=True)),
        lambda redis: redis.client.config_set("requirepass", ""),
    ),
}


@pytest.mark.parametrize("kind", OUTAGES)
async def test_outage_costs_mints_and_no_request(telnyx: Telnyx, sqlite: str, redis: RedisServer, kind: str) -> None:
    begin, end = OUTAGES[kind]
    await fill(telnyx, sqlite, redis)

    async with running_service(telnyx, sqlite, **sharing(redis.url), **PATIENT) as service:
        async with loaded(service, telnyx, sqlite):
            begin(redis)
            await eventually(lambda: not status_of(service).is_available)
        end(redis)
        await eventually(lambda: status_of(service).is_available)


async def test_store_that_is_down_at_start_is_used_when_it_is_up(
    telnyx: Telnyx, sqlite: str, redis: RedisServer
) -> None:
    await fill(telnyx, sqlite, redis)
    entries = redis.entries()
    redis.stop()

    async with running_service(telnyx, sqlite, **sharing(redis.url), **PATIENT) as service:
        assert (await service.issue("tab-0", user="user-0")).is_success
        redis.start()
        await eventually(lambda: status_of(service).is_available)
        for name, entry in entries.items():
            redis.client.set(name, entry)
        calls, before = len(telnyx.calls()), status_of(service)
        for user in range(1, USERS):
            assert (await service.issue("tab-0", user=f"user-{user}")).is_success
        after = status_of(service)

    minted = after.misses - before.misses
    assert after.hits - before.hits + minted == USERS - 1
    assert len(telnyx.calls()) == calls + minted
    assert minted == 0 or after.failures != before.failures, "without a late response, each login is found"


Entries = dict[bytes, bytes]


def random_bytes(redis: RedisServer, entries: Entries, _: Entries) -> None:
    for number, name in enumerate(entries):
        redis.client.set(name, random.Random(number).randbytes(number * 300))  # noqa: S311


def huge_values(redis: RedisServer, entries: Entries, _: Entries) -> None:
    for name in entries:
        redis.client.set(name, b"x" * 2_000_000)


def other_types(redis: RedisServer, entries: Entries, _: Entries) -> None:
    for name in entries:
        redis.client.delete(name)
        redis.client.lpush(name, "x")


def swapped(redis: RedisServer, entries: Entries, _: Entries) -> None:
    names = list(entries)
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        redis.client.set(name, entries[other])


def changed_by_a_bit(redis: RedisServer, entries: Entries, _: Entries) -> None:
    for number, (name, entry) in enumerate(entries.items()):
        place = number * 37 % len(entry)
        redis.client.set(name, entry[:place] + bytes([entry[place] ^ 1]) + entry[place + 1 :])


def foreign(redis: RedisServer, entries: Entries, others: Entries) -> None:
    """Entries of another namespace and of another key."""
    for name, entry in zip(entries, list(others.values())[::2], strict=True):
        redis.client.set(name, entry)


GARBAGE = {
    function.__name__: function
    for function in (random_bytes, huge_values, other_types, swapped, changed_by_a_bit, foreign)
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_wrong_entries_are_not_used(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, redis: RedisServer, kind: str
) -> None:
    entries = await fill(telnyx, sqlite, redis)
    async with telnyx_sandbox() as elsewhere:
        await fill(elsewhere, f"sqlite:///{tmp_path / 'other.db'}", redis, namespace="other")
    await fill(telnyx, sqlite, redis, login_cache_keys=OTHER_KEY)
    others = {name: entry for name, entry in redis.entries().items() if name not in entries}
    assert len(entries) == USERS * DEVICES
    assert len(others) == 2 * USERS * DEVICES
    GARBAGE[kind](redis, entries, others)

    async with running_service(telnyx, sqlite, **sharing(redis.url), **PATIENT) as service:
        async with loaded(service, telnyx, sqlite):
            pass
        status = status_of(service)

    failures = dict(status.failures)
    late = failures.pop("timeout", 0)  # on a busy machine
    assert status.is_available or late >= MAX_FAILURES, "wrong entries do not make the store unavailable"
    assert set(failures) <= {"invalid", "oversized"}
    assert sum(failures.values()) > 0


async def test_old_entries_are_not_used_after_a_change(telnyx: Telnyx, sqlite: str, redis: RedisServer) -> None:
    old = await fill(telnyx, sqlite, redis)
    async with running_service(telnyx, sqlite, **sharing(redis.url), **PATIENT) as service:
        former = {}
        for user in range(USERS):
            answer = (await service.issue("tab-0", user=f"user-{user}")).json()
            former[user] = answer["login_token"]
            if user % 2:
                await service.ask("DELETE", f"/{answer['id']}", user=f"user-{user}")
            else:
                await service.ask("PATCH", f"/{answer['id']}", user=f"user-{user}", json={"ttl_seconds": 600})

    for name, entry in old.items():
        redis.client.set(name, entry)
    async with running_service(telnyx, sqlite, **sharing(redis.url), **PATIENT) as service:
        for user in range(USERS):
            answer = await service.issue("tab-0", user=f"user-{user}")
            assert answer.is_success
            assert answer.json()["login_token"] != former[user]
