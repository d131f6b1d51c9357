"""Names of Dialtone's objects at Telnyx: a name identifies a lease, a tag identifies no user."""

import hmac
import re

from app.vending.models import UserKey
from app.vending.pseudonyms import PSEUDONYM_PREFIX, ErasedUser

TAG_LENGTH = 32
"""Hex digits of a tag: 128 bits of a keyed hash."""


class Naming:
    """Names and tags of one namespace. Deployments that share a Telnyx account each need their own namespace."""

    def __init__(self, namespace: str, tag_key: bytes, previous_tag_key: bytes | None = None) -> None:
        self._prefix = f"{namespace}-"
        self._own_name = re.compile(re.escape(self._prefix) + r"([0-9a-f]{32})\Z")
        self.use_keys(tag_key, previous_tag_key)

    def use_keys(self, tag_key: bytes, previous_tag_key: bytes | None) -> None:
        """Make new hashes with `tag_key`. Hashes that were made with `previous_tag_key` are still recognized."""
        self._keys = (tag_key,) if previous_tag_key is None else (tag_key, previous_tag_key)

    def credential_name(self, lease_id: str) -> str:
        """Deterministic, so that a create with a lost response is found by `filter[name]`."""
        return self._prefix + lease_id

    def lease_id(self, credential_name: str) -> str | None:
        """The lease id in a credential's name; None unless the name has exactly this namespace's form."""
        match = self._own_name.match(credential_name)
        return match[1] if match else None

    def push_fingerprints(self, identity: bytes) -> tuple[str, ...]:
        """The ledger's keys of a push material, the current key's first: keyed hashes, which do not reveal it."""
        return self._hashes(b"push material " + identity)

    def push_alias(self, fingerprint: str) -> str:
        """The alias at Telnyx. Deterministic, so that an upload with a lost response is found."""
        return f"{self._prefix}push-{fingerprint[:TAG_LENGTH]}"

    def tag(self, user_key: UserKey) -> str:
        """The user's tag, without personal data. One per user: Telnyx allows at most 1000 credentials per tag."""
        return self._hashes(_identity(user_key))[0][:TAG_LENGTH]

    def user_hashes(self, user_key: UserKey) -> tuple[str, ...]:
        """Hashes that recognize an erased user, the current key's first. They have nothing in common with the tag."""
        return self._hashes(b"erased user " + _identity(user_key))

    def opaque(self, erased: ErasedUser, value: str) -> str:
        """A keyed hash of one of an erased user's values, such as a device id."""
        text = f"erased value {erased.pseudonym} {value}".encode("utf-8", "surrogatepass")
        return PSEUDONYM_PREFIX + self._hashes(text)[0][:TAG_LENGTH]

    def _hashes(self, text: bytes) -> tuple[str, ...]:
        return tuple(hmac.digest(key, text, "sha256").hex() for key in self._keys)


def _identity(user_key: UserKey) -> bytes:
    return f"{len(user_key.issuer)}:{user_key.issuer}{user_key.subject}".encode("utf-8", "surrogatepass")
