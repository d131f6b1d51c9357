"""The token verifier against tokens signed by joserfc: each check, and both sides of each boundary."""

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import OctKey, OKPKey, RSAKey

from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_pem, from_secret
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import TokenRejected
from app.vending.models import Principal
from tests.support.tokens import AUDIENCE, ISSUER, claims_of, ec_key, pem, rsa_key, token
from tests.support.verification import (
    ALGORITHMS,
    JSON_OBJECTS,
    SECRET,
    SETTINGS,
    fixed_keys,
    raw_token,
    rejection_reason,
    verifier,
)


def signed(payload: bytes, header: dict[str, Any] | None = None) -> str:
    """Any payload with a valid signature, to test the checks that follow the signature check."""
    protected = {"alg": "RS256", "kid": "first"} | (header or {})
    return jws.serialize_compact(protected, payload, rsa_key(), algorithms=["RS256"])


# -- valid tokens -----------------------------------------------------------------------------------------------


async def test_valid_token_yields_the_principal() -> None:
    principal = await verifier().verify(
        token("alice", scope="phone calls", iat=1_700_000_000, exp=2_000_000_000, sid="s-1")
    )

    assert principal == Principal(
        ISSUER,
        "alice",
        datetime.fromtimestamp(2_000_000_000, UTC),
        frozenset({"phone", "calls"}),
        issued_at=datetime.fromtimestamp(1_700_000_000, UTC),
        session="s-1",
    )


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512"])
async def test_rsa_signatures_of_joserfc_are_accepted(algorithm: str) -> None:
    key = RSAKey.generate_key(2048, {"kid": "k"})
    checked = verifier(algorithms=frozenset({algorithm}), keys=fixed_keys(key))

    assert (await checked.verify(token(key=key, header={"alg": algorithm}))).subject == "alice"


@pytest.mark.parametrize(("algorithm", "curve"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")])
async def test_ec_signatures_of_joserfc_are_accepted(algorithm: str, curve: str) -> None:
    key = ec_key(curve)
    checked = verifier(algorithms=ALGORITHMS, keys=fixed_keys(rsa_key(), key))

    assert (await checked.verify(token(key=key, header={"alg": algorithm}))).subject == "alice"
    from_one = verifier(
        algorithms=ALGORITHMS,
        keys=StaticKeySource(from_pem(key.as_pem(private=False).decode(), frozenset({algorithm}))),
    )
    assert (await from_one.verify(token(key=key, header={"alg": algorithm, "kid": ...}))).subject == "alice"


@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
async def test_pss_signatures_of_joserfc_are_accepted(algorithm: str) -> None:
    both = frozenset({algorithm, "RS256"})
    key = RSAKey.generate_key(2048, {"kid": "both"})
    checked = verifier(algorithms=both, keys=fixed_keys(key, within=both))
    good = token(key=key, header={"alg": algorithm})

    assert (await checked.verify(good)).subject == "alice"
    # One key verifies both kinds, and a signature of one kind is not accepted as the other.
    as_rs256 = token(key=key)
    head, payload, _ = good.split(".")
    assert await rejection_reason(f"{head}.{payload}.{as_rs256.split('.')[2]}", checked) == "bad_signature"


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
async def test_eddsa_signatures_are_accepted_under_both_algorithm_names(algorithm: str) -> None:
    key = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    allowed = frozenset({algorithm, "RS256"})
    in_a_set = verifier(algorithms=allowed, keys=fixed_keys(key, within=allowed))
    alone = verifier(algorithms=allowed, keys=StaticKeySource(from_pem(key.as_pem(private=False).decode(), allowed)))
    good = token(key=key, header={"alg": algorithm})
    head, payload, signature = good.split(".")

    assert (await in_a_set.verify(good)).subject == "alice"
    assert (await alone.verify(good)).subject == "alice"
    assert await rejection_reason(f"{head}.{payload}.{'A' * len(signature)}", in_a_set) == "bad_signature"
    assert await rejection_reason(good) == "algorithm_not_allowed"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_shared_secret_verifies_only_its_own_algorithms(algorithm: str) -> None:
    checked = verifier(
        algorithms=frozenset({algorithm}), keys=StaticKeySource(from_secret(SECRET.encode(), frozenset({algorithm})))
    )
    good = jwt.encode({"alg": algorithm}, claims_of(), OctKey.import_key(SECRET), algorithms=[algorithm])

    assert (await checked.verify(good)).subject == "alice"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_key_set_of_several_types_works_in_any_order(order: tuple[int, ...]) -> None:
    keys = [ec_key("P-256", "a"), rsa_key("b"), ec_key("P-384", "c")]
    checked = verifier(algorithms=ALGORITHMS, keys=fixed_keys(*(keys[place] for place in order)))

    for key, algorithm in zip(keys, ("ES256", "RS256", "ES384"), strict=True):
        assert await checked.verify(token(key=key, header={"alg": algorithm}))


@pytest.mark.parametrize(
    "change",
    [
        {"header": {"typ": ...}},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": "application/at+jwt"}},
        {"header": {"typ": "AT+JWT"}},
        {"header": {"kid": ...}},
        {"header": {"jku": "https://evil.example.com/keys", "x5u": "https://evil.example.com"}},
        {"aud": ["other", AUDIENCE]},
        {"exp": 4_000_000_000.5},
        {"iat": ...},
        {"nbf": 1_000_000_000},
        {"scope": ...},
        {"unknown": {"deep": [1, 2, {"x": None}]}},
    ],
    ids=str,
)
async def test_permitted_claim_variations_are_accepted(change: dict[str, Any]) -> None:
    assert (await verifier().verify(token(**change))).subject == "alice"


@pytest.mark.parametrize("separator", ["\u00a0", "\u2028", "\x1f", "\t", "\n", ","], ids=ascii)
async def test_only_a_space_separates_scopes(separator: str) -> None:
    text = f"phone  a{separator}dialtone:admin"

    assert (await verifier().verify(token(scope=text))).scopes == {"phone", f"a{separator}dialtone:admin"}


# -- invalid tokens ---------------------------------------------------------------------------------------------

WRONG_CLAIMS = [
    ({"exp": ...}, "no_expiry"),
    ({"exp": "2000000000"}, "bad_exp"),
    ({"exp": True}, "bad_exp"),
    ({"exp": None}, "bad_exp"),
    ({"exp": -1}, "bad_exp"),
    ({"exp": 10**30}, "bad_exp"),
    ({"iat": "now"}, "bad_iat"),
    ({"nbf": [1]}, "bad_nbf"),
    ({"iat": 4_000_000_000}, "not_yet_valid"),
    ({"nbf": 4_000_000_000}, "not_yet_valid"),
    ({"sub": ...}, "bad_subject"),
    ({"sub": ""}, "bad_subject"),
    ({"sub": 7}, "bad_subject"),
    ({"sub": "a\nb"}, "bad_subject"),
    ({"sub": "a\x00b"}, "bad_subject"),
    ({"sub": "a\u202eb"}, "bad_subject"),
    ({"sub": "x" * 256}, "bad_subject"),
    ({"aud": ...}, "no_audience"),
    ({"aud": "dialtone2"}, "wrong_audience"),
    ({"aud": "DIALTONE"}, "wrong_audience"),
    ({"aud": []}, "wrong_audience"),
    ({"aud": {"dialtone": 1}}, "bad_audience"),
    ({"aud": [AUDIENCE, 5]}, "bad_audience"),
    ({"iss": "https://id.example.com/"}, "unknown_issuer"),
    ({"iss": ["https://id.example.com"]}, "unknown_issuer"),
    ({"iss": ...}, "unknown_issuer"),
    ({"scope": ["phone", 1]}, "bad_scope"),
    ({"scope": {"phone": 1}}, "bad_scope"),
    ({"scope": 5}, "bad_scope"),
    ({"nonce": "n"}, "id_token"),
    ({"at_hash": "h"}, "id_token"),
    ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "event_token"),
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("change", "why"), WRONG_CLAIMS, ids=lambda value: str(value)[:40])
async def test_invalid_claim_is_rejected_with_its_reason(change: dict[str, Any], why: str, setting: str) -> None:
    on = SETTINGS[setting]
    text = signed(json.dumps(claims_of(**(on.claims | change))).encode())

    if on.is_right(change):
        assert (await verifier(**on.issuer).verify(text)).issuer == ISSUER
    else:
        assert await rejection_reason(text, verifier(**on.issuer)) == why


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"alg": "none"}, "algorithm_not_allowed"),
        ({"alg": "rs256"}, "algorithm_not_allowed"),
        ({"alg": "HS256"}, "algorithm_not_allowed"),
        ({"alg": "RS384"}, "algorithm_not_allowed"),
        ({"alg": ["RS256"]}, "algorithm_not_allowed"),
        ({"alg": None}, "algorithm_not_allowed"),
        ({}, "algorithm_not_allowed"),
        ({"alg": "RS256", "kid": 5}, "bad_kid"),
        ({"alg": "RS256", "kid": "k" * 257}, "bad_kid"),
        ({"alg": "RS256", "crit": ["exp"]}, "unsupported_header"),
        ({"alg": "RS256", "b64": False}, "unsupported_header"),
        ({"alg": "RS256", "zip": "DEF"}, "unsupported_header"),
        ({"alg": "RS256", "enc": "A256GCM"}, "unsupported_header"),
        ({"alg": "RS256", "typ": "logout+jwt"}, "wrong_type"),
        ({"alg": "RS256", "typ": "secevent+jwt"}, "wrong_type"),
        ({"alg": "RS256", "typ": 1}, "wrong_type"),
    ],
    ids=str,
)
@pytest.mark.parametrize("setting", SETTINGS)
async def test_invalid_header_is_rejected_with_its_reason(header: dict[str, Any], why: str, setting: str) -> None:
    on = SETTINGS[setting]

    assert await rejection_reason(raw_token(header, claims_of(**on.claims)), verifier(**on.issuer)) == why


async def test_signature_of_another_key_is_rejected() -> None:
    good = token()
    head, payload, signature = good.split(".")
    other = token(key=rsa_key("other"), header={"kid": "first"})
    flipped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")

    for bad in (other, f"{head}.{payload}.{flipped}", raw_token({"alg": "RS256"}, claims_of(), b"\0" * 256)):
        assert await rejection_reason(bad) in ("bad_signature", "not_canonical")


async def test_unknown_kid_is_rejected_without_trying_other_keys() -> None:
    checked = verifier(keys=fixed_keys(rsa_key()))

    assert await rejection_reason(token(header={"kid": "unknown"}), checked) == "unknown_key"


async def test_token_without_kid_is_rejected_if_two_keys_match() -> None:
    checked = verifier(keys=fixed_keys(rsa_key(), rsa_key("second")))

    assert await rejection_reason(token(header={"kid": ...}), checked) == "ambiguous_key"


async def test_audience_of_another_service_is_rejected() -> None:
    assert await rejection_reason(token(aud="billing")) == "wrong_audience"


async def test_public_key_is_never_used_as_an_hmac_secret() -> None:
    unsigned = raw_token({"alg": "HS256"}, claims_of()).rsplit(".", 1)[0]
    mac = hmac.new(pem().encode(), unsigned.encode(), hashlib.sha256).digest()
    forged = f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    assert await rejection_reason(forged) == "algorithm_not_allowed"
    assert await rejection_reason(forged, verifier(algorithms=frozenset({"RS256", "HS256"}))) == "unknown_key"


# -- boundaries, with a fixed clock -------------------------------------------------------------------------------

NOON = 1_800_000_000


@pytest.mark.parametrize(
    ("claims", "good_from", "good_until"),
    [
        ({"iat": NOON, "exp": NOON + 600}, NOON - 30, NOON + 630),
        ({"iat": NOON - 9000, "nbf": NOON, "exp": NOON + 600}, NOON - 30, NOON + 630),
    ],
)
async def test_token_is_valid_from_its_first_to_its_last_second(
    claims: dict[str, Any], good_from: int, good_until: int
) -> None:
    at = [0.0]
    text = token(**claims)

    async def is_good(moment: float, checked: TokenVerifier) -> bool:
        at[0] = moment
        try:
            await checked.verify(text)
        except TokenRejected:
            return False
        return True

    def clock() -> datetime:
        return datetime.fromtimestamp(at[0], UTC)

    remembering = verifier(clock)
    for checked in (verifier(clock), remembering, remembering):
        assert not await is_good(good_from - 0.001, checked)
        assert await is_good(good_from, checked)
        assert await is_good(good_until - 0.001, checked)
        assert not await is_good(good_until, checked)


async def test_maximum_age_ends_a_token_before_its_expiry() -> None:
    def at(moment: int) -> TokenVerifier:
        return verifier(lambda: datetime.fromtimestamp(moment, UTC), max_age=timedelta(hours=1), leeway=timedelta())

    text = token(iat=NOON, exp=NOON + 86_400)

    await at(NOON + 3599).verify(text)
    assert await rejection_reason(text, at(NOON + 3600)) == "too_old"
    assert await rejection_reason(token(iat=..., exp=NOON + 86_400), at(NOON)) == "no_issue_time"


# -- arbitrary input ----------------------------------------------------------------------------------------------

CHECKED = {name: verifier(**setting.issuer) for name, setting in SETTINGS.items()}


@given(st.sampled_from(sorted(SETTINGS)), JSON_OBJECTS, JSON_OBJECTS, st.binary(max_size=300))
async def test_any_json_raises_only_token_rejected(setting: str, header: Any, payload: Any, signature: bytes) -> None:
    claims = {"iss": ISSUER} | SETTINGS[setting].claims | payload

    with pytest.raises(TokenRejected):
        await CHECKED[setting].verify(raw_token({"alg": "RS256"} | header, claims, signature))


@given(st.sampled_from(sorted(SETTINGS)), JSON_OBJECTS)
async def test_any_signed_claims_are_either_rejected_or_yield_a_principal(setting: str, claims: Any) -> None:
    try:
        principal = await CHECKED[setting].verify(
            signed(json.dumps(claims_of() | SETTINGS[setting].claims | claims).encode())
        )
    except TokenRejected:
        return
    assert principal.subject


# -- performance --------------------------------------------------------------------------------------------------


@pytest.mark.no_cover
async def test_invalid_tokens_are_rejected_within_milliseconds() -> None:
    checked = verifier()
    head, payload, signature = token().split(".")
    bad = [f"{head}.{payload}.{signature[:-6]}{number:04d}AA" for number in range(2000)]
    spent: list[float] = []

    for text in bad:
        began = time.thread_time()
        await rejection_reason(text, checked)
        spent.append(time.thread_time() - began)

    assert sorted(spent)[int(len(spent) * 0.99)] < 0.005


async def test_pure_python_crypto_backends_are_not_loaded() -> None:
    import subprocess
    import sys

    code = "import sys, app.adapters.identity.verifier; print(*{'ecdsa', 'rsa', 'pyasn1'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []
