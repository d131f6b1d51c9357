"""Loading of untrusted private keys, in bounded time and with a consistency check."""

import math

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192


class WeakKey(ValueError):
    """An RSA key with fewer than MIN_RSA_BITS bits."""


def load(pem: str) -> PrivateKeyTypes:
    """Raises WeakKey, ValueError for an unusable key, or TypeError for a key with a passphrase."""
    # The library's own check tests for primes, which takes seconds for a long key. Consistent numbers suffice here,
    # because the key belongs to the sender.
    key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise WeakKey
        if key.key_size > MAX_RSA_BITS or not _is_consistent(key.private_numbers()):
            raise ValueError("not a usable RSA key")
    return key


def _is_consistent(numbers: rsa.RSAPrivateNumbers) -> bool:
    """True if n = p q, and e d = 1 modulo the least common multiple of p - 1 and q - 1 (RFC 8017 section 3.2)."""
    public, p, q = numbers.public_numbers, numbers.p, numbers.q
    return p > 1 and q > 1 and p * q == public.n and (public.e * numbers.d) % math.lcm(p - 1, q - 1) == 1
