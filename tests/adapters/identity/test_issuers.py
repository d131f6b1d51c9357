"""Several issuers: each token is checked by its issuer's rules; an outage of one does not affect the others."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from app.adapters.http_client import HttpClient
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import (
    COOLDOWN_SECONDS,
    HARD_LIMIT_SECONDS,
    REFRESH_SECONDS,
    KeySetLocation,
    RemoteKeySource,
    StaticKeySource,
)
from app.adapters.identity.keys import from_secret
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import IdentityUnavailable, SigningKeyPending, TokenRejected
from tests.support.http_server import serve
from tests.support.key_server import INVALID_RESPONSES, KeyServer
from tests.support.tokens import AUDIENCE, ec_key, rsa_key, token
from tests.support.verification import ALGORITHMS, SECRET, fixed_keys, now, rejection_reason
from tests.support.waiting import LoopClock, eventually

STAFF, GUESTS = "https://staff.example.com", "https://guests.example.com"


def issuer(name: str, keys: Any, algorithms: frozenset[str] = ALGORITHMS, **changes: Any) -> Issuer:
    return Issuer(name, frozenset({AUDIENCE}), algorithms, keys, **changes)


def two() -> TokenVerifier:
    return TokenVerifier(
        [
            issuer(STAFF, fixed_keys(rsa_key("staff"))),
            issuer(GUESTS, fixed_keys(rsa_key("guests"), ec_key("P-256", "staff"))),
        ],
        now,
    )


async def test_equal_subjects_of_two_issuers_are_two_users() -> None:
    checked = two()

    staff = await checked.verify(token("alice", iss=STAFF, key=rsa_key("staff")))
    guest = await checked.verify(token("alice", iss=GUESTS, key=rsa_key("guests")))

    assert staff.subject == guest.subject == "alice"
    assert staff.user_key != guest.user_key


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
async def test_token_signed_with_another_issuers_key_is_rejected(name: str, key: Any, header: dict[str, Any]) -> None:
    assert await rejection_reason(token(iss=name, key=key, header=header), two()) in ("unknown_key", "bad_signature")


async def test_shared_secret_of_one_issuer_does_not_verify_another_issuers_tokens() -> None:
    from joserfc.jwk import OctKey

    secret = OctKey.import_key(SECRET)
    hs = frozenset({"HS256"})
    checked = TokenVerifier(
        [issuer(STAFF, fixed_keys(rsa_key())), issuer(GUESTS, StaticKeySource(from_secret(SECRET.encode(), hs)), hs)],
        now,
    )
    header = {"alg": "HS256", "kid": ...}

    assert (await checked.verify(token(iss=GUESTS, key=secret, header=header))).issuer == GUESTS
    assert await rejection_reason(token(iss=STAFF, key=secret, header=header), checked) == "algorithm_not_allowed"


async def test_each_issuer_applies_its_own_audience_and_claim_settings() -> None:
    checked = TokenVerifier(
        [
            Issuer(STAFF, frozenset({"a", "b"}), ALGORITHMS, fixed_keys(rsa_key()), subject_claim="email"),
            Issuer(GUESTS, frozenset({"c"}), ALGORITHMS, fixed_keys(rsa_key()), scope_claim="scp"),
        ],
        now,
    )

    assert (await checked.verify(token(iss=STAFF, aud="b", email="a@example.com"))).subject == "a@example.com"
    assert (await checked.verify(token(iss=GUESTS, aud="c", scp=["x"]))).scopes == {"x"}
    assert await rejection_reason(token(iss=GUESTS, aud="b"), checked) == "wrong_audience"
    assert await rejection_reason(token(iss=STAFF, aud="a"), checked) == "bad_subject"


# -- key sets of several issuers ----------------------------------------------------------------------------------


@asynccontextmanager
async def provided(*providers: KeyServer) -> AsyncIterator[tuple[TokenVerifier, list[RemoteKeySource]]]:
    async with HttpClient("dialtone/test") as outbound:
        issuers, sources = [], []
        stack = []
        for number, provider in enumerate(providers):
            server = serve(provider.app())
            url = await server.__aenter__()
            stack.append(server)
            name = (STAFF, GUESTS)[number]
            keys = RemoteKeySource(KeySetLocation(name, ALGORITHMS, f"{url}/jwks"), outbound, lambda: providers[0].time)
            sources.append(keys)
            issuers.append(issuer(name, keys))
        try:
            yield TokenVerifier(issuers, now), sources
        finally:
            for server in stack:
                await server.__aexit__(None, None, None)


async def test_outage_of_one_issuer_does_not_affect_another() -> None:
    well, away = KeyServer(), KeyServer(answer=INVALID_RESPONSES["500"])
    async with provided(well, away) as (checked, _):
        assert (await checked.verify(token(iss=STAFF))).issuer == STAFF
        with pytest.raises(IdentityUnavailable):
            await checked.verify(token(iss=GUESTS))

        assert await checked.missing_keys() == [GUESTS]


async def test_unresponsive_issuer_does_not_delay_the_status_of_others() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with HttpClient("dialtone/test") as outbound:
        hanging = RemoteKeySource(
            KeySetLocation(GUESTS, ALGORITHMS, f"http://127.0.0.1:{port}/"), outbound, lambda: 1000.0
        )
        checked = TokenVerifier([issuer(STAFF, fixed_keys(rsa_key())), issuer(GUESTS, hanging)], now)
        async with LoopClock() as took:
            assert await checked.missing_keys() == [GUESTS]

        assert took.seconds < 2.5
        server.close()


async def test_key_set_is_refreshed_in_the_background() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, (keys,)):
        await checked.refresh_due_keys()
        assert provider.fetches == 1
        await checked.refresh_due_keys()
        provider.time += REFRESH_SECONDS + 1
        await checked.refresh_due_keys()
        await eventually(lambda: provider.fetches == 2)
        await eventually(lambda: keys.status(STAFF).age_seconds == 0)


async def test_operator_refresh_ignores_the_cooldowns() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, _):
        old = token(iss=STAFF)
        await checked.verify(old)
        provider.keys = [rsa_key("new")]

        assert await checked.refresh_keys(STAFF)

        assert await rejection_reason(old, checked) == "unknown_key"
        assert (await checked.verify(token(iss=STAFF, key=rsa_key("new")))).subject == "alice"
        provider.answer = INVALID_RESPONSES["500"]
        assert not await checked.refresh_keys(STAFF)
        assert not await checked.refresh_keys("https://nobody.example.com")
        assert (await checked.verify(token("bob", iss=STAFF, key=rsa_key("new")))).subject == "bob"


async def test_refetched_unchanged_key_set_keeps_verified_tokens_cached() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, (keys,)):
        await checked.verify(token(iss=STAFF))
        before = await keys.current()

        await checked.refresh_keys(STAFF)

        assert await keys.current() is before


async def test_expired_key_set_is_restored_by_an_unchanged_document() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, _):
        await checked.verify(token(iss=STAFF))
        provider.time += HARD_LIMIT_SECONDS + 1

        assert (await checked.verify(token("bob", iss=STAFF))).subject == "bob"


async def test_key_set_status_reports_age_fetches_and_failures() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, _):
        await checked.refresh_due_keys()
        provider.answer = INVALID_RESPONSES["html"]
        provider.time += 100
        await checked.refresh_keys(STAFF)

        (status,) = checked.key_sets()

        assert (status.issuer, status.keys, status.age_seconds) == (STAFF, 1, 100)
        assert (status.fetches, status.failures) == (2, 1)


async def test_one_hour_outage_rejects_no_valid_token_and_causes_few_fetches() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, _):
        await checked.refresh_due_keys()
        provider.answer = INVALID_RESPONSES["500"]
        for minute in range(60):
            provider.time += 60
            await checked.refresh_due_keys()
            assert await checked.verify(token(f"user-{minute}", iss=STAFF))
        assert provider.fetches <= 61
        provider.answer = None
        provider.time += COOLDOWN_SECONDS + 1

        await checked.refresh_due_keys()

        await eventually(lambda: checked.key_sets()[0].age_seconds == 0)


@pytest.mark.no_cover
async def test_thousand_random_kids_cause_one_fetch_and_do_not_delay_valid_tokens() -> None:
    answered = asyncio.Event()

    def slowly(_: Any) -> Response:
        answered.set()
        return JSONResponse({"keys": [rsa_key().as_dict(private=False)]})

    provider = KeyServer(answer=slowly)
    async with provided(provider) as (checked, _):
        await checked.verify(token(iss=STAFF))
        flood = [token(iss=STAFF, header={"kid": f"random-{number}"}) for number in range(1000)]
        good = [token(f"user-{number}", iss=STAFF) for number in range(50)]
        waits: list[float] = []

        async def bad_ones() -> list[Any]:
            return await asyncio.gather(*(checked.verify(text) for text in flood), return_exceptions=True)

        in_flight = asyncio.create_task(bad_ones())
        for text in good:
            began = time.perf_counter()
            await checked.verify(text)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0)
        refusals = await in_flight

        assert {type(refusal) for refusal in refusals} == {TokenRejected, SigningKeyPending}
        assert provider.fetches == 2
        assert sorted(waits)[len(waits) // 2] < 0.05


# -- changing the issuers at run time -------------------------------------------------------------------------------


async def test_changed_issuer_settings_invalidate_cached_tokens() -> None:
    checked = two()
    good = token(iss=STAFF, key=rsa_key("staff"))
    await checked.verify(good)

    checked.replace([issuer(STAFF, fixed_keys(rsa_key("staff")), algorithms=frozenset({"ES256"}))])

    assert await rejection_reason(good, checked) == "algorithm_not_allowed"
    assert await rejection_reason(token(iss=GUESTS, key=rsa_key("guests")), checked) == "unknown_issuer"


async def test_verification_that_overlaps_an_issuer_change_is_not_cached() -> None:
    provider = KeyServer()
    async with provided(provider) as (checked, _):
        good = token(iss=STAFF)
        on_its_way = asyncio.create_task(checked.verify(good))
        await asyncio.sleep(0)
        checked.replace([issuer(STAFF, fixed_keys(rsa_key("other")))])
        await on_its_way

        assert await rejection_reason(good, checked) == "unknown_key"


async def test_least_recently_used_token_is_evicted_from_a_full_cache() -> None:
    checked = TokenVerifier([issuer(STAFF, fixed_keys(rsa_key("staff")))], now, max_cached_tokens=2)
    tokens = [token(user, iss=STAFF, key=rsa_key("staff")) for user in ("alice", "bob", "carol")]

    for unverified_token in tokens:
        await checked.verify(unverified_token)

    assert [checked.cached_principal(text) is not None for text in tokens] == [False, True, True]
