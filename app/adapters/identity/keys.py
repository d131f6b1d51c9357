"""An issuer's keys: which key may verify which token. python-jose verifies the signatures.

python-jose gets one key at a time, for one algorithm, built from numbers that this module has checked. This avoids its
known faults: a key's algorithm does not bind the header's, a public key passes as an HMAC secret, sets may be mixed.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jose import jwk
from jose.exceptions import JOSEError

from app.adapters.identity import algorithms as added
from app.adapters.identity.algorithms import ED25519_BYTES, EDDSA_ALGORITHMS, PSS_ALGORITHMS
from app.adapters.identity.compact_jws import CompactJws, canonical_base64url
from app.vending.errors import TokenRejected

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512"}) | PSS_ALGORITHMS
EC_ALGORITHMS = MappingProxyType({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"})
HMAC_ALGORITHMS = frozenset({"HS256", "HS384", "HS512"})
PUBLIC_KEY_ALGORITHMS = RSA_ALGORITHMS | set(EC_ALGORITHMS) | EDDSA_ALGORITHMS

RSA_BITS = range(2048, 8193)
"""Shorter keys can be broken (RFC 7518 section 3.3). Longer keys would cost too much CPU time."""

MIN_RSA_EXPONENT = 65537
MAX_KID_LENGTH = 256
MAX_KEYS = 100

added.register()

_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = MappingProxyType(
    {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48), "P-521": (ec.SECP521R1(), 66)}
)


class SignatureKey(Protocol):
    """The part of python-jose's key objects that Dialtone uses."""

    def verify(self, msg: bytes, sig: bytes) -> bool: ...


class UnknownKey(Exception):
    """The key set has no key for the token's `kid` and `alg`."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A usable public key or shared secret, with one python-jose object for each algorithm that it may verify."""

    kid: str | None
    checks: Mapping[str, SignatureKey]


class KeySet:
    """The keys of one issuer. Immutable: cached results compare it by identity to detect a newer set."""

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def choose(self, algorithm: str, kid: str | None) -> SignatureKey:
        """The key for this `alg` and `kid`. Raises UnknownKey if there is none, TokenRejected if several match."""
        fitting = [
            key.checks[algorithm]
            for key in self._keys
            if algorithm in key.checks and (kid is None or key.kid is None or key.kid == kid)
        ]
        if not fitting:
            raise UnknownKey
        if len(fitting) > 1:
            raise TokenRejected("ambiguous_key")
        return fitting[0]


def check_signature(token: CompactJws, key: SignatureKey) -> None:
    """Raises TokenRejected unless the signature is valid, whatever python-jose raises."""
    try:
        is_good = key.verify(token.signing_input, token.signature)
    except Exception as error:
        raise TokenRejected("bad_signature") from error
    if is_good is not True:
        raise TokenRejected("bad_signature")


def from_jwks(document: dict[str, Any], algorithms: frozenset[str]) -> KeySet:
    """The usable keys of a JWK set. Invalid keys are skipped. Raises ValueError for an invalid set."""
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("not a JWK set of at most 100 keys")
    found = [key for entry in entries if (key := _from_jwk(entry, algorithms)) is not None]
    kids = [key.kid for key in found]
    # Two keys with one kid are ambiguous, so neither is used. RFC 7517 section 4.5 says that kids SHOULD differ.
    return KeySet(key for key in found if key.kid is None or kids.count(key.kid) == 1)


def from_pem(pem: str, algorithms: frozenset[str]) -> KeySet:
    """A key set of one public key or certificate in PEM. Raises ValueError if it is unusable."""
    raw = pem.encode()
    try:
        is_certificate = "BEGIN CERTIFICATE" in pem
        key = x509.load_pem_x509_certificate(raw).public_key() if is_certificate else load_pem_public_key(raw)
    except Exception:
        raise ValueError("not a PEM public key or certificate") from None
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        entry = {"kty": "RSA", "n": _base64url_int(numbers.n), "e": _base64url_int(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        names = {curve.name: (name, size) for name, (curve, size) in _CURVES.items()}
        name, size = names.get(key.curve.name, ("", 0))
        entry = {
            "kty": "EC",
            "crv": name,
            "x": _base64url_int(point.x, size),
            "y": _base64url_int(point.y, size),
        }
    elif isinstance(key, Ed25519PublicKey):
        entry = {"kty": "OKP", "crv": "Ed25519", "x": _base64url(key.public_bytes_raw())}
    else:
        entry = {}
    usable = _from_jwk(entry, algorithms)
    if usable is None:
        raise ValueError("not an RSA key of 2048 to 8192 bits, or an EC or Ed25519 key, that the algorithms can use")
    return KeySet([usable])


def from_secret(secret: bytes, algorithms: frozenset[str]) -> KeySet:
    """A key set of one shared secret. Raises ValueError if it is shorter than 32 bytes."""
    if len(secret) < 32:
        raise ValueError("a shared secret must have 32 bytes or more")
    return KeySet([VerificationKey(None, {name: jwk.construct(secret, name) for name in algorithms & HMAC_ALGORITHMS})])


def _from_jwk(entry: Any, algorithms: frozenset[str]) -> VerificationKey | None:
    """A key, or None if it is invalid or fits none of the algorithms. Symmetric keys are never accepted."""
    if not isinstance(entry, dict) or not _may_verify(entry):
        return None
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        return None
    try:
        match entry.get("kty"):
            case "RSA":
                public, able = _rsa(entry), RSA_ALGORITHMS
            case "EC":
                public, able = (
                    _ec(entry),
                    frozenset(a for a, crv in EC_ALGORITHMS.items() if crv == entry["crv"]),
                )
            case "OKP":
                public, able = _okp(entry), EDDSA_ALGORITHMS
            case _:
                return None
        allowed = able & algorithms & ({entry["alg"]} if "alg" in entry else able)
        checks = {name: jwk.construct(public, name) for name in allowed}
    except (TokenRejected, ValueError, TypeError, KeyError, JOSEError):
        return None
    return VerificationKey(kid, checks) if checks else None


def _may_verify(entry: dict[str, Any]) -> bool:
    """True unless `use` or `key_ops` exclude verification (RFC 7517 sections 4.2 and 4.3)."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(entry.get("alg", ""), str)
    )


def _rsa(entry: dict[str, Any]) -> dict[str, str]:
    modulus, exponent = _number(entry["n"]), _number(entry["e"])
    if modulus.bit_length() not in RSA_BITS or exponent < MIN_RSA_EXPONENT or exponent % 2 == 0 or modulus % 2 == 0:
        raise ValueError("unsafe RSA key")
    if exponent >= modulus or _has_roca_fingerprint(modulus):
        raise ValueError("unsafe RSA key")
    return {"kty": "RSA", "n": entry["n"], "e": entry["e"]}


def _ec(entry: dict[str, Any]) -> dict[str, str]:
    curve, size = _CURVES[entry["crv"]]
    x, y = canonical_base64url(entry["x"]), canonical_base64url(entry["y"])
    if len(x) != size or len(y) != size:
        raise ValueError("coordinates must have the curve's full size (RFC 7518 section 6.2.1.2)")
    # Raises ValueError for a point that is not on the curve.
    ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    return {"kty": "EC", "crv": entry["crv"], "x": entry["x"], "y": entry["y"]}


def _okp(entry: dict[str, Any]) -> dict[str, str]:
    if entry["crv"] != "Ed25519" or len(canonical_base64url(entry["x"])) != ED25519_BYTES:
        raise ValueError("not an Ed25519 key")
    return {"kty": "OKP", "crv": "Ed25519", "x": entry["x"]}


def _number(text: Any) -> int:
    if not isinstance(text, str):
        raise TypeError("not base64url text")
    return int.from_bytes(canonical_base64url(text))


def _base64url_int(number: int, size: int | None = None) -> str:
    return _base64url(number.to_bytes(size or (number.bit_length() + 7) // 8))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


@cache
def _roca_residues() -> Mapping[int, frozenset[int]]:
    """The powers of 65537 modulo p, for each small prime p.

    Source: Nemec et al., "The Return of Coppersmith's Attack" (CVE-2017-15361). The faulty primes have the form
    k*M + (65537^a mod M), so a product of two of them is a power of 65537 modulo every small prime.
    """
    primes = [p for p in range(3, 168) if all(p % q for q in range(2, int(p**0.5) + 1))]
    return {p: frozenset(pow(65537, power, p) for power in range(p)) for p in primes}


def _has_roca_fingerprint(modulus: int) -> bool:
    return all(modulus % p in residues for p, residues in _roca_residues().items())
