"""Push credentials as nouns: what a user registers, what Telnyx holds for it, and every step that may take.

A certificate belongs to an app and not to a person, so one object at Telnyx serves every registration of one material.

    pending -> active -> leaving -> (gone)
       ^---------'---------'  asked for again: found by its alias, or made anew
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.vending.models import UserKey


class PushType(StrEnum):
    """Whose push service wakes the app."""

    IOS = "ios"
    ANDROID = "android"


@dataclass(frozen=True, slots=True)
class PushMaterial:
    """What a push credential is made of, after it was checked. Passes through; never stored, never logged."""

    type: PushType
    app_id: str
    """Bundle id, or Firebase project id."""
    identity: bytes = field(repr=False)
    """What makes two materials one and the same: the certificate, or account and public key."""
    fingerprint_sha256: str
    """Of the certificate, as `openssl x509 -fingerprint -sha256` shows it; of a service account's public key."""
    not_after: datetime | None
    upload: Mapping[str, Any] = field(repr=False)
    """What Telnyx is sent, private key included."""


class PushState(StrEnum):
    """Where an object at Telnyx stands."""

    PENDING = "pending"
    """Written down; it is being uploaded, or may have been."""
    ACTIVE = "active"
    DELETING = "deleting"
    """Nobody registers it any more; it still has to be deleted at Telnyx."""


@dataclass(frozen=True, slots=True)
class PushObject:
    """One ledger row: one material, one object at Telnyx. Holds nothing of the material but public facts."""

    fingerprint: str
    """Keyed, so that the ledger tells nobody which material it is."""
    type: PushType
    telnyx_alias: str
    """How the object is found again when an answer was lost. Telnyx lets an account have it once."""
    state: PushState
    version: int
    app_id: str
    fingerprint_sha256: str
    not_after: datetime | None
    created_at: datetime
    updated_at: datetime
    credential_id: str | None = None
    claimed_by: str | None = None
    claimed_until: datetime | None = None
    retry_at: datetime | None = None
    attempts: int = 0
    warned_days: int | None = None
    """The last warning of expiry that was given, in days before it."""

    def is_claimed_by_other(self, replica: str, now: datetime) -> bool:
        return self.claimed_until is not None and self.claimed_until > now and self.claimed_by != replica

    def _step(self, now: datetime, **changes: object) -> "PushObject":
        return replace(self, version=self.version + 1, updated_at=now, **changes)  # type: ignore[arg-type]

    def claim(self, replica: str, now: datetime, claim: timedelta) -> "PushObject":
        """Wanted (again), by somebody who has the material."""
        return self._step(now, state=PushState.PENDING, claimed_by=replica, claimed_until=now + claim, retry_at=None)

    def activate(self, credential_id: str, now: datetime) -> "PushObject":
        return self._step(
            now, state=PushState.ACTIVE, credential_id=credential_id, claimed_by=None, claimed_until=None, attempts=0
        )

    def release(self, now: datetime) -> "PushObject":
        """PENDING, given up for the next caller."""
        return self._step(now, claimed_by=None, claimed_until=None)

    def start_deleting(self, now: datetime) -> "PushObject":
        return self._step(now, state=PushState.DELETING, claimed_by=None, claimed_until=None, retry_at=now)

    def claim_deletion(self, replica: str, now: datetime, claim: timedelta, retry_at: datetime) -> "PushObject":
        """LEAVING, by this replica now; by anybody at `retry_at` if that comes to nothing."""
        return self._step(
            now,
            claimed_by=replica,
            claimed_until=now + claim,
            retry_at=retry_at,
            attempts=self.attempts + 1,
        )


@dataclass(frozen=True, slots=True)
class PushRegistration:
    """One user's alias for one material."""

    id: str
    issuer: str
    subject: str
    alias: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime

    @property
    def user_key(self) -> UserKey:
        return UserKey(self.issuer, self.subject)


@dataclass(frozen=True, slots=True)
class RegisteredPush:
    """A registration with what is known of its material."""

    registration: PushRegistration
    object: PushObject
    is_attached: bool
    """Whether a connection uses it: one that none uses wakes nobody."""
