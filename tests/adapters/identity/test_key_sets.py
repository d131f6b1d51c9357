"""Remote key sets: fetched once for concurrent callers, kept during outages, refetched with a cooldown."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.responses import JSONResponse, Response

from app.adapters.addresses import is_safe_url
from app.adapters.http_client import HttpClient
from app.adapters.identity.claims import Issuer
from app.adapters.identity.diagnosis.explain import TokenExplainer
from app.adapters.identity.key_sets import (
    COLD_COOLDOWN_SECONDS,
    COOLDOWN_SECONDS,
    HARD_LIMIT_SECONDS,
    REFRESH_SECONDS,
    KeySetLocation,
    RemoteKeySource,
)
from app.adapters.identity.unknown_keys import MAX_PENDING
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import IdentityUnavailable, SigningKeyPending, TokenRejected
from tests.support.http_server import free_port, serve
from tests.support.key_server import INVALID_RESPONSES, KeyServer, ResponseFactory
from tests.support.tokens import AUDIENCE, ISSUER, pem, rsa_key, token
from tests.support.verification import ALGORITHMS, now, rejection_reason
from tests.support.waiting import LoopClock, eventually


@asynccontextmanager
async def provided(provider: KeyServer, *, discovers: bool = False) -> AsyncIterator[TokenVerifier]:
    async with HttpClient("dialtone/test") as outbound, serve(provider.app()) as url:
        provider.url = url
        location = KeySetLocation(url, ALGORITHMS) if discovers else KeySetLocation(ISSUER, ALGORITHMS, f"{url}/jwks")
        keys = RemoteKeySource(location, outbound, lambda: provider.time)
        yield TokenVerifier((Issuer(ISSUER, frozenset({AUDIENCE}), ALGORITHMS, keys),), now)


async def test_concurrent_callers_share_one_fetch() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await asyncio.gather(*(verifier.verify(token(f"user-{n}")) for n in range(100)))

        assert provider.fetches == 1


async def test_jwks_uri_is_discovered_from_the_issuer() -> None:
    async with provided(KeyServer(), discovers=True) as verifier:
        assert (await verifier.verify(token())).subject == "alice"


async def test_key_rotation_causes_one_refetch() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.keys = [rsa_key("new"), rsa_key()]

        answers = await asyncio.gather(*(verifier.verify(token(f"u{n}", key=rsa_key("new"))) for n in range(20)))

        assert len(answers) == 20
        assert provider.fetches == 2


async def test_flood_of_random_kids_causes_one_fetch_and_does_not_delay_valid_tokens() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        flood = [verifier.verify(token(header={"kid": f"random-{n}"})) for n in range(200)]

        refusals = await asyncio.gather(*flood, return_exceptions=True)
        async with LoopClock() as took:
            await verifier.verify(token("bob"))

        assert took.seconds < 0.2

        assert sum(type(refusal) is SigningKeyPending for refusal in refusals) == MAX_PENDING
        assert sum(type(refusal) is TokenRejected for refusal in refusals) == 200 - MAX_PENDING
        assert provider.fetches == 2
        provider.time += COOLDOWN_SECONDS + 1
        with pytest.raises(TokenRejected):
            await verifier.verify(token(header={"kid": "random"}))
        assert provider.fetches == 3


async def test_failed_fetch_starts_the_cooldown() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = lambda _: Response(status_code=500)

        for number in range(MAX_PENDING):
            with pytest.raises(SigningKeyPending):
                await verifier.verify(token(header={"kid": f"random-{number}"}))

        assert provider.fetches == 2


@pytest.mark.parametrize("bad", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES.keys())
async def test_invalid_response_does_not_evict_cached_keys(bad: ResponseFactory) -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = bad
        provider.time += REFRESH_SECONDS + 1

        assert (await verifier.verify(token("bob"))).subject == "bob"
        await eventually(lambda: provider.fetches == 2)
        assert (await verifier.verify(token("carol"))).subject == "carol"


async def test_one_hour_outage_rejects_no_valid_token_and_limits_fetches() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = INVALID_RESPONSES["500"]
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
async def test_cache_control_sets_the_refresh_time_within_bounds(header: str, seconds: float) -> None:
    document = {"keys": [rsa_key().as_dict(private=False)]}
    provider = KeyServer(answer=lambda _: JSONResponse(document, headers={"Cache-Control": header}))
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.time += seconds - 1
        await verifier.verify(token("bob"))
        await asyncio.sleep(0.02)
        assert provider.fetches == 1

        provider.time += 2
        await verifier.verify(token("carol"))
        await eventually(lambda: provider.fetches == 2)


async def test_keys_expire_after_a_day_without_a_successful_fetch() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        await verifier.verify(token())
        provider.answer = INVALID_RESPONSES["500"]
        provider.time += HARD_LIMIT_SECONDS + 1

        with pytest.raises(IdentityUnavailable):
            await verifier.verify(token())


async def test_withdrawn_key_invalidates_cached_tokens_at_the_next_refresh() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        old = token()
        await verifier.verify(old)
        provider.keys = [rsa_key("new")]
        provider.time += REFRESH_SECONDS + 1
        await verifier.verify(old)  # served during the fetch
        await eventually(lambda: provider.fetches == 2)

        async def verify_until_rejected() -> None:
            while True:
                await verifier.verify(old)
                await asyncio.sleep(0.01)

        with pytest.raises(TokenRejected):
            await asyncio.wait_for(verify_until_rejected(), 30)


async def test_cold_start_during_an_outage_recovers_without_a_restart() -> None:
    provider = KeyServer(answer=INVALID_RESPONSES["500"])
    async with provided(provider) as verifier:
        for _ in range(20):
            with pytest.raises(IdentityUnavailable):
                await verifier.verify(token())
        assert provider.fetches == 1
        provider.answer = None
        provider.time += COLD_COOLDOWN_SECONDS + 0.1

        assert (await verifier.verify(token())).subject == "alice"


async def test_token_of_an_unknown_issuer_causes_no_request() -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        with pytest.raises(TokenRejected):
            await verifier.verify(token(iss=f"{provider.url}"))

        assert provider.fetches == 0


async def test_fetch_times_out_after_three_seconds() -> None:
    async with HttpClient("dialtone/test") as outbound:
        keys = RemoteKeySource(
            KeySetLocation(ISSUER, ALGORITHMS, f"http://127.0.0.1:{free_port()}/"), outbound, lambda: 1000.0
        )

        with pytest.raises(IdentityUnavailable):
            await asyncio.wait_for(keys.current(), 30)


async def test_discovery_document_of_another_issuer_is_rejected() -> None:
    provider = KeyServer()
    async with HttpClient("dialtone/test") as outbound, serve(provider.app()) as url:
        provider.url = "https://other.example.com"
        keys = RemoteKeySource(KeySetLocation(url, ALGORITHMS), outbound, lambda: 1000.0)

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
def test_key_set_url_must_be_https_or_loopback(url: str, is_safe: bool) -> None:
    assert is_safe_url(url) is is_safe


# -- what a failed fetch reports ------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[ResponseFactory, str]] = {
    "status": (lambda _: Response(status_code=404), "returned status 404"),
    "redirect": (
        INVALID_RESPONSES["redirect"],
        "returned status 307, a redirect to http://127.0.0.1:1; redirects are not followed",
    ),
    "html": (INVALID_RESPONSES["html"], "is an HTML page instead of JSON"),
    "no set": (lambda _: JSONResponse({"issuer": ISSUER}), "the key set is not a JWK set"),
    "too many": (INVALID_RESPONSES["too many"], "not a key set of at most 100 keys"),
    "empty": (INVALID_RESPONSES["no keys"], "the key set is empty"),
    "unusable": (INVALID_RESPONSES["only odd keys"], "no usable key; a key: it is a shared secret"),
    "compressed": (INVALID_RESPONSES["gzip"], "the response is compressed"),
}


@pytest.mark.parametrize(("answer", "reason"), FAILURES.values(), ids=FAILURES.keys())
async def test_failed_fetch_is_reported_with_its_reason(answer: ResponseFactory, reason: str) -> None:
    provider = KeyServer()
    async with provided(provider) as verifier:
        provider.answer = answer
        assert not await verifier.refresh_keys(ISSUER)
        (failed,) = verifier.key_sets()
        provider.answer = None
        assert await verifier.refresh_keys(ISSUER)
        (restored,) = verifier.key_sets()

    assert failed.last_failure is not None
    assert reason in failed.last_failure
    assert restored.last_failure is None


async def test_one_bad_key_is_skipped_and_reported() -> None:
    good = rsa_key().as_dict(private=False)
    entries = [{"kid": "weak", "kty": "RSA", "n": "AQAB", "e": "AQAB"}, good]
    body = '{"keys": [%s, {"kid": %s, "kty": "RSA"}]}' % (json.dumps(entries)[1:-1], "9" * 5000)
    provider = KeyServer(answer=lambda _: Response(body))
    async with provided(provider) as verifier:
        assert (await verifier.verify(token())).subject == "alice"
        (status,) = verifier.key_sets()

    assert status.keys == 1
    assert [key.kid for key in status.skipped] == ["weak", "9" * 64]


async def test_firebase_style_certificates_by_kid_are_a_key_set() -> None:
    provider = KeyServer(answer=lambda _: JSONResponse({"first": pem(), "old": "gone"}))
    async with provided(provider) as verifier:
        assert (await verifier.verify(token())).subject == "alice"
        assert await rejection_reason(token(header={"kid": "old"}), verifier) == "unknown_key"


async def test_explanation_of_an_unknown_key_names_the_usable_and_the_skipped_keys() -> None:
    provider = KeyServer()
    short = {"kty": "oct", "k": "AAAA", "kid": "shared"}
    provider.answer = lambda _: JSONResponse({"keys": [rsa_key().as_dict(private=False), short]})
    async with provided(provider) as verifier:
        report = await explainer(verifier).explain(token(header={"kid": "rotated"}))

    (key,) = report.failed
    assert (key.name, key.reason, key.found) == ("key", "unknown_key", 'kid "rotated" and alg RS256')
    assert key.settings == ("jwks_url",)
    assert 'usable keys: "first" (RS256)' in str(key.hint)
    assert 'Skipped keys: "shared": it is a shared secret' in str(key.hint)


@pytest.mark.parametrize("answer", ["500", "html", "no keys", "redirect"])
async def test_explanation_has_the_reason_why_keys_are_unavailable(answer: str) -> None:
    async with provided(KeyServer(answer=INVALID_RESPONSES[answer])) as verifier:
        report = await explainer(verifier).explain(token(aud="other"))
        (status,) = verifier.key_sets()

    assert report.refusal == "keys_unavailable"
    assert [check.name for check in report.failed] == ["key", "audience"]
    assert report.failed[0].found == status.last_failure


def explainer(verifier: TokenVerifier) -> TokenExplainer:
    return TokenExplainer(verifier.configured_issuers, verifier.verify, None, now().timestamp())
