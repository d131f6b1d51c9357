"""Signing keys of the demo identity provider: rotation, signatures, and the forms in which providers publish keys.

It signs with `cryptography` and not with python-jose, so that the service's verifier is tested against another
implementation.
"""

import base64
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

KEYS_KEPT = 2
"""Keys in the set. After a rotation, the previous key remains for the tokens that it signed."""

SHARED_SECRET = "sandbox-secret-that-is-valid-nowhere-else"  # noqa: S105 - published on purpose
"""The secret of providers that sign with HS256, so that a restart of the sandbox changes no setting."""

_EC: dict[str, tuple[type[ec.EllipticCurve], type[hashes.HashAlgorithm], int, str]] = {
    "ES256": (ec.SECP256R1, hashes.SHA256, 32, "P-256"),
    "ES384": (ec.SECP384R1, hashes.SHA384, 48, "P-384"),
}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | None


@dataclass(frozen=True)
class SigningKey:
    """One key. With HS256 there is no private key, and nothing is published."""

    algorithm: str
    kid: str = field(default_factory=lambda: str(uuid.uuid4()))
    private: PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "private", _generated(self.algorithm))

    def signature(self, signing_input: bytes) -> bytes:
        match self.private:
            case rsa.RSAPrivateKey() as key:
                return key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey() as key:
                _, digest, size, _ = _EC[self.algorithm]
                r, s = decode_dss_signature(key.sign(signing_input, ec.ECDSA(digest())))
                return r.to_bytes(size) + s.to_bytes(size)
            case ed25519.Ed25519PrivateKey() as key:
                return key.sign(signing_input)
            case None:
                return hmac.digest(SHARED_SECRET.encode(), signing_input, "sha256")

    def jwk(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """The public key. `members` adds members or removes them with `...`; the value `$x5c` is its certificate."""
        found = {"use": "sig", "alg": self.algorithm, "kid": self.kid} | self._numbers() | dict(members)
        if found.get("x5c") == "$x5c":
            found["x5c"] = [base64.b64encode(self._certificate().public_bytes(Encoding.DER)).decode("ascii")]
        return {name: value for name, value in found.items() if value is not ...}

    def public_pem(self) -> str:
        """The public key in PEM. The key must not be symmetric."""
        assert self.private is not None  # noqa: S101 - no provider publishes a shared secret
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def certificate_pem(self) -> str:
        return self._certificate().public_bytes(Encoding.PEM).decode("ascii")

    def _numbers(self) -> dict[str, str]:
        match self.private:
            case rsa.RSAPrivateKey() as key:
                rsa_numbers = key.public_key().public_numbers()
                size = (rsa_numbers.n.bit_length() + 7) // 8
                return {
                    "kty": "RSA",
                    "n": base64url(rsa_numbers.n.to_bytes(size)),
                    "e": base64url(rsa_numbers.e.to_bytes(3)),
                }
            case ec.EllipticCurvePrivateKey() as key:
                _, _, size, curve = _EC[self.algorithm]
                point = key.public_key().public_numbers()
                x, y = (base64url(number.to_bytes(size)) for number in (point.x, point.y))
                return {"kty": "EC", "crv": curve, "x": x, "y": y}
            case ed25519.Ed25519PrivateKey() as key:
                return {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().public_bytes_raw())}
            case None:
                return {}

    def _certificate(self) -> x509.Certificate:
        assert self.private is not None  # noqa: S101
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dialtone sandbox")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .sign(self.private, None if self.algorithm == "EdDSA" else hashes.SHA256())
        )


class Signer:
    """The provider's keys, newest first."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self.keys: list[SigningKey] = []
        self.rotate()

    def rotate(self) -> str:
        """Create a new signing key, and return its `kid`."""
        self.keys.insert(0, SigningKey(self._algorithm))
        del self.keys[KEYS_KEPT:]
        return self.keys[0].kid

    def sign(self, header: dict[str, Any], claims: dict[str, Any], *, is_padded: bool = False) -> str:
        """A compact JWS. AWS load balancers pad the base64url text, and sign the padding."""
        encode = _padded if is_padded else base64url
        signing_input = ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        return f"{signing_input}.{encode(self.keys[0].signature(signing_input.encode()))}"


def base64url(raw: bytes) -> str:
    return _padded(raw).rstrip("=")


def _padded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii")


def _generated(algorithm: str) -> PrivateKey:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256" | "ES384":
            return ec.generate_private_key(_EC[algorithm][0]())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return None
