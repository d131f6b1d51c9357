"""Unusual, weak and ambiguous keys: ignored or rejected, without effect on the valid keys of the set."""

import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, RSAKey

from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_jwks, from_pem, from_secret
from tests.support.pem_spellings import SPELLINGS, Spelling
from tests.support.tokens import ec_key, pem, rsa_key, token
from tests.support.verification import ALGORITHMS, fixed_keys, rejection_reason, verifier


@cache
def odd_keys() -> list[dict[str, Any]]:
    good: dict[str, Any] = dict(rsa_key("odd").as_dict(private=False))
    ec: dict[str, Any] = dict(ec_key("P-256", "odd").as_dict(private=False))
    return [
        good | {"use": "enc"},
        good | {"alg": "RS384"},
        good | {"alg": 5},
        good | {"key_ops": ["sign"]},
        good | {"key_ops": "verify"},
        good | {"kid": 7.5},
        good | {"kid": True},
        good | {"kid": ["odd"]},
        good | {"kty": ["RSA"]},
        good | {"n": good["n"] + "==="},
        good | {"n": good["n"][:-1] + "!"},
        ec | {"crv": ["P-256"]},
        {"kid": "odd", "kty": "RSA", "x5c": []},
        {"kid": "odd", "kty": "RSA", "x5c": ["AAAA"]},
        {"kid": "odd", "kty": "RSA", "x5c": [7]},
        {"kid": "odd", "kty": "RSA", "x5c": "AAAA"},
        good | {"kid": "k" * 257},
        good | {"kty": "oct", "k": "c2VjcmV0"},
        good | {"kty": "OKP"},
        good | {"n": 5},
        good | {"n": good["n"] + "="},
        good | {"e": "AQ"},
        good | {"e": "AQAC"},
        good | {"n": RSAKey.generate_key(1024).as_dict(private=False)["n"]},
        {name: value for name, value in good.items() if name != "n"},
        ec | {"crv": "P-384"},
        ec | {"crv": "secp256k1"},
        ec | {"y": ec["x"]},
        ec | {"x": ec["x"][:-4]},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "odd"},
        {"kty": "OKP", "crv": "Ed448", "x": "A" * 76, "kid": "odd"},
        {"kty": "OKP", "crv": "X25519", "x": ec["x"], "kid": "odd"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U", "kid": "odd", "alg": "HS256"},
    ]


@pytest.mark.parametrize("place", range(len(odd_keys())))
async def test_unusable_key_is_ignored_and_the_others_still_work(place: int) -> None:
    good = rsa_key("good").as_dict(private=False)
    entries: list[Any] = [odd_keys()[place], None, 5, "x", [], good]
    checked = verifier(algorithms=ALGORITHMS, keys=StaticKeySource(from_jwks({"keys": entries}, ALGORITHMS)))

    assert (await checked.verify(token(key=rsa_key("good")))).subject == "alice"
    assert await rejection_reason(token(key=rsa_key("odd")), checked) == "unknown_key"


async def test_keys_with_a_duplicate_kid_are_ignored() -> None:
    twin = RSAKey.generate_key(2048, {"kid": "first"})

    assert await rejection_reason(token(), verifier(keys=fixed_keys(rsa_key(), twin))) == "unknown_key"


@pytest.mark.parametrize(
    "document", [{}, {"keys": {}}, {"keys": None}, {"keys": [{}] * 101}], ids=lambda d: str(d)[:20]
)
def test_malformed_key_set_is_rejected(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a (JWK|key) set"):
        from_jwks(document, ALGORITHMS)


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_text_that_is_not_a_public_key_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="PEM"):
        from_pem(text, ALGORITHMS)


PEM_OF_ANOTHER_KIND = {
    "a private key": rsa_key().as_pem(private=True).decode(),
    "several public keys": pem() + rsa_key("second").as_pem(private=False).decode(),
    "JSON": json.dumps({"keys": []}),
    "without its first and last line": "".join(pem().splitlines()[1:-1]),
}


@pytest.mark.parametrize(("kind", "text"), PEM_OF_ANOTHER_KIND.items(), ids=PEM_OF_ANOTHER_KIND)
def test_text_instead_of_a_public_key_in_pem_is_named(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=kind):
        from_pem(text, ALGORITHMS)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_of_a_public_key_in_pem_is_read(spelling: Spelling) -> None:
    (key,) = from_pem(spelling(pem()), ALGORITHMS)
    (plain,) = from_pem(pem(), ALGORITHMS)

    assert key.public == plain.public


def test_public_key_in_pkcs_1_is_read() -> None:
    public = rsa_key().public_key
    (key,) = from_pem(public.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode(), ALGORITHMS)
    (plain,) = from_pem(pem(), ALGORITHMS)

    assert key.public == plain.public


@pytest.mark.parametrize("secret", [pem(), "ssh-rsa " + "A" * 300], ids=["PEM", "OpenSSH"])
def test_public_key_is_no_shared_secret(secret: str) -> None:
    with pytest.raises(ValueError, match="is a public key"):
        from_secret(secret.encode(), frozenset({"HS256"}))


def test_weak_keys_are_rejected() -> None:
    with pytest.raises(ValueError, match="2048"):
        from_pem(RSAKey.generate_key(1024).as_pem(private=False).decode(), ALGORITHMS)
    with pytest.raises(ValueError, match="another curve"):
        from_pem(ECKey.generate_key("secp256k1").as_pem(private=False).decode(), ALGORITHMS)
    with pytest.raises(ValueError, match="32 bytes"):
        from_secret(b"s" * 31, frozenset({"HS256"}))
