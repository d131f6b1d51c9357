"""PS256/384/512 and EdDSA, which python-jose 3.5 lacks, added through its own extension point (`jwk.register_key`).

PS256/384/512 are for verification only. Ed25519 also signs, for grants.
"""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jose import jwk
from jose.backends.base import Key

from app.adapters.identity.compact_jws import canonical_base64url

PSS_ALGORITHMS = frozenset({"PS256", "PS384", "PS512"})
EDDSA_ALGORITHMS = frozenset({"EdDSA", "Ed25519"})
"""One algorithm with two names: RFC 8037 calls it EdDSA, RFC 9864 names the curve. Ed448 is not supported."""

ED25519_BYTES = 32

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "PS256": hashes.SHA256(),
    "PS384": hashes.SHA384(),
    "PS512": hashes.SHA512(),
}


class PssKey(Key):
    """RSASSA-PSS of RFC 7518 section 3.5: MGF1 uses the same hash, and the salt is as long as the hash."""

    def __init__(self, key: dict[str, Any], algorithm: str) -> None:
        super().__init__(key, algorithm)
        modulus, exponent = (int.from_bytes(canonical_base64url(key[name])) for name in ("n", "e"))
        self._public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        self._hash = _HASHES[algorithm]
        self._padding = padding.PSS(mgf=padding.MGF1(self._hash), salt_length=self._hash.digest_size)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._public.verify(sig, msg, self._padding, self._hash)
        except InvalidSignature:
            return False
        return True


class Ed25519Key(Key):
    """Ed25519 (RFC 8032): a public key as a JWK (RFC 8037), or the 32 bytes of a private key."""

    def __init__(self, key: dict[str, Any] | bytes, algorithm: str) -> None:
        super().__init__(key, algorithm)
        self._private = Ed25519PrivateKey.from_private_bytes(key) if isinstance(key, bytes) else None
        self._public = (
            Ed25519PublicKey.from_public_bytes(canonical_base64url(key["x"]))
            if isinstance(key, dict)
            else Ed25519PrivateKey.from_private_bytes(key).public_key()
        )

    def sign(self, msg: bytes) -> bytes:
        """Raises ValueError if the key is a public key."""
        if self._private is None:
            raise ValueError("a public key signs nothing")
        return self._private.sign(msg)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


def register() -> None:
    """Register these algorithms with python-jose's `jwk.construct`. Idempotent."""
    for name in PSS_ALGORITHMS:
        jwk.register_key(name, PssKey)
    for name in EDDSA_ALGORITHMS:
        jwk.register_key(name, Ed25519Key)
