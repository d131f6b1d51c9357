"""Several issuers side by side: whose token is whose, whose trouble is whose."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from app.adapters.http_client import Outbound
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import (
    COOLDOWN_SECONDS,
    HARD_LIMIT_SECONDS,
    REFRESH_SECONDS,
    FixedKeys,
    Location,
    RemoteKeys,
)
from app.adapters.identity.keys import from_secret
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import IdentityUnavailable, TokenRefused
from tests.adapters.test_key_sets import BAD_ANSWERS, Provider
from tests.adapters.test_tokens import ALL, SECRET, jwks, now, reason
from tests.stage import AUDIENCE, ec_key, eventually, rsa_key, serving, token

STAFF, GUESTS = "https://staff.example.com", "https://guests.example.com"


def issuer(name: str, keys: Any, algorithms: frozenset[str] = ALL, **changes: Any) -> Issuer:
    return Issuer(name, frozenset({AUDIENCE}), algorithms, keys, **changes)


def two() -> TokenVerifier:
    return TokenVerifier(
        [issuer(STAFF, jwks(rsa_key("staff"))), issuer(GUESTS, jwks(rsa_key("guests"), ec_key("P-256", "staff")))], now
    )


async def test_equal_subjects_of_two_issuers_are_two_users() -> None:
    checked = two()

    staff = await checked.verify(token("alice", iss=STAFF, key=rsa_key("staff")))
    guest = await checked.verify(token("alice", iss=GUESTS, key=rsa_key("guests")))

    assert staff.subject == guest.subject == "alice"
    assert staff.owner != guest.owner


@pytest.mark.parametrize(
    ("name", "key", "header"),
    [
        (STAFF, rsa_key("guests"), {}),
        (STAFF, rsa_key("guests"), {"kid": "staff"}),
        (GUESTS, rsa_key("staff"), {}),
        (GUESTS, rsa_key("staff"), {"kid": "guests"}),
        (STAFF, ec_key("P-256", "staff"), {"alg": "ES256"}),
    ],
    ids=["their kid", "our kid", "theirs for guests", "guests' kid", "the other's key of the same kid"],
)
async def test_one_issuers_token_under_anothers_key_is_refused(name: str, key: Any, header: dict[str, Any]) -> None:
    assert await reason(token(iss=name, key=key, header=header), two()) in ("unknown_key", "bad_signature")


async def test_a_shared_secret_of_one_issuer_signs_nothing_of_another() -> None:
    from joserfc.jwk import OctKey

    secret = OctKey.import_key(SECRET)
    hs = frozenset({"HS256"})
    checked = TokenVerifier(
        [issuer(STAFF, jwks(rsa_key())), issuer(GUESTS, FixedKeys(from_secret(SECRET.encode(), hs)), hs)], now
    )
    header = {"alg": "HS256", "kid": ...}

    assert (await checked.verify(token(iss=GUESTS, key=secret, header=header))).issuer == GUESTS
    assert await reason(token(iss=STAFF, key=secret, header=header), checked) == "algorithm_not_allowed"


async def test_each_issuer_has_its_own_demands() -> None:
    checked = TokenVerifier(
        [
            Issuer(STAFF, frozenset({"a", "b"}), ALL, jwks(rsa_key()), subject_claim="email"),
            Issuer(GUESTS, frozenset({"c"}), ALL, jwks(rsa_key()), scope_claim="scp", allows_scope_list=True),
        ],
        now,
    )

    assert (await checked.verify(token(iss=STAFF, aud="b", email="a@example.com"))).subject == "a@example.com"
    assert (await checked.verify(token(iss=GUESTS, aud="c", scp=["x"]))).scopes == {"x"}
    assert await reason(token(iss=GUESTS, aud="b"), checked) == "wrong_audience"
    assert await reason(token(iss=STAFF, aud="a"), checked) == "bad_subject"


# -- key sets of several ------------------------------------------------------------------------------------------


@asynccontextmanager
async def provided(*providers: Provider) -> AsyncIterator[tuple[TokenVerifier, list[RemoteKeys]]]:
    async with Outbound("dialtone/test") as outbound:
        issuers, sources = [], []
        stack = []
        for number, provider in enumerate(providers):
            server = serving(provider.app())
            url = await server.__aenter__()
            stack.append(server)
            name = (STAFF, GUESTS)[number]
            keys = RemoteKeys(Location(name, ALL, f"{url}/jwks"), outbound, lambda: providers[0].time)
            sources.append(keys)
            issuers.append(issuer(name, keys))
        try:
            yield TokenVerifier(issuers, now), sources
        finally:
            for server in stack:
                await server.__aexit__(None, None, None)


async def test_an_issuer_that_is_away_touches_no_other() -> None:
    well, away = Provider(), Provider(answer=BAD_ANSWERS["500"])
    async with provided(well, away) as (checked, _):
        assert (await checked.verify(token(iss=STAFF))).issuer == STAFF
        with pytest.raises(IdentityUnavailable):
            await checked.verify(token(iss=GUESTS))

        assert await checked.missing_keys() == [GUESTS]


async def test_an_issuer_that_never_answers_does_not_hold_up_a_look_at_the_others() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Outbound("dialtone/test") as outbound:
        hanging = RemoteKeys(Location(GUESTS, ALL, f"http://127.0.0.1:{port}/"), outbound, lambda: 1000.0)
        checked = TokenVerifier([issuer(STAFF, jwks(rsa_key())), issuer(GUESTS, hanging)], now)
        began = time.monotonic()

        assert await checked.missing_keys() == [GUESTS]

        assert time.monotonic() - began < 2.5
        server.close()


async def test_a_key_set_is_tended_without_anybody_asking() -> None:
    provider = Provider()
    async with provided(provider) as (checked, (keys,)):
        await checked.tend()
        assert provider.fetches == 1
        await checked.tend()
        provider.time += REFRESH_SECONDS + 1
        await checked.tend()
        await eventually(lambda: provider.fetches == 2)
        await eventually(lambda: keys.status(STAFF).age_seconds == 0)


async def test_an_operator_has_keys_fetched_whatever_the_cooldowns_say() -> None:
    provider = Provider()
    async with provided(provider) as (checked, _):
        old = token(iss=STAFF)
        await checked.verify(old)
        provider.keys = [rsa_key("new")]

        assert await checked.refresh_keys(STAFF)

        assert await reason(old, checked) == "unknown_key"
        assert (await checked.verify(token(iss=STAFF, key=rsa_key("new")))).subject == "alice"
        provider.answer = BAD_ANSWERS["500"]
        assert not await checked.refresh_keys(STAFF)
        assert not await checked.refresh_keys("https://nobody.example.com")
        assert (await checked.verify(token("bob", iss=STAFF, key=rsa_key("new")))).subject == "bob"


async def test_the_same_set_fetched_again_leaves_verified_tokens_verified() -> None:
    provider = Provider()
    async with provided(provider) as (checked, (keys,)):
        await checked.verify(token(iss=STAFF))
        before = await keys.current()

        await checked.refresh_keys(STAFF)

        assert await keys.current() is before


async def test_keys_that_died_of_age_come_back_with_the_very_same_document() -> None:
    provider = Provider()
    async with provided(provider) as (checked, _):
        await checked.verify(token(iss=STAFF))
        provider.time += HARD_LIMIT_SECONDS + 1

        assert (await checked.verify(token("bob", iss=STAFF))).subject == "bob"


async def test_age_fetches_and_failures_are_told() -> None:
    provider = Provider()
    async with provided(provider) as (checked, _):
        await checked.tend()
        provider.answer = BAD_ANSWERS["html"]
        provider.time += 100
        await checked.refresh_keys(STAFF)

        (status,) = checked.key_sets()

        assert (status.issuer, status.keys, status.age_seconds) == (STAFF, 1, 100)
        assert (status.fetches, status.failures) == (2, 1)


async def test_an_hour_without_the_issuer_on_its_clock_minute_by_minute() -> None:
    provider = Provider()
    async with provided(provider) as (checked, _):
        await checked.tend()
        provider.answer = BAD_ANSWERS["500"]
        for minute in range(60):
            provider.time += 60
            await checked.tend()
            assert await checked.verify(token(f"user-{minute}", iss=STAFF))
        assert provider.fetches <= 61
        provider.answer = None
        provider.time += COOLDOWN_SECONDS + 1

        await checked.tend()

        await eventually(lambda: checked.key_sets()[0].age_seconds == 0)


async def test_a_thousand_random_kids_a_second_cost_one_fetch_and_no_good_user_waits() -> None:
    answered = asyncio.Event()

    def slowly(_: Any) -> Response:
        answered.set()
        return JSONResponse({"keys": [rsa_key().as_dict(private=False)]})

    provider = Provider(answer=slowly)
    async with provided(provider) as (checked, _):
        await checked.verify(token(iss=STAFF))
        flood = [token(iss=STAFF, header={"kid": f"random-{number}"}) for number in range(1000)]
        good = [token(f"user-{number}", iss=STAFF) for number in range(50)]
        waits: list[float] = []

        async def bad_ones() -> list[Any]:
            return await asyncio.gather(*(checked.verify(text) for text in flood), return_exceptions=True)

        under_way = asyncio.create_task(bad_ones())
        for text in good:
            began = time.perf_counter()
            await checked.verify(text)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0)
        refusals = await under_way

        assert {type(refusal) for refusal in refusals} == {TokenRefused}
        assert provider.fetches == 2
        assert sorted(waits)[len(waits) // 2] < 0.05


# -- other issuers at run time --------------------------------------------------------------------------------------


async def test_a_token_verified_before_must_pass_again_when_its_issuer_changes() -> None:
    checked = two()
    good = token(iss=STAFF, key=rsa_key("staff"))
    await checked.verify(good)

    checked.replace([issuer(STAFF, jwks(rsa_key("staff")), algorithms=frozenset({"ES256"}))])

    assert await reason(good, checked) == "algorithm_not_allowed"
    assert await reason(token(iss=GUESTS, key=rsa_key("guests")), checked) == "unknown_issuer"


async def test_a_verdict_that_was_on_its_way_during_a_change_is_not_kept() -> None:
    provider = Provider()
    async with provided(provider) as (checked, _):
        good = token(iss=STAFF)
        on_its_way = asyncio.create_task(checked.verify(good))
        await asyncio.sleep(0)
        checked.replace([issuer(STAFF, jwks(rsa_key("other")))])
        await on_its_way

        assert await reason(good, checked) == "unknown_key"


async def test_the_memory_of_verified_tokens_is_bounded() -> None:
    from app.adapters.identity import verifier as room

    checked = two()
    checked._verdicts.update({bytes([0, n >> 8, n & 255]): None for n in range(room.CACHED_VERDICTS)})  # type: ignore[misc]

    await checked.verify(token(iss=STAFF, key=rsa_key("staff")))

    assert len(checked._verdicts) == room.CACHED_VERDICTS
