"""Key sets behind HTTP: fetched once, kept through trouble, refetched with restraint."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from app.adapters.http_client import Outbound
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import (
    COLD_COOLDOWN_SECONDS,
    COOLDOWN_SECONDS,
    HARD_LIMIT_SECONDS,
    REFRESH_SECONDS,
    Location,
    RemoteKeys,
    is_safe_url,
)
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import IdentityUnavailable, TokenRefused
from tests.adapters.test_tokens import ALL, now
from tests.stage import AUDIENCE, ISSUER, eventually, free_port, rsa_key, serving, token

Answerer = Callable[[Request], Response]


@dataclass
class Provider:
    """An identity provider whose key endpoint answers as it is told, and counts."""

    keys: list[Any] = field(default_factory=lambda: [rsa_key()])
    answer: Answerer | None = None
    fetches: int = 0
    url: str = ""
    time: float = 1000.0

    def app(self) -> Starlette:
        async def jwks(request: Request) -> Response:
            self.fetches += 1
            if self.answer is not None:
                return self.answer(request)
            return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

        async def discovery(_: Request) -> Response:
            return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})

        return Starlette(routes=[Route("/jwks", jwks), Route("/.well-known/openid-configuration", discovery)])


@asynccontextmanager
async def provided(provider: Provider, *, discovers: bool = False) -> AsyncIterator[TokenVerifier]:
    async with Outbound("dialtone/test") as outbound, serving(provider.app()) as url:
        provider.url = url
        location = Location(url, ALL) if discovers else Location(ISSUER, ALL, f"{url}/jwks")
        keys = RemoteKeys(location, outbound, lambda: provider.time)
        yield TokenVerifier((Issuer(ISSUER, frozenset({AUDIENCE}), ALL, keys),), now)


async def test_keys_are_fetched_once_for_a_thousand_callers() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await asyncio.gather(*(verifier.verify(token(f"user-{n}")) for n in range(100)))

        assert provider.fetches == 1


async def test_keys_are_discovered_from_the_issuer_itself() -> None:
    async with provided(Provider(), discovers=True) as verifier:
        assert (await verifier.verify(token())).subject == "alice"


async def test_a_rotation_just_before_signing_costs_one_refetch() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.keys = [rsa_key("new"), rsa_key()]

        answers = await asyncio.gather(*(verifier.verify(token(f"u{n}", key=rsa_key("new"))) for n in range(20)))

        assert len(answers) == 20
        assert provider.fetches == 2


async def test_a_flood_of_random_kids_causes_one_fetch_and_slows_no_good_token() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        flood = [verifier.verify(token(header={"kid": f"random-{n}"})) for n in range(200)]

        refusals = await asyncio.gather(*flood, return_exceptions=True)
        await asyncio.wait_for(verifier.verify(token("bob")), 0.2)

        assert {type(refusal) for refusal in refusals} == {TokenRefused}
        assert provider.fetches == 2
        provider.time += COOLDOWN_SECONDS + 1
        with pytest.raises(TokenRefused):
            await verifier.verify(token(header={"kid": "random"}))
        assert provider.fetches == 3


async def test_a_failing_endpoint_counts_against_the_cooldown_too() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = lambda _: Response(status_code=500)

        for number in range(10):
            with pytest.raises(TokenRefused):
                await verifier.verify(token(header={"kid": f"random-{number}"}))

        assert provider.fetches == 2


BAD_ANSWERS: dict[str, Answerer] = {
    "500": lambda _: Response(status_code=500),
    "html": lambda _: Response("<html>", media_type="text/html"),
    "no keys": lambda _: JSONResponse({"keys": []}),
    "only odd keys": lambda _: JSONResponse({"keys": [{"kty": "oct", "k": "AAAA"}]}),
    "not an object": lambda _: JSONResponse([1]),
    "redirect": lambda _: RedirectResponse("http://127.0.0.1:1/"),
    "huge": lambda _: Response(json.dumps({"keys": ["x" * 300_000]})),
    "too many": lambda _: JSONResponse({"keys": [{}] * 101}),
    "gzip": lambda _: Response(b"\x1f\x8b", headers={"content-encoding": "gzip"}),
    "deep": lambda _: Response("[" * 100_000),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_bad_answer_never_evicts_good_keys(bad: Answerer) -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = bad
        provider.time += REFRESH_SECONDS + 1

        assert (await verifier.verify(token("bob"))).subject == "bob"
        await eventually(lambda: provider.fetches == 2)
        assert (await verifier.verify(token("carol"))).subject == "carol"


async def test_an_hour_without_the_issuer_refuses_no_good_token_and_makes_no_storm() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = BAD_ANSWERS["500"]
        for minute in range(60):
            provider.time += 60
            for number in range(5):
                assert await verifier.verify(token(f"user-{minute}-{number}"))
            await asyncio.sleep(0)

        assert provider.fetches <= 1 + 60


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("public, max-age=900", 900),
        ('max-age="120"', 120),
        ("max-age=1", 60),
        ("MAX-AGE=99999999999999999999", 3600),
        ("no-store", 60),
        ("no-cache, max-age=900", 60),
        ("max-age=-5", REFRESH_SECONDS),
        ("max-age=soon", REFRESH_SECONDS),
        ("", REFRESH_SECONDS),
    ],
)
async def test_a_set_is_fetched_anew_when_its_answer_said_so_within_bounds(header: str, seconds: float) -> None:
    document = {"keys": [rsa_key().as_dict(private=False)]}
    provider = Provider(answer=lambda _: JSONResponse(document, headers={"Cache-Control": header}))
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.time += seconds - 1
        await verifier.verify(token("bob"))
        await asyncio.sleep(0.02)
        assert provider.fetches == 1

        provider.time += 2
        await verifier.verify(token("carol"))
        await eventually(lambda: provider.fetches == 2)


async def test_keys_that_could_not_be_confirmed_for_a_day_are_dead() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = BAD_ANSWERS["500"]
        provider.time += HARD_LIMIT_SECONDS + 1

        with pytest.raises(IdentityUnavailable):
            await verifier.verify(token())


async def test_a_withdrawn_key_dies_with_the_next_refresh_even_for_a_token_seen_before() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        old = token()
        await verifier.verify(old)
        provider.keys = [rsa_key("new")]
        provider.time += REFRESH_SECONDS + 1
        await verifier.verify(old)  # served while the fetch is under way
        await eventually(lambda: provider.fetches == 2)
        await asyncio.sleep(0.05)

        with pytest.raises(TokenRefused):
            await verifier.verify(old)


async def test_a_cold_start_without_the_issuer_is_unavailable_and_heals_by_itself() -> None:
    provider = Provider(answer=BAD_ANSWERS["500"])
    async with provided(provider) as verifier:
        for _ in range(20):
            with pytest.raises(IdentityUnavailable):
                await verifier.verify(token())
        assert provider.fetches == 1
        provider.answer = None
        provider.time += COLD_COOLDOWN_SECONDS + 0.1

        assert (await verifier.verify(token())).subject == "alice"


async def test_a_token_of_an_unknown_issuer_causes_no_request() -> None:
    provider = Provider()
    async with provided(provider) as verifier:
        with pytest.raises(TokenRefused):
            await verifier.verify(token(iss=f"{provider.url}"))

        assert provider.fetches == 0


async def test_an_issuer_that_does_not_answer_is_given_up_after_three_seconds() -> None:
    async with Outbound("dialtone/test") as outbound:
        keys = RemoteKeys(Location(ISSUER, ALL, f"http://127.0.0.1:{free_port()}/"), outbound, lambda: 1000.0)

        with pytest.raises(IdentityUnavailable):
            await asyncio.wait_for(keys.current(), 3.5)


async def test_a_discovery_document_of_another_issuer_is_refused() -> None:
    provider = Provider()
    async with Outbound("dialtone/test") as outbound, serving(provider.app()) as url:
        provider.url = "https://other.example.com"
        keys = RemoteKeys(Location(url, ALL), outbound, lambda: 1000.0)

        with pytest.raises(IdentityUnavailable):
            await keys.current()


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://id.example.com/keys", True),
        ("http://127.0.0.1:8012/keys", True),
        ("http://[::1]:8012/keys", True),
        ("http://localhost:8012", True),
        ("http://id.example.com/keys", False),
        ("http://127.0.0.1.example.com/keys", False),
        ("http://169.254.169.254/latest", False),
        ("https://user:pass@id.example.com", False),
        ("https://id.example.com/#x", False),
        ("file:///etc/passwd", False),
        ("ftp://127.0.0.1/", False),
        ("https://", False),
        ("//id.example.com", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str, is_safe: bool) -> None:
    assert is_safe_url(url) is is_safe
