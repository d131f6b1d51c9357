"""Public keys of JWKs, certificates and PEM texts, as checked JWK members in one canonical encoding."""

import base64
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from app.adapters.identity.algorithms import ED25519_BYTES
from app.adapters.identity.compact_jws import canonical_base64url
from app.adapters.pem import blocks, decoded
from app.vending.errors import TokenRejected

RSA_BITS = range(2048, 8193)
"""Shorter keys can be broken (RFC 7518 section 3.3). Longer keys would cost too much CPU time."""

MIN_RSA_EXPONENT = 65537

_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = MappingProxyType(
    {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48), "P-521": (ec.SECP521R1(), 66)}
)
_STANDARD_TO_URL = str.maketrans("+/", "-_")

PublicKey = dict[str, str]
"""`kty` and the members that define the key (RFC 7518 section 6). Equal keys are equal dictionaries."""


class UnusableKey(ValueError):
    """The key cannot verify tokens. The message gives the reason, without text of the key set."""


class KeyForOtherUse(UnusableKey):
    """The key is not meant to verify this issuer's tokens, which is normal in a key set."""


def from_jwk(entry: Mapping[str, Any]) -> PublicKey:
    """The public key of a JWK, or of its certificate if it has only that. Raises UnusableKey.

    The certificate is trusted because it comes from the issuer's key set. Its chain and its dates are not checked.
    """
    if entry.get("d"):
        raise UnusableKey("it contains its private key, with which any reader of the key set can sign tokens")
    own = [entry.get(member) for member in ("n", "e", "x", "y")]
    if own == [None] * 4 and entry.get("x5c"):
        key = _from_certificate_chain(entry["x5c"])
        if entry.get("kty") not in (None, "", key["kty"]):
            raise UnusableKey("its certificate has a key of another type")
        return key
    try:
        match entry.get("kty"):
            case "RSA":
                return _rsa(int.from_bytes(_decoded(entry["n"])), int.from_bytes(_decoded(entry["e"])))
            case "EC":
                return _ec(entry["crv"], _decoded(entry["x"]), _decoded(entry["y"]))
            case "OKP":
                return _okp(entry["crv"], _decoded(entry["x"]))
            case "oct":
                raise UnusableKey("it is a shared secret, which a key set must not contain")
            case _:
                raise UnusableKey("its type is not RSA, EC or OKP")
    except KeyError:
        raise UnusableKey("a member is missing") from None
    except (TokenRejected, TypeError):
        raise UnusableKey("a member is not base64url") from None


def from_pem(pem: str) -> PublicKey:
    """The key of a PEM public key, or of the first certificate of a chain, in any spelling. Raises UnusableKey."""
    found = blocks(pem)
    certificates = [block for block in found if block.is_certificate]
    keys = [block for block in found if block.label.endswith("PUBLICKEY")]
    if any(block.is_private_key for block in found):
        raise UnusableKey("a private key; write its public key, and keep the private key at the provider")
    if len({block.der for block in keys}) > 1:
        raise UnusableKey("several public keys; keep one, or set the URL of a key set")
    try:
        if certificates:
            return _from_public_key(x509.load_der_x509_certificate(certificates[0].der).public_key())
        return _from_public_key(load_der_public_key(keys[0].der))
    except UnusableKey:
        raise
    except Exception:
        raise UnusableKey(_why_no_pem(pem)) from None


def _why_no_pem(text: str) -> str:
    """The kind of a text that is not PEM."""
    if text.strip().startswith("{"):
        return "JSON, not a PEM public key or certificate; set the URL of the key set"
    if _is_key(decoded(text)):
        return (
            "a public key without its first and last line; add -----BEGIN PUBLIC KEY----- and -----END PUBLIC KEY-----"
        )
    return "not a PEM public key or certificate"


def _is_key(raw: bytes) -> bool:
    try:
        load_der_public_key(raw)
    except Exception:
        return False
    return True


def _from_certificate_chain(chain: Any) -> PublicKey:
    """RFC 7517 section 4.7: the first certificate has the key. It is in base64, not base64url."""
    try:
        raw = base64.b64decode("".join(chain[0].split()), validate=True)
        return _from_public_key(x509.load_der_x509_certificate(raw).public_key())
    except UnusableKey:
        raise
    except Exception:
        raise UnusableKey("its x5c does not begin with a certificate") from None


def _from_public_key(key: object) -> PublicKey:
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            return _rsa(numbers.n, numbers.e)
        case ec.EllipticCurvePublicKey():
            point = key.public_numbers()
            names = {curve.name: name for name, (curve, _) in _CURVES.items()}
            size = (key.curve.key_size + 7) // 8
            return _ec(names.get(key.curve.name, ""), point.x.to_bytes(size), point.y.to_bytes(size))
        case Ed25519PublicKey():
            return _okp("Ed25519", key.public_bytes_raw())
        case _:
            raise UnusableKey("not an RSA, EC or Ed25519 key")


def _rsa(modulus: int, exponent: int) -> PublicKey:
    if modulus.bit_length() not in RSA_BITS:
        raise UnusableKey(f"an RSA key of {modulus.bit_length()} bits; 2048 to 8192 are allowed")
    if exponent < MIN_RSA_EXPONENT or exponent % 2 == 0 or exponent >= modulus:
        raise UnusableKey("an RSA key with an unsafe exponent; 65537 is usual")
    if modulus % 2 == 0 or _has_roca_fingerprint(modulus):
        raise UnusableKey("an RSA key with an unsafe modulus (CVE-2017-15361)")
    return {"kty": "RSA", "n": _base64url_int(modulus), "e": _base64url_int(exponent)}


def _ec(name: str, x: bytes, y: bytes) -> PublicKey:
    if name not in _CURVES:
        raise KeyForOtherUse("an EC key on another curve than P-256, P-384 and P-521")
    curve, size = _CURVES[name]
    if len(x) != size or len(y) != size:
        raise UnusableKey("its coordinates do not have the curve's size (RFC 7518 section 6.2.1.2)")
    try:
        ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    except ValueError:
        raise UnusableKey("its point is not on the curve") from None
    return {"kty": "EC", "crv": name, "x": _base64url(x), "y": _base64url(y)}


def _okp(name: str, x: bytes) -> PublicKey:
    if name != "Ed25519":
        raise KeyForOtherUse("an OKP key on another curve than Ed25519")
    if len(x) != ED25519_BYTES:
        raise UnusableKey("not 32 bytes, as an Ed25519 key has")
    return {"kty": "OKP", "crv": name, "x": _base64url(x)}


def _decoded(text: Any) -> bytes:
    """base64url, or base64 as some providers write it: with padding, or with `+` and `/`. Raises TokenRejected."""
    if not isinstance(text, str):
        raise TypeError
    if text.endswith("=") and len(text) % 4 == 0:
        text = text.removesuffix("=").removesuffix("=")
    return canonical_base64url(text.translate(_STANDARD_TO_URL))


def _base64url_int(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8))


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
