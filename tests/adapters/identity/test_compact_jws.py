"""Parsing a compact JWS: three canonical base64url parts and a JSON object, or a rejection with its reason."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.identity.compact_jws import CompactJws, canonical_base64url
from app.vending.errors import TokenRejected
from tests.support.tokens import token
from tests.support.verification import raw_token, rejection_reason, verifier

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize(
    ("unverified_token", "why"),
    [
        ("", "not_three_parts"),
        ("a.b", "not_three_parts"),
        ("a.b.c.d.e", "not_three_parts"),
        ("..", "not_base64url"),
        ("eyJ9.e30.", "not_base64url"),
        ("a+b.e30.e30", "not_base64url"),
        ("e30=.e30.e30", "not_base64url"),
        ("e31.e30.e30", "not_canonical"),
        ("a.e30.e30", "not_base64url"),
        ("x" * 8192, "not_three_parts"),
        ("x" * 8193, "too_long"),
        ("e30.e\u00e90.e30", "not_base64url"),
        ("e30.e?30.e30", "not_base64url"),
        ("e30.e/30.e30", "not_base64url"),
        ("e30.e30.e-+0", "not_base64url"),
        ("e30.=.e30", "not_base64url"),
        (raw_token({"alg": "RS256"}, "{}{}"), "not_json"),
        (raw_token({"alg": "RS256"}, "{} x"), "not_json"),
        (raw_token({"alg": "RS256"}, "\u00a0{}"), "not_json"),
        ("e30\n.e30.e30", "not_base64url"),
        (raw_token("[]", {}), "not_json_object"),
        (raw_token('{"alg":"RS256","alg":"none"}', {}), "member_twice"),
        (raw_token(b'{"alg":"\xff"}', {}), "not_json"),
        (raw_token(b"\xef\xbb\xbf{}", {}), "not_json"),
        (raw_token({"alg": "RS256"}, '{"exp": NaN}'), "not_finite"),
        (raw_token({"alg": "RS256"}, '{"exp": 1e400}'), "not_finite"),
        (raw_token({"alg": "RS256"}, '{"exp": -Infinity}'), "not_finite"),
        (raw_token({"alg": "RS256"}, '{"a":' * 17 + "1" + "}" * 17), "too_deep"),
        (raw_token("[" * 1000, {}), "too_deep"),
        (raw_token({"alg": "RS256"}, "9" * 5000), "not_json"),
        (raw_token({"alg": "RS256"}, "5"), "not_json_object"),
    ],
    ids=lambda value: value[:24],
)
async def test_malformed_token_is_rejected_with_its_reason(unverified_token: str, why: str) -> None:
    assert await rejection_reason(unverified_token) == why


async def test_white_space_around_the_claims_is_ignored() -> None:
    assert await rejection_reason(raw_token({"alg": "RS256"}, " \t\r\n{} \n")) == "unknown_issuer"


async def test_token_does_not_print() -> None:
    assert "e30" not in repr(CompactJws.parse("e30.e30.e30"))


async def test_non_canonical_encoding_of_a_cached_token_is_rejected() -> None:
    checked = verifier()
    good = token()
    await checked.verify(good)
    head, payload, signature = good.split(".")
    twin = signature[:-1] + ALPHABET[ALPHABET.index(signature[-1]) ^ 1]

    assert await rejection_reason(f"{head}.{payload}.{twin}", checked) == "not_canonical"
    assert await rejection_reason(f"{good}=", checked) == "not_base64url"


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode("latin-1")))
async def test_any_text_raises_only_token_rejected(text: str) -> None:
    with pytest.raises(TokenRejected):
        await verifier().verify(text)


@given(st.binary(min_size=1, max_size=100))
def test_every_value_has_a_canonical_encoding(value: bytes) -> None:
    assert canonical_base64url(_spelled(value)) == value


@given(st.text(ALPHABET + "+/= \n\u00e9", max_size=9))
def test_no_value_has_a_second_encoding(text: str) -> None:
    try:
        value = canonical_base64url(text)
    except TokenRejected:
        return
    assert text == _spelled(value)


def _spelled(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
