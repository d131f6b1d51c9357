"""The verifier against tokens of another implementation: every guard, and both sides of each boundary."""

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

from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import FixedKeys
from app.adapters.identity.keys import from_jwks, from_pem, from_secret
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import TokenRefused
from app.vending.models import Principal
from tests.stage import AUDIENCE, ISSUER, claims_of, ec_key, pem, rsa_key, token

ALL = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})
SECRET = "s" * 32


def now() -> datetime:
    return datetime.now(UTC)


def verifier(clock: Any = now, **changes: Any) -> TokenVerifier:
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": frozenset({AUDIENCE}),
        "algorithms": frozenset({"RS256"}),
        "keys": FixedKeys(from_pem(pem(), ALL)),
    }
    return TokenVerifier((Issuer(**(fields | changes)),), clock)


def jwks(*keys: Any, within: frozenset[str] = ALL) -> FixedKeys:
    return FixedKeys(from_jwks({"keys": [key.as_dict(private=False) for key in keys]}, within))


async def reason(unverified_token: str, checked_by: TokenVerifier | None = None) -> str:
    with pytest.raises(TokenRefused) as refusal:
        await (checked_by or verifier()).verify(unverified_token)
    return refusal.value.reason


def raw(header: Any, payload: Any, signature: bytes = b"signature") -> str:
    """A token with any bytes in it; texts and bytes go in as they are."""

    def encoded(part: Any) -> str:
        data = part if isinstance(part, bytes) else (part if isinstance(part, str) else json.dumps(part)).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return f"{encoded(header)}.{encoded(payload)}.{encoded(signature)}"


def signed(payload: bytes, header: dict[str, Any] | None = None) -> str:
    """Any payload under a good signature: guards behind the signature must hold alone."""
    protected = {"alg": "RS256", "kid": "first"} | (header or {})
    return jws.serialize_compact(protected, payload, rsa_key(), algorithms=["RS256"])


# -- good tokens ------------------------------------------------------------------------------------------------


async def test_a_good_token_proves_who_asks() -> None:
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
async def test_every_rsa_algorithm_of_a_second_implementation(algorithm: str) -> None:
    key = RSAKey.generate_key(2048, {"kid": "k"})
    checked = verifier(algorithms=frozenset({algorithm}), keys=jwks(key))

    assert (await checked.verify(token(key=key, header={"alg": algorithm}))).subject == "alice"


@pytest.mark.parametrize(("algorithm", "curve"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")])
async def test_every_ec_algorithm_of_a_second_implementation(algorithm: str, curve: str) -> None:
    key = ec_key(curve)
    checked = verifier(algorithms=ALL, keys=jwks(rsa_key(), key))

    assert (await checked.verify(token(key=key, header={"alg": algorithm}))).subject == "alice"
    from_one = verifier(
        algorithms=ALL, keys=FixedKeys(from_pem(key.as_pem(private=False).decode(), frozenset({algorithm})))
    )
    assert (await from_one.verify(token(key=key, header={"alg": algorithm, "kid": ...}))).subject == "alice"


@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
async def test_every_pss_algorithm_of_a_second_implementation(algorithm: str) -> None:
    both = frozenset({algorithm, "RS256"})
    key = RSAKey.generate_key(2048, {"kid": "both"})
    checked = verifier(algorithms=both, keys=jwks(key, within=both))
    good = token(key=key, header={"alg": algorithm})

    assert (await checked.verify(good)).subject == "alice"
    # The same key checks both kinds, and neither kind's signature passes for the other.
    as_rs256 = token(key=key)
    head, payload, _ = good.split(".")
    assert await reason(f"{head}.{payload}.{as_rs256.split('.')[2]}", checked) == "bad_signature"


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
async def test_eddsa_of_a_second_implementation_under_both_its_names(algorithm: str) -> None:
    key = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    allowed = frozenset({algorithm, "RS256"})
    in_a_set = verifier(algorithms=allowed, keys=jwks(key, within=allowed))
    alone = verifier(algorithms=allowed, keys=FixedKeys(from_pem(key.as_pem(private=False).decode(), allowed)))
    good = token(key=key, header={"alg": algorithm})
    head, payload, signature = good.split(".")

    assert (await in_a_set.verify(good)).subject == "alice"
    assert (await alone.verify(good)).subject == "alice"
    assert await reason(f"{head}.{payload}.{'A' * len(signature)}", in_a_set) == "bad_signature"
    assert await reason(good) == "algorithm_not_allowed"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_shared_secret_checks_its_own_algorithms(algorithm: str) -> None:
    checked = verifier(
        algorithms=frozenset({algorithm}), keys=FixedKeys(from_secret(SECRET.encode(), frozenset({algorithm})))
    )
    good = jwt.encode({"alg": algorithm}, claims_of(), OctKey.import_key(SECRET), algorithms=[algorithm])

    assert (await checked.verify(good)).subject == "alice"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_a_mixed_key_set_works_in_any_order(order: tuple[int, ...]) -> None:
    keys = [ec_key("P-256", "a"), rsa_key("b"), ec_key("P-384", "c")]
    checked = verifier(algorithms=ALL, keys=jwks(*(keys[place] for place in order)))

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
async def test_what_is_allowed_passes(change: dict[str, Any]) -> None:
    assert (await verifier().verify(token(**change))).subject == "alice"


# -- wrong tokens -----------------------------------------------------------------------------------------------

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
    ({"scope": ["phone"]}, "bad_scope"),
    ({"scope": 5}, "bad_scope"),
    ({"nonce": "n"}, "id_token"),
    ({"at_hash": "h"}, "id_token"),
    ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "event_token"),
]


@pytest.mark.parametrize(("change", "why"), WRONG_CLAIMS, ids=lambda value: str(value)[:40])
async def test_a_wrong_claim_has_its_reason(change: dict[str, Any], why: str) -> None:
    claims = claims_of(**change)

    assert await reason(signed(json.dumps(claims).encode())) == why


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
async def test_a_wrong_header_has_its_reason(header: dict[str, Any], why: str) -> None:
    assert await reason(raw(header, claims_of())) == why


async def test_a_signature_must_be_the_issuers() -> None:
    good = token()
    head, payload, signature = good.split(".")
    other = token(key=rsa_key("other"), header={"kid": "first"})
    flipped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")

    for bad in (other, f"{head}.{payload}.{flipped}", raw({"alg": "RS256"}, claims_of(), b"\0" * 256)):
        assert await reason(bad) in ("bad_signature", "not_canonical")


async def test_an_unknown_kid_is_no_reason_to_try_every_key() -> None:
    checked = verifier(keys=jwks(rsa_key()))

    assert await reason(token(header={"kid": "unknown"}), checked) == "unknown_key"


async def test_a_token_without_kid_is_refused_where_two_keys_would_do() -> None:
    checked = verifier(keys=jwks(rsa_key(), rsa_key("second")))

    assert await reason(token(header={"kid": ...}), checked) == "ambiguous_key"


async def test_the_audience_of_another_service_of_the_same_issuer_is_refused() -> None:
    assert await reason(token(aud="billing")) == "wrong_audience"


async def test_a_public_key_is_never_an_hmac_secret() -> None:
    unsigned = raw({"alg": "HS256"}, claims_of()).rsplit(".", 1)[0]
    mac = hmac.new(pem().encode(), unsigned.encode(), hashlib.sha256).digest()
    forged = f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    assert await reason(forged) == "algorithm_not_allowed"
    assert await reason(forged, verifier(algorithms=frozenset({"RS256", "HS256"}))) == "unknown_key"


# -- boundaries, with the clock held still ------------------------------------------------------------------------

NOON = 1_800_000_000


@pytest.mark.parametrize(
    ("claims", "good_from", "good_until"),
    [
        ({"iat": NOON, "exp": NOON + 600}, NOON - 30, NOON + 630),
        ({"iat": NOON - 9000, "nbf": NOON, "exp": NOON + 600}, NOON - 30, NOON + 630),
    ],
)
async def test_a_token_is_good_from_the_first_to_the_last_moment_and_not_a_moment_longer(
    claims: dict[str, Any], good_from: int, good_until: int
) -> None:
    at = [0.0]
    text = token(**claims)

    async def is_good(moment: float, checked: TokenVerifier) -> bool:
        at[0] = moment
        try:
            await checked.verify(text)
        except TokenRefused:
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


async def test_a_maximum_age_ends_a_token_before_its_expiry() -> None:
    def at(moment: int) -> TokenVerifier:
        return verifier(lambda: datetime.fromtimestamp(moment, UTC), max_age=timedelta(hours=1), leeway=timedelta())

    text = token(iat=NOON, exp=NOON + 86_400)

    await at(NOON + 3599).verify(text)
    assert await reason(text, at(NOON + 3600)) == "too_old"
    assert await reason(token(iat=..., exp=NOON + 86_400), at(NOON)) == "no_issue_time"


# -- settings -----------------------------------------------------------------------------------------------------


async def test_another_claim_may_name_the_user_but_sub_must_be_there() -> None:
    checked = verifier(subject_claim="employee")

    assert (await checked.verify(token(employee="e-17"))).subject == "e-17"
    assert await reason(token(), checked) == "bad_subject"
    assert await reason(token(employee="e-17", sub=...), checked) == "bad_subject"


async def test_scopes_may_be_a_list_where_the_issuer_says_so() -> None:
    checked = verifier(scope_claim="scp", allows_scope_list=True)

    assert (await checked.verify(token(scp=["phone", "calls"]))).scopes == {"phone", "calls"}
    assert await reason(token(scp=["phone", 1]), checked) == "bad_scope"


# -- anything at all ----------------------------------------------------------------------------------------------

CHECKED = verifier()
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)
MEMBERS = st.sampled_from(["alg", "kid", "typ", "crit", "iss", "sub", "aud", "exp", "nbf", "iat", "scope", "nonce"])
OBJECTS = st.dictionaries(MEMBERS | st.text(max_size=5), JSON, max_size=8)


@given(OBJECTS, OBJECTS, st.binary(max_size=300))
async def test_any_json_ends_in_our_refusal(header: Any, payload: Any, signature: bytes) -> None:
    with pytest.raises(TokenRefused):
        await CHECKED.verify(raw({"alg": "RS256"} | header, {"iss": ISSUER} | payload, signature))


@given(OBJECTS)
async def test_any_claims_under_a_good_signature_end_in_a_refusal_or_a_principal(claims: Any) -> None:
    try:
        principal = await CHECKED.verify(signed(json.dumps(claims_of() | claims).encode()))
    except TokenRefused:
        return
    assert principal.subject


# -- cost ---------------------------------------------------------------------------------------------------------


async def test_two_thousand_bad_tokens_are_refused_in_a_few_milliseconds_each() -> None:
    checked = verifier()
    head, payload, signature = token().split(".")
    bad = [f"{head}.{payload}.{signature[:-6]}{number:04d}AA" for number in range(2000)]
    spent: list[float] = []

    for text in bad:
        began = time.perf_counter()
        await reason(text, checked)
        spent.append(time.perf_counter() - began)

    assert sorted(spent)[int(len(spent) * 0.99)] < 0.005


async def test_the_libraries_that_cryptography_replaces_are_not_loaded() -> None:
    import subprocess
    import sys

    code = "import sys, app.adapters.identity.verifier; print(*{'ecdsa', 'rsa', 'pyasn1'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []
