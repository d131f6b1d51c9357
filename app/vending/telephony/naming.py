"""Names of Dialtone's objects at Telnyx: a name identifies a lease, a tag identifies no user."""

import hashlib
import hmac
import re

from app.vending.models import UserKey

TAG_LENGTH = 32
"""Hex digits of a tag: 128 bits of a keyed hash."""


class Naming:
    """Names and tags of one namespace. Deployments that share a Telnyx account each need their own namespace."""

    def __init__(self, namespace: str, tag_key: bytes) -> None:
        self._prefix = f"{namespace}-"
        self._own_name = re.compile(re.escape(self._prefix) + r"([0-9a-f]{32})\Z")
        self._tag_key = tag_key

    def credential_name(self, lease_id: str) -> str:
        """Deterministic, so that a create with a lost response is found by `filter[name]`."""
        return self._prefix + lease_id

    def lease_id(self, credential_name: str) -> str | None:
        """The lease id in a credential's name; None unless the name has exactly this namespace's form."""
        match = self._own_name.match(credential_name)
        return match[1] if match else None

    def push_fingerprint(self, identity: bytes) -> str:
        """The ledger's key of a push material: a keyed hash, which does not reveal the material."""
        return hmac.new(self._tag_key, b"push material " + identity, hashlib.sha256).hexdigest()

    def push_alias(self, fingerprint: str) -> str:
        """The alias at Telnyx. Deterministic, so that an upload with a lost response is found."""
        return f"{self._prefix}push-{fingerprint[:TAG_LENGTH]}"

    def tag(self, user_key: UserKey) -> str:
        """The user's tag, without personal data. One per user: Telnyx allows at most 1000 credentials per tag."""
        identity = f"{len(user_key.issuer)}:{user_key.issuer}{user_key.subject}".encode("utf-8", "surrogatepass")
        return hmac.new(self._tag_key, identity, hashlib.sha256).hexdigest()[:TAG_LENGTH]
