"""Loading of untrusted private keys in bounded time, with a consistency check."""

import math
from itertools import islice

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from cryptography.x509 import Certificate
from cryptography.x509.oid import PublicKeyAlgorithmOID

from app.adapters.push_validation.der import INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, elements

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192

SUPPORTED_ALGORITHMS = frozenset({PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5, PublicKeyAlgorithmOID.EC_PUBLIC_KEY})
"""Apple's and Google's keys are RSA keys. EC keys are recognized as Apple's token keys."""

_ENCODED_ALGORITHMS = (bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a8648ce3d0201"))
"""The same object identifiers in DER."""

_MAX_EXPONENT_BYTES = 8
"""Distinguishes a PKCS#1 key, whose third number is the public exponent, from a DSA key."""


class WeakKey(ValueError):
    """An RSA key with fewer than MIN_RSA_BITS bits."""


def load(encoded: bytes) -> PrivateKeyTypes:
    """The key in PKCS#1, PKCS#8 or SEC 1.

    Raises WeakKey, TypeError for a key with a passphrase, or another exception for a key that cannot be used.
    """
    if not _is_rsa_or_ec(encoded):
        raise ValueError("not an RSA or EC key")
    # The library's own check tests for primes, which takes seconds for a long key. Consistent numbers suffice here,
    # because the key belongs to the sender.
    key = load_der_private_key(encoded, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise WeakKey
        if key.key_size > MAX_RSA_BITS or not _is_consistent(key.private_numbers()):
            raise ValueError("not a usable RSA key")
    return key


def spki(holder: Certificate | PrivateKeyTypes) -> bytes:
    """The public key, in DER. Equal for a key and its certificate."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_consistent(numbers: rsa.RSAPrivateNumbers) -> bool:
    """True if the numbers fulfil the equations of RFC 8017 section 3.2."""
    public, p, q = numbers.public_numbers, numbers.p, numbers.q
    return (
        p > 1
        and q > 1
        and p * q == public.n
        and (public.e * numbers.d) % math.lcm(p - 1, q - 1) == 1
        and numbers.dmp1 == numbers.d % (p - 1)
        and numbers.dmq1 == numbers.d % (q - 1)
        and (numbers.iqmp * q) % p == 1
    )


def _is_rsa_or_ec(encoded: bytes) -> bool:
    """Checked before the key is loaded, because loading a DSA key of 20 KB takes more than a minute."""
    _, content = next(elements(encoded), (0, b""))
    tags, values = zip(*islice(elements(content), 3), strict=True) if content else ((), ())
    if tags[:2] == (INTEGER, SEQUENCE):  # PKCS#8
        return next(elements(values[1]), None) in [(OBJECT_IDENTIFIER, oid) for oid in _ENCODED_ALGORITHMS]
    if tags == (INTEGER, INTEGER, INTEGER):  # PKCS#1
        return len(values[2]) <= _MAX_EXPONENT_BYTES
    # SEC 1, or PKCS#8 with a passphrase, which the library rejects at once.
    return tags[:2] in [(INTEGER, OCTET_STRING), (SEQUENCE, OCTET_STRING)]
