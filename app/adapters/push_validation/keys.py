"""Loading of untrusted private keys in bounded time, with a consistency check, and their canonical form."""

import math

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509 import Certificate

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192


class WeakKey(ValueError):
    """An RSA key with fewer than MIN_RSA_BITS bits."""


def load(der: bytes) -> PrivateKeyTypes:
    """The key in PKCS#1, PKCS#8 or SEC 1.

    Raises WeakKey, TypeError for a key with a passphrase, or another exception for a key that cannot be used.
    """
    # The library's own check tests for primes, which takes seconds for a long key. Consistent numbers suffice here,
    # because the key belongs to the sender.
    key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise WeakKey
        if key.key_size > MAX_RSA_BITS or not _is_consistent(key.private_numbers()):
            raise ValueError("not a usable RSA key")
    return key


def canonical_pem(key: PrivateKeyTypes) -> str:
    """The key in PKCS#8, as `openssl pkey` writes it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


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
