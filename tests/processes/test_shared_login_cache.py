"""With a shared login cache, restarts and further replicas cost no call to Telnyx."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer, redis_server
from tests.support.replicas import Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.shared_logins import KEY
from tests.support.tokens import token
from tests.support.waiting import eventually

DEVICES = 200


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def shared(redis: RedisServer) -> dict[str, str]:
    """The settings of a replica."""
    redis.client.flushall()
    return {
        "DIALTONE_LOGIN_CACHE_URL": redis.url,
        "DIALTONE_LOGIN_CACHE_KEYS": KEY,
        "TELNYX_CALL_SECONDS": "5",
    }


async def page_loads(service: Replica) -> list[str]:
    """A login for each device; returns the secrets."""
    answers = await asyncio.gather(*(service.issue("laptop", f"user-{number}") for number in range(DEVICES)))
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers][:1]
    return [answer.json()["login_token"] for answer in answers]


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_restart_and_second_replica_cost_no_call_to_telnyx(
    telnyx: Telnyx, database: str, tmp_path: Path, shared: dict[str, str]
) -> None:
    async with replica(telnyx.url, database, tmp_path, shared) as first:
        issued = await page_loads(first)
    calls = len(telnyx.calls())

    async with replica(telnyx.url, database, tmp_path, shared) as restarted:
        after_restart = await page_loads(restarted)
        async with replica(telnyx.url, database, tmp_path, shared) as second:
            at_second = await page_loads(second)
            metrics = (await second.client.get("/metrics")).text

    assert issued == after_restart == at_second
    assert len(telnyx.calls()) == calls == 2 * DEVICES
    assert f"dialtone_shared_login_cache_hits_total {DEVICES}.0" in metrics


async def test_revoked_login_is_returned_by_no_replica_and_leaves_the_store(
    telnyx: Telnyx, postgres: str, tmp_path: Path, shared: dict[str, str], redis: RedisServer
) -> None:
    async with (
        replica(telnyx.url, postgres, tmp_path, shared) as here,
        replica(telnyx.url, postgres, tmp_path, shared) as there,
    ):
        former = [(await service.issue()).json()["login_token"] for service in (here, there)]
        stored = redis.entries()
        await here.client.delete("/v1/telephony-credentials", headers={"Authorization": f"Bearer {token()}"})
        await eventually(lambda: not redis.entries(), seconds=4)
        for name, entry in stored.items():
            redis.client.set(name, entry)  # replayed
        await asyncio.sleep(2)  # by then, the other replica knows that the lease has ended
        latter = [(await service.issue()).json()["login_token"] for service in (there, here)]

    assert len(stored) == 1
    assert former[0] == former[1]
    assert latter[0] == latter[1] != former[0]


async def test_store_holds_nothing_readable(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, shared: dict[str, str], redis: RedisServer
) -> None:
    async with replica(telnyx.url, sqlite, tmp_path, shared) as service:
        answer = (await service.issue()).json()
        ((name, entry),) = redis.entries().items()
        expires_in = redis.client.ttl(name)
        log = service.log.read_bytes()

    for secret in (answer["login_token"], answer["id"], "alice", "laptop", answer["sip_username"], "dialtone-alice"):
        assert secret.encode() not in name + entry
        assert secret.encode() not in log or secret in ("alice", "laptop", answer["id"])
    assert 0 < expires_in < 86_400
