"""Loading a private key that somebody sent: bounded in time, and known to be whole."""

import math

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192


class WeakKey(ValueError):
    """An RSA key of fewer bits than anybody should use."""


def load(pem: str) -> PrivateKeyTypes:
    """Raises WeakKey, and ValueError or TypeError for what is no usable key. TypeError: it has a passphrase."""
    # The library's own check looks for primes, which takes seconds for a long key. That the numbers belong together is
    # all that matters here: the key is the sender's.
    key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise WeakKey
        if key.key_size > MAX_RSA_BITS or not _is_whole(key.private_numbers()):
            raise ValueError("not a usable RSA key")
    return key


def _is_whole(numbers: rsa.RSAPrivateNumbers) -> bool:
    """RFC 8017 section 3.2: n = p q, and e d = 1 modulo the least common multiple of p - 1 and q - 1."""
    public, p, q = numbers.public_numbers, numbers.p, numbers.q
    return p > 1 and q > 1 and p * q == public.n and (public.e * numbers.d) % math.lcm(p - 1, q - 1) == 1
