"""What our objects are called at Telnyx: names that lead back to a lease, tags that lead to nobody."""

import hashlib
import hmac
import re

from app.vending.models import UserKey

TAG_LENGTH = 32
"""Hex digits of a tag: 128 bits of a keyed hash."""


class Naming:
    """Names and tags of one namespace. Deployments that share a Telnyx account have a namespace each."""

    def __init__(self, namespace: str, tag_key: bytes) -> None:
        self._prefix = f"{namespace}-"
        self._own_name = re.compile(re.escape(self._prefix) + r"([0-9a-f]{32})\Z")
        self._tag_key = tag_key

    def credential_name(self, lease_id: str) -> str:
        """Deterministic, so that a create whose answer was lost is found again by `filter[name]`."""
        return self._prefix + lease_id

    def lease_id(self, credential_name: str) -> str | None:
        """The lease behind a name; None for every name that is not exactly one of ours."""
        match = self._own_name.match(credential_name)
        return match[1] if match else None

    def push_fingerprint(self, identity: bytes) -> str:
        """What the ledger calls a push material: without the key, it tells nobody which one it is."""
        return hmac.new(self._tag_key, b"push material " + identity, hashlib.sha256).hexdigest()

    def push_alias(self, fingerprint: str) -> str:
        """What Telnyx calls it. Deterministic, so that an upload whose answer was lost is found again."""
        return f"{self._prefix}push-{fingerprint[:TAG_LENGTH]}"

    def tag(self, user_key: UserKey) -> str:
        """One tag a user, without personal data. Per user, because Telnyx lets a tag hold at most 1000 credentials."""
        identity = f"{len(user_key.issuer)}:{user_key.issuer}{user_key.subject}".encode("utf-8", "surrogatepass")
        return hmac.new(self._tag_key, identity, hashlib.sha256).hexdigest()[:TAG_LENGTH]
