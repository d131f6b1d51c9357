"""Rate limits: per user and issuer after authentication, per address for rejected tokens."""

import time

import httpx
import pytest

from app.adapters.rate_limiter import RateLimiter, RateLimits, parse_rate_limit
from app.config.settings import SettingsError
from app.vending.errors import RateLimited
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service, settings_for
from tests.support.tokens import principal, token

RUBBISH = {"Authorization": "Bearer rubbish"}


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def standing(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(answer.headers[f"ratelimit-{name}"] for name in ("limit", "remaining"))


async def test_every_response_has_rate_limit_headers(service: Service) -> None:
    first, second = await service.issue("laptop"), await service.issue("laptop")
    other = await service.issue("laptop", user="bob")

    assert [standing(answer) for answer in (first, second, other)] == [
        ("12000", "11999"),
        ("12000", "11998"),
        ("12000", "11999"),
    ]
    assert 0 < int(first.headers["ratelimit-reset"]) <= 60


async def test_user_over_the_limit_gets_429_and_others_do_not(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_user="3/hour") as service:
        answers = [await service.issue("laptop") for _ in range(4)]
        other = await service.issue("laptop", user="bob")

    assert [answer.status_code for answer in answers] == [201, 200, 200, 429]
    assert other.status_code == 201
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert standing(refused) == ("3", "0")


async def test_users_of_an_issuer_share_the_issuer_limit(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_issuer="3/hour") as service:
        statuses = [(await service.issue("laptop", user=f"user-{number}")).status_code for number in range(4)]

    assert statuses == [201, 201, 201, 429]


async def test_user_over_the_own_limit_does_not_use_up_that_of_the_issuer(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_user="1/hour", limit_issuer="3/hour") as service:
        greedy = [(await service.issue("laptop")).status_code for _ in range(5)]
        other = await service.issue("laptop", user="bob")

    assert greedy == [201, 429, 429, 429, 429]
    assert other.status_code == 201


async def test_address_with_too_many_rejected_tokens_gets_429(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_failures="3/hour", trusted_proxies="127.0.0.1") as service:
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
    assert friend.status_code == 200, "other clients' failures do not block a known token"
    assert alive.status_code == 200


async def test_invalid_logout_tokens_count_as_failures(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_failures="2/hour") as service:
        statuses = [
            (await service.client.post("/v1/backchannel-logout", data={"logout_token": "rubbish"})).status_code
            for _ in range(5)
        ]

    assert statuses == [400, 400, 400, 429, 429]


async def test_without_a_limit_there_are_no_rate_limit_headers(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_user="none") as service:
        answer = await service.issue("laptop")

    assert answer.status_code == 201
    assert "ratelimit-limit" not in answer.headers


async def test_rate_limit_headers_are_exposed_by_cors(service: Service) -> None:
    answer = await service.ask("GET", headers={"Origin": "https://app.example.com"})

    assert "RateLimit-Remaining" in answer.headers["access-control-expose-headers"]


def limiter(clock: Time) -> RateLimiter:
    return RateLimiter(RateLimits(parse_rate_limit("3/hour"), None, parse_rate_limit("2/hour")), clock)


@pytest.mark.no_cover
def test_lookup_is_fast_with_ten_thousand_users() -> None:
    found = RateLimiter(RateLimits(parse_rate_limit("300/minute"), None, None), Time())
    for number in range(10_000):
        found.check_user(principal(f"user-{number}"))

    began = time.thread_time()
    for _ in range(200):
        found.check_user(principal())

    assert (time.thread_time() - began) / 200 < 0.0005


def test_window_resets_after_its_end() -> None:
    time_ = Time()
    found = RateLimiter(RateLimits(parse_rate_limit("2/second"), None, None), time_)
    for _ in range(2):
        found.check_user(principal())
    with pytest.raises(RateLimited) as refused:
        found.check_user(principal())
    assert refused.value.retry_after_seconds is not None
    time_.now += refused.value.retry_after_seconds

    standing = found.check_user(principal())

    assert standing is not None
    assert standing.remaining == 1


def test_ipv6_addresses_of_one_network_share_a_counter() -> None:
    found = limiter(Time())

    for number in range(3):
        found.record_failure(f"2001:db8::{number}")

    with pytest.raises(RateLimited):
        found.check_address("2001:db8::ffff")
    found.check_address("2001:db8:1::1")
    found.check_address("")


@pytest.mark.parametrize("limit", ["often", "0/minute", "5/second;100/minute", "5/second, 100/minute", "-1/minute"])
async def test_invalid_limit_is_reported_at_start(telnyx: Telnyx, sqlite: str, limit: str) -> None:
    with pytest.raises(SettingsError, match="DIALTONE_LIMIT_USER: must be one rate of at least 1, such as 300/minute"):
        settings_for(telnyx.url, sqlite, limit_user=limit)
