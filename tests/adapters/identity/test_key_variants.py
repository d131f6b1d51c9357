"""Key sets as providers publish them: null members, padding, duplicates, certificates, and PEM texts by `kid`."""

import base64
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, RSAKey

from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import KeySet, from_document, from_jwks
from app.vending.models import Principal
from tests.support.tokens import ec_key, pem, rsa_key, token
from tests.support.verification import ALGORITHMS, JSON, rejection_reason, verifier


@cache
def twin(kid: str = "first") -> RSAKey:
    """Another RSA key with the same `kid`."""
    return RSAKey.generate_key(2048, {"kid": kid})


def jwk(key: Any, **changes: Any) -> dict[str, Any]:
    """The public JWK without `alg`, with changes; a change to `...` removes a member."""
    members = dict(key.as_dict(private=False)) | {"alg": ...} | changes
    return {name: value for name, value in members.items() if value is not ...}


def certificate(key: Any) -> x509.Certificate:
    """An expired self-signed certificate of the key, as key sets contain it."""
    private, name, at = key.private_key, x509.Name([]), datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    builder = builder.serial_number(1).not_valid_before(at).not_valid_after(at + timedelta(days=1))
    return builder.sign(private, hashes.SHA256())


def x5c(key: Any) -> list[str]:
    return [base64.b64encode(certificate(key).public_bytes(Encoding.DER)).decode()]


def is_accepted(keys: KeySet, key: Any = None, alg: str = "RS256", **header: Any) -> bool:
    """Whether a token that the key signs is accepted with this key set."""
    signer = type(key or rsa_key()).import_key((key or rsa_key()).as_dict(private=True) | {"alg": alg})
    checked = verifier(algorithms=ALGORITHMS, keys=StaticKeySource(keys))
    [verified] = checked.verify_now([token(key=signer, header={"alg": alg} | header)])
    return isinstance(verified, Principal)


def with_padding(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def in_base64(text: str) -> str:
    return with_padding(text).replace("-", "+").replace("_", "/")


RSA, EC = jwk(rsa_key()), jwk(ec_key())
VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "null alg, use and key_ops": (rsa_key(), RSA | {"alg": None, "use": None, "key_ops": None}),
    "empty alg, use and key_ops": (rsa_key(), RSA | {"alg": "", "use": "", "key_ops": []}),
    "null kid": (rsa_key(), RSA | {"kid": None}),
    "padded RSA": (rsa_key(), RSA | {"n": with_padding(RSA["n"])}),
    "RSA in base64": (rsa_key(), RSA | {"n": in_base64(RSA["n"])}),
    "null private key": (rsa_key(), RSA | {"d": None}),
    "leading zero byte": (
        rsa_key(),
        RSA | {"n": base64.urlsafe_b64encode(b"\0" + base64.urlsafe_b64decode(with_padding(RSA["n"]))).decode()},
    ),
    "padded EC": (ec_key(), EC | {"x": with_padding(EC["x"]), "y": in_base64(EC["y"])}),
    "x5c only": (rsa_key(), {"kid": "first", "kty": "RSA", "x5c": x5c(rsa_key())}),
    "x5c without kty": (rsa_key(), {"kid": "first", "x5c": x5c(rsa_key()), "n": None, "e": None}),
    "x5c of an EC key": (ec_key(), {"kid": "ec", "kty": "EC", "use": "sig", "x5c": x5c(ec_key())}),
    "x5c with line ends": (
        rsa_key(),
        {"kid": "first", "kty": "RSA", "x5c": [x5c(rsa_key())[0][:64] + "\r\n" + x5c(rsa_key())[0][64:] + "\n"]},
    ),
    "unusable x5c beside a key": (rsa_key(), RSA | {"x5c": ["AAAA"]}),
}


@pytest.mark.parametrize(("key", "entry"), VARIANTS.values(), ids=VARIANTS.keys())
def test_key_as_providers_write_it_is_used(key: Any, entry: dict[str, Any]) -> None:
    keys = from_jwks({"keys": [entry]}, ALGORITHMS)

    assert is_accepted(keys, key, "ES256" if key is ec_key() else "RS256")
    assert keys.skipped == ()


def test_numeric_kid_is_compared_as_text() -> None:
    keys = from_jwks({"keys": [RSA | {"kid": 7}, jwk(twin(), kid=8)]}, ALGORITHMS)

    assert is_accepted(keys, kid="7")
    assert not keys.has("RS256", "first")


@pytest.mark.parametrize(
    "again",
    [RSA, RSA | {"n": with_padding(RSA["n"])}, {"kid": "first", "x5c": x5c(rsa_key())}, RSA | {"alg": "RS512"}],
    ids=["identical", "padded", "as a certificate", "for another algorithm"],
)
def test_key_that_is_listed_twice_is_one_key(again: dict[str, Any]) -> None:
    keys = from_jwks({"keys": [RSA | {"alg": "RS256"}, again]}, ALGORITHMS)

    assert len(keys) == 1
    assert is_accepted(keys)
    assert keys.skipped == ()


def test_key_that_is_listed_twice_has_the_algorithms_of_both_entries() -> None:
    keys = from_jwks({"keys": [RSA | {"alg": "RS256"}, RSA | {"alg": "RS512"}]}, ALGORITHMS)

    assert [keys.has(name, "first") for name in ("RS256", "RS384", "RS512")] == [True, False, True]


def test_same_key_with_and_without_a_kid_is_not_ambiguous() -> None:
    keys = from_jwks({"keys": [RSA, RSA | {"kid": None}, RSA | {"kid": "other"}]}, ALGORITHMS)

    assert is_accepted(keys)
    assert is_accepted(keys, kid=...)


async def test_two_different_keys_fit_no_token_without_a_kid() -> None:
    keys = from_jwks({"keys": [RSA, jwk(twin("other"))]}, ALGORITHMS)
    checked = verifier(keys=StaticKeySource(keys))

    assert await rejection_reason(token(header={"kid": ...}), checked) == "ambiguous_key"


def test_key_with_the_tokens_kid_precedes_a_key_without_one() -> None:
    keys = from_jwks({"keys": [jwk(twin("other"), kid=None), RSA]}, ALGORITHMS)

    assert is_accepted(keys)
    assert is_accepted(keys, twin("other"))
    assert not is_accepted(keys, twin("other"), kid="first")


def test_one_kid_for_rsa_and_ec_is_chosen_by_the_algorithm() -> None:
    keys = from_jwks({"keys": [jwk(ec_key("P-256", "first")), RSA]}, ALGORITHMS)

    assert is_accepted(keys)
    assert is_accepted(keys, ec_key("P-256", "first"), "ES256")
    assert keys.skipped == ()


def test_one_kid_for_two_algorithms_is_chosen_by_the_algorithm() -> None:
    keys = from_jwks({"keys": [RSA | {"alg": "RS256"}, jwk(twin(), alg="RS512")]}, ALGORITHMS)

    assert is_accepted(keys)
    assert is_accepted(keys, twin(), "RS512")
    assert not keys.has("RS384", "first")


def test_one_kid_for_two_keys_of_one_algorithm_is_used_for_neither() -> None:
    keys = from_jwks({"keys": [RSA, jwk(twin(), alg="RS512"), jwk(ec_key())]}, ALGORITHMS)

    assert [keys.has(name, "first") for name in ("RS256", "RS384", "RS512")] == [True, True, False]
    assert is_accepted(keys, ec_key(), "ES256")
    assert [(key.kid, key.is_fault) for key in keys.skipped] == [("first", True)]


def test_pem_texts_by_kid_are_a_key_set() -> None:
    document = {
        "first": certificate(rsa_key()).public_bytes(Encoding.PEM).decode(),
        "second": twin("second").as_pem(private=False).decode(),
        "weak": RSAKey.generate_key(1024).as_pem(private=False).decode(),
        "bad": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "odd": 7,
        "k" * 257: pem(),
    }

    keys = from_document(document, ALGORITHMS)

    assert is_accepted(keys)
    assert is_accepted(keys, twin("second"))
    assert not keys.has("RS256", "unknown")
    assert [key.kid for key in keys.skipped] == ["weak", "bad", "odd", "k" * 64]


@pytest.mark.parametrize(
    "document",
    [{}, {"issuer": "https://id.example.com"}, {"keys": "-----BEGIN "}, {f"{n}": pem() for n in range(101)}],
    ids=["empty", "discovery document", "text", "101 keys"],
)
def test_other_document_is_not_a_key_set(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a (JWK|key) set"):
        from_document(document, ALGORITHMS)


SKIPPED: dict[str, tuple[Any, str, bool]] = {
    "encryption": (RSA | {"use": "enc"}, "not for signatures", False),
    "signing only": (RSA | {"key_ops": ["sign"]}, "not for signatures", False),
    "other algorithm": (RSA | {"alg": "RSA-OAEP"}, "not an allowed algorithm", False),
    "other curve": (jwk(ECKey.generate_key("secp256k1")), "another curve", False),
    "Ed448": ({"kty": "OKP", "crv": "Ed448", "x": "A" * 76}, "another curve", False),
    "short": (jwk(RSAKey.generate_key(1024)), "an RSA key of 1024 bits", True),
    "exponent": (RSA | {"e": "Aw"}, "unsafe exponent", True),
    "shared secret": (OctKey.generate_key(256).as_dict(), "shared secret", True),
    "private RSA key": (rsa_key().as_dict(private=True), "contains its private key", True),
    "private EC key": (ec_key().as_dict(private=True), "contains its private key", True),
    "wrong padding": (RSA | {"n": RSA["n"] + "="}, "not base64url", True),
    "missing": (jwk(rsa_key(), e=...), "a member is missing", True),
    "kid": (RSA | {"kid": {}}, "kid is not a text", True),
    "text": ("key", "not a JSON object", True),
    "certificate of another type": ({"kty": "EC", "x5c": x5c(rsa_key())}, "another type", True),
}


@pytest.mark.parametrize(("entry", "reason", "is_fault"), SKIPPED.values(), ids=SKIPPED.keys())
def test_skipped_key_is_reported_with_a_reason(entry: Any, reason: str, is_fault: bool) -> None:
    keys = from_jwks({"keys": [entry, jwk(rsa_key("good"))]}, ALGORITHMS)

    (skipped,) = keys.skipped
    assert reason in skipped.reason
    assert skipped.is_fault is is_fault
    assert is_accepted(keys, rsa_key("good"))


def test_reported_kid_is_short_and_printable() -> None:
    kids = ["\x1b[31m\ud800\n" + "k" * 100, "a'b", 7, None]

    keys = from_jwks({"keys": [{"kid": kid, "kty": "RSA"} for kid in kids]}, ALGORITHMS)

    assert [key.kid for key in keys.skipped] == ["\\x1b[31m\\ud800\\n" + "k" * 48, '"a\'b"', "7", None]


@given(entry=JSON | st.dictionaries(st.sampled_from([*RSA, "crv", "x", "y", "x5c", "key_ops"]), JSON))
def test_no_entry_makes_the_other_keys_unusable(entry: Any) -> None:
    keys = from_jwks({"keys": [entry, {**RSA, **entry} if isinstance(entry, dict) else entry, EC]}, ALGORITHMS)

    assert keys.has("ES256", "ec")
