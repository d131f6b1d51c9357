"""Encrypts logins for the shared login cache, and decrypts them.

An entry is bound to one version of one lease. A writer to the store can delete entries, but can neither read one nor
make Dialtone use it for another device, for another version of the lease or in another namespace.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.vending.models import LoginToken
from app.vending.telephony.lease import Lease, LeaseVersion
from app.vending.telephony.login_cache import Login

KEY_BYTES = 32
MAX_KEYS = 4
"""The current key and former ones. An entry may be looked up under each."""

NONCE_BYTES = 12
NAME_PREFIX = "dialtone-login:"
FORMAT = "dialtone login 1"
"""Version of the format. Another version's entries cannot be decrypted."""


class InvalidEntry(Exception):
    """The entry is not a login of this lease, in this version, under this key."""


def parse_keys(text: str) -> tuple[bytes, ...]:
    """Keys in base64 or base64url, separated by commas or white space. Raises ValueError, without a value."""
    keys = tuple(_parse_key(word) for word in re.split(r"[,\s]+", text) if word)
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ValueError(f"must be 1 to {MAX_KEYS} keys, separated by commas")
    if len(set(keys)) < len(keys):
        raise ValueError("has the same key twice")
    return keys


def _parse_key(word: str) -> bytes:
    try:
        key = base64.b64decode(word.rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True)
    except ValueError:  # binascii.Error, or text that is not ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"each key must be {KEY_BYTES} bytes in base64, as from: openssl rand -base64 32")
    return key


@dataclass(frozen=True, slots=True, repr=False)
class _Key:
    """The keys that are derived from one key of the settings."""

    id: str
    names: bytes
    entries: bytes

    @classmethod
    def derive(cls, key: bytes) -> "_Key":
        return cls(_hmac(key, b"id")[:8].hex(), _hmac(key, b"names"), _hmac(key, b"entries"))


class LoginSealer:
    """Encrypts with the first key, and decrypts with each."""

    def __init__(self, keys: Sequence[bytes], namespace: str) -> None:
        self._keys = [_Key.derive(key) for key in keys]
        self._namespace = namespace

    def names(self, lease: Lease | LeaseVersion) -> list[str]:
        """The names that the lease's entry may have in the store, one for each key. They reveal nothing."""
        identity = _encoded(self._namespace, *lease.user_key, lease.device_id, lease.id)
        return [NAME_PREFIX + _hmac(key.names, identity)[:16].hex() for key in self._keys]

    def seal(self, login: Login) -> bytes:
        """The entry of a login with a token, for the first of `names`."""
        if login.token is None:
            raise ValueError("only a login with a token is shared")
        content = {
            "token": login.token.secret,
            "token_expires_at": login.token.expires_at.isoformat(),
            "issued_at": login.issued_at.isoformat(),
            "expires_at": login.expires_at.isoformat(),
            "refresh_after": login.refresh_after.isoformat(),
        }
        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher, bound_to = self._cipher(0, login.lease)
        return nonce + cipher.encrypt(nonce, json.dumps(content).encode(), bound_to)

    def open(self, lease: Lease, number: int, entry: bytes) -> Login:
        """The login in the entry with the name of that number. Raises InvalidEntry."""
        cipher, bound_to = self._cipher(number, lease)
        try:
            content = json.loads(cipher.decrypt(entry[:NONCE_BYTES], entry[NONCE_BYTES:], bound_to))
            token = LoginToken(content["token"], datetime.fromisoformat(content["token_expires_at"]))
            times = [datetime.fromisoformat(content[name]) for name in ("issued_at", "expires_at", "refresh_after")]
        except (InvalidTag, ValueError, KeyError, TypeError):
            raise InvalidEntry from None
        issued_at, expires_at, refresh_after = times
        return Login(lease, issued_at, min(expires_at, lease.expires_at), refresh_after, token)

    def _cipher(self, number: int, lease: Lease) -> tuple[AESGCM, bytes]:
        """The cipher of a lease, and what its entry is bound to.

        Each lease has a key of its own, so the number of messages for which random nonces are safe is not reached.
        """
        key = self._keys[number]
        identity = (self._namespace, *lease.user_key, lease.device_id, lease.id)
        bound_to = _encoded(FORMAT, *identity, str(lease.version), key.id)
        return AESGCM(_hmac(key.entries, _encoded(*identity))), bound_to


def _encoded(*parts: str) -> bytes:
    """The parts as bytes, so that different parts never give the same bytes."""
    return json.dumps(parts).encode()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
