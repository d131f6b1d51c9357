"""A rotated key within the refetch cooldown: the token gets 503 within a limit that a flood cannot exploit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.adapters.http_client import HttpClient
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import COOLDOWN_SECONDS, KeySetLocation, RemoteKeySource
from app.adapters.identity.unknown_keys import MAX_PENDING
from app.adapters.identity.verifier import TokenVerifier
from app.api.request_scope import BACKCHANNEL_LOGOUT
from app.vending.errors import LogoutTokenRejected, SigningKeyPending, TokenRejected
from tests.support.http_server import serve
from tests.support.key_server import INVALID_RESPONSES, KeyServer
from tests.support.sandbox import Telnyx
from tests.support.service import running_service
from tests.support.tokens import AUDIENCE, ISSUER, claims_of, logout_token, rsa_key, token
from tests.support.verification import ALGORITHMS, now, raw_token, rejection_reason


def rotated_token() -> str:
    return token(key=rsa_key("rotated"))


@asynccontextmanager
async def during_cooldown(provider: KeyServer) -> AsyncIterator[TokenVerifier]:
    """A verifier whose keys were refetched for another unknown `kid`, and a provider that then rotated its key."""
    async with HttpClient("dialtone/test") as outbound, serve(provider.app()) as url:
        keys = RemoteKeySource(KeySetLocation(ISSUER, ALGORITHMS, f"{url}/jwks"), outbound, lambda: provider.time)
        verifier = TokenVerifier((Issuer(ISSUER, frozenset({AUDIENCE}), ALGORITHMS, keys),), now)
        await verifier.verify(token())
        assert await rejection_reason(token(header={"kid": "stray"}), verifier) == "unknown_key"
        provider.keys = [rsa_key("rotated"), rsa_key()]
        yield verifier


async def test_rotated_key_is_pending_until_the_cooldown_ends_and_then_accepted() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        provider.time += 10
        with pytest.raises(SigningKeyPending) as pending:
            await verifier.verify(rotated_token())
        assert pending.value.retry_after_seconds == COOLDOWN_SECONDS - 10
        provider.time += COOLDOWN_SECONDS - 10
        with pytest.raises(SigningKeyPending):
            await verifier.verify(rotated_token())
        assert provider.fetches == 2

        provider.time += 0.1

        assert (await verifier.verify(rotated_token())).subject == "alice"
        assert provider.fetches == 3


async def test_fast_path_leaves_a_pending_key_to_the_middleware() -> None:
    async with during_cooldown(KeyServer()) as verifier:
        assert verifier.verify_now([rotated_token()]) == [None]


async def test_key_that_a_fetch_did_not_find_is_rejected_for_the_whole_cooldown() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        for _ in range(3):
            provider.time += COOLDOWN_SECONDS / 4
            assert await rejection_reason(token(header={"kid": "stray"}), verifier) == "unknown_key"


async def test_pending_key_is_rejected_after_a_fetch_that_another_token_caused() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        with pytest.raises(SigningKeyPending):
            await verifier.verify(token(header={"kid": "forged"}))
        provider.time += COOLDOWN_SECONDS + 1
        assert await rejection_reason(token(header={"kid": "another"}), verifier) == "unknown_key"

        assert await rejection_reason(token(header={"kid": "forged"}), verifier) == "unknown_key"


async def test_failed_fetch_leaves_the_key_pending() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        provider.answer = INVALID_RESPONSES["500"]
        provider.time += COOLDOWN_SECONDS + 1
        for _ in range(2):
            with pytest.raises(SigningKeyPending):
                await verifier.verify(rotated_token())
        assert provider.fetches == 3
        provider.answer = None
        provider.time += COOLDOWN_SECONDS + 1

        assert (await verifier.verify(rotated_token())).subject == "alice"


async def test_pending_keys_stay_within_the_limit_during_a_long_outage() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        provider.answer = INVALID_RESPONSES["500"]
        for cycle in range(4):
            provider.time += COOLDOWN_SECONDS + 1
            outcomes = [await outcome(verifier, token(header={"kid": f"{cycle}-{n}"})) for n in range(3 * MAX_PENDING)]
            assert outcomes.count(SigningKeyPending) <= MAX_PENDING + 1


async def outcome(verifier: TokenVerifier, unverified_token: str) -> type[Exception] | None:
    try:
        await verifier.verify(unverified_token)
    except (TokenRejected, SigningKeyPending) as error:
        return type(error)
    return None


async def test_only_a_limited_number_of_kids_is_pending_at_once() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        outcomes = [await outcome(verifier, token(header={"kid": f"random-{n}"})) for n in range(300)]

        assert outcomes[:MAX_PENDING] == [SigningKeyPending] * MAX_PENDING
        assert set(outcomes[MAX_PENDING:]) == {TokenRejected}
        assert await outcome(verifier, token(header={"kid": "random-0"})) is SigningKeyPending
        assert provider.fetches == 2


async def test_rotated_key_is_accepted_after_the_cooldown_while_a_flood_continues() -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        for n in range(100):
            await outcome(verifier, token(header={"kid": f"random-{n}"}))
        assert await outcome(verifier, rotated_token()) is TokenRejected
        provider.time += COOLDOWN_SECONDS + 1
        for n in range(100):
            await outcome(verifier, token(header={"kid": f"more-{n}"}))

        assert (await verifier.verify(rotated_token())).subject == "alice"
        assert provider.fetches == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": ...}, "no_audience"),
        ({"exp": 1}, "expired"),
        ({"exp": ...}, "no_expiry"),
        ({"sub": ""}, "bad_subject"),
        ({"nonce": "n"}, "id_token"),
        ({"iss": "https://elsewhere.example.com"}, "unknown_issuer"),
        ({"header": {"typ": "logout+jwt"}}, "wrong_type"),
        ({"header": {"crit": ["x"]}}, "unsupported_header"),
    ],
    ids=str,
)
async def test_token_that_no_key_could_make_valid_is_rejected_without_a_fetch(
    changes: dict[str, Any], reason: str
) -> None:
    provider = KeyServer()
    async with during_cooldown(provider) as verifier:
        provider.time += COOLDOWN_SECONDS + 1
        header = {"kid": "rotated"} | changes.pop("header", {})
        claims = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": now().timestamp() + 60} | changes
        unverified_token = raw_token(
            {"alg": "RS256"} | header, {name: value for name, value in claims.items() if value is not ...}
        )

        assert await rejection_reason(unverified_token, verifier) == reason
        assert provider.fetches == 2


async def test_token_without_a_kid_is_pending_if_no_key_fits_its_algorithm() -> None:
    async with during_cooldown(KeyServer()) as verifier:
        with pytest.raises(SigningKeyPending):
            await verifier.verify(raw_token({"alg": "RS512"}, claims_of()))


async def test_logout_token_of_a_rotated_key_is_pending_too() -> None:
    provider = KeyServer(keys=[rsa_key("other")])
    async with HttpClient("dialtone/test") as outbound, serve(provider.app()) as url:
        keys = RemoteKeySource(KeySetLocation(ISSUER, ALGORITHMS, f"{url}/jwks"), outbound, lambda: provider.time)
        verifier = TokenVerifier((Issuer(ISSUER, frozenset({AUDIENCE}), ALGORITHMS, keys),), now)
        await rejection_reason(token(header={"kid": "stray"}), verifier)

        with pytest.raises(SigningKeyPending):
            await verifier.verify_logout(logout_token())
        with pytest.raises(LogoutTokenRejected):
            await verifier.verify_logout(logout_token(events=...))


async def test_pending_key_is_503_with_retry_after_and_counts_as_a_rejected_token(telnyx: Telnyx, sqlite: str) -> None:
    provider = KeyServer()
    async with (
        serve(provider.app()) as url,
        running_service(telnyx, sqlite, issuer_pem=..., jwks_url=f"{url}/jwks", limit_failures="2/minute") as service,
    ):
        stray = await service.ask("GET", headers={"Authorization": f"Bearer {token(header={'kid': 'stray'})}"})
        provider.keys = [rsa_key("rotated")]
        rotated = {"Authorization": f"Bearer {rotated_token()}"}
        answers = [await service.ask("GET", headers=rotated) for _ in range(3)]

    assert stray.status_code == 401
    assert [answer.status_code for answer in answers] == [503, 503, 429]
    assert answers[0].json()["code"] == "identity_unavailable"
    assert answers[0].json()["retryable"]
    assert 1 <= int(answers[0].headers["retry-after"]) <= 60
    assert "www-authenticate" not in answers[0].headers


async def test_logout_token_with_a_pending_key_counts_as_a_rejected_token(telnyx: Telnyx, sqlite: str) -> None:
    provider = KeyServer()
    async with (
        serve(provider.app()) as url,
        running_service(telnyx, sqlite, issuer_pem=..., jwks_url=f"{url}/jwks", limit_failures="2/minute") as service,
    ):
        await service.ask("GET", headers={"Authorization": f"Bearer {token(header={'kid': 'stray'})}"})
        provider.keys = [rsa_key("rotated")]
        form = {"logout_token": logout_token(header={"kid": "rotated"})}
        answers = [await service.client.post(BACKCHANNEL_LOGOUT, data=form) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [503, 503, 429]
