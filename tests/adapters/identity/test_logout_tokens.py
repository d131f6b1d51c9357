"""Logout tokens of OIDC Back-Channel Logout 1.0, section 2.6: each rule, and both sides of each time limit."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws

from app.adapters.identity.claims import LOGOUT_AGE, LOGOUT_EVENT
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import LogoutTokenRejected, TokenRejected
from tests.support.tokens import AUDIENCE, ISSUER, rsa_key
from tests.support.verification import JSON_OBJECTS, raw_token, rejection_reason, verifier

NOON = 1_800_000_000


def claims(**changes: Any) -> dict[str, Any]:
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "sid": "s-1",
        "iat": NOON,
        "exp": NOON + 120,
        "jti": "logout-1",
        "events": {LOGOUT_EVENT: {}},
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def signed(claims: dict[str, Any], key: Any = None, **header: Any) -> str:
    key = key or rsa_key()
    protected = {"alg": "RS256", "kid": key.kid, "typ": "logout+jwt"} | header
    protected = {name: value for name, value in protected.items() if value is not ...}
    return jws.serialize_compact(protected, json.dumps(claims).encode(), key, algorithms=["RS256"])


def at(moment: float = NOON, **changes: Any) -> TokenVerifier:
    return verifier(lambda: datetime.fromtimestamp(moment, UTC), **changes)


async def refusal(text: str, checked: TokenVerifier | None = None) -> str:
    with pytest.raises(LogoutTokenRejected) as refused:
        await (checked or at()).verify_logout(text)
    return refused.value.reason


async def test_valid_logout_token_names_the_user_and_session() -> None:
    logout = await at().verify_logout(signed(claims()))

    assert (logout.issuer, logout.subject, logout.session) == (ISSUER, "alice", "s-1")
    assert logout.token_id == "logout-1"
    assert logout.issued_at == datetime.fromtimestamp(NOON, UTC)
    assert logout.expires_at == datetime.fromtimestamp(NOON + 150, UTC)


@pytest.mark.parametrize(
    ("change", "header"),
    [
        ({"sub": ...}, {}),
        ({"sid": ...}, {}),
        ({"aud": ["other", AUDIENCE]}, {}),
        ({"events": {LOGOUT_EVENT: {}, "https://example.com/more": {}}}, {}),
        ({}, {"typ": ...}),
        ({}, {"typ": "JWT"}),
        ({}, {"typ": "application/logout+jwt"}),
    ],
    ids=str,
)
async def test_optional_variations_of_the_specification_are_accepted(
    change: dict[str, Any], header: dict[str, Any]
) -> None:
    assert await at().verify_logout(signed(claims(**change), **header))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"iss": "https://other.example.com"}, "unknown_issuer"),
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": ...}, "no_audience"),
        ({"iat": ...}, "no_issue_time"),
        ({"iat": "now"}, "bad_iat"),
        ({"exp": ...}, "no_expiry"),
        ({"exp": True}, "bad_exp"),
        ({"jti": ...}, "bad_token_id"),
        ({"jti": ""}, "bad_token_id"),
        ({"jti": 7}, "bad_token_id"),
        ({"jti": "x" * 256}, "bad_token_id"),
        ({"sub": ..., "sid": ...}, "no_subject_and_no_session"),
        ({"sub": 7}, "bad_subject"),
        ({"sub": ""}, "bad_subject"),
        ({"sid": 7}, "bad_session"),
        ({"sid": "a\nb"}, "bad_session"),
        ({"nonce": "n"}, "id_token"),
        ({"events": ...}, "no_logout_event"),
        ({"events": {}}, "no_logout_event"),
        ({"events": [LOGOUT_EVENT]}, "no_logout_event"),
        ({"events": {LOGOUT_EVENT: True}}, "no_logout_event"),
        ({"events": {"https://example.com/other": {}}}, "no_logout_event"),
    ],
    ids=str,
)
async def test_invalid_logout_token_is_rejected_with_its_reason(change: dict[str, Any], why: str) -> None:
    assert await refusal(signed(claims(**change))) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (signed(claims(), typ="at+jwt"), "wrong_type"),
        (signed(claims(), key=rsa_key("other"), kid="first"), "bad_signature"),
        (raw_token({"alg": "none"}, claims(), b"x"), "algorithm_not_allowed"),
        (raw_token({"alg": "HS256"}, claims()), "algorithm_not_allowed"),
        ("", "not_three_parts"),
    ],
    ids=["an access token's type", "another key", "unsigned", "another algorithm", "nothing"],
)
async def test_logout_token_must_be_signed_by_its_issuer(text: str, why: str) -> None:
    assert await refusal(text) == why


@pytest.mark.parametrize(
    ("moment", "is_good"),
    [
        (NOON - 30.001, False),
        (NOON - 30, True),
        (NOON + 149.999, True),
        (NOON + 150, False),
    ],
)
async def test_logout_token_is_valid_from_its_first_to_its_last_second(moment: float, is_good: bool) -> None:
    text = signed(claims())

    if is_good:
        assert await at(moment).verify_logout(text)
    else:
        assert await refusal(text, at(moment)) in ("expired", "not_yet_valid")


async def test_old_logout_token_is_rejected_before_its_expiry() -> None:
    text = signed(claims(exp=NOON + 86_400))
    last = NOON + (LOGOUT_AGE + timedelta(seconds=30)).total_seconds()

    assert await at(last - 0.001).verify_logout(text)
    assert await refusal(text, at(last)) == "too_old"


async def test_client_id_is_an_accepted_logout_audience() -> None:
    checked = at(logout_audiences=frozenset({"client-7"}))

    assert await checked.verify_logout(signed(claims(aud="client-7")))
    assert await refusal(signed(claims()), checked) == "wrong_audience"


async def test_configured_subject_claim_is_required_instead_of_sub() -> None:
    checked = at(subject_claim="employee")

    assert (await checked.verify_logout(signed(claims(employee="e-17")))).subject == "e-17"
    assert (await checked.verify_logout(signed(claims()))).subject is None
    assert await refusal(signed(claims(sid=...)), checked) == "unknown_subject"


async def test_access_tokens_and_logout_tokens_are_not_interchangeable() -> None:
    assert await rejection_reason(signed(claims(), typ="at+jwt"), at()) == "event_token"
    assert await rejection_reason(signed(claims()), at()) == "wrong_type"
    assert await refusal(signed(claims(events=...), typ="JWT")) == "no_logout_event"


@given(JSON_OBJECTS)
async def test_any_claims_are_either_rejected_or_a_logout(changes: Any) -> None:
    try:
        logout = await at().verify_logout(signed(claims() | changes))
    except LogoutTokenRejected:
        return
    assert logout.token_id


@given(st.text(max_size=200))
async def test_any_text_raises_only_logout_token_rejected(text: str) -> None:
    with pytest.raises((LogoutTokenRejected, TokenRejected)):
        await at().verify_logout(text)
