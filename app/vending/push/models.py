"""Push models: a user's registration, the object at Telnyx that it refers to, and the object's state transitions.

A certificate belongs to an app and not to a user, so one object at Telnyx serves every registration of one material.

    pending -> active -> deleting -> (gone)
       ^---------'---------'  registered again: found by its alias, or uploaded again
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.vending.models import UserKey


class PushType(StrEnum):
    """Platform whose push service wakes the app."""

    IOS = "ios"
    ANDROID = "android"


@dataclass(frozen=True, slots=True)
class PushMaterial:
    """Validated material of a push credential. Only passed on to Telnyx: never stored, never logged."""

    type: PushType
    app_id: str
    """Bundle ID, or Firebase project ID."""
    identity: bytes = field(repr=False)
    """Equal for equal material: the certificate, or account and public key."""
    fingerprint_sha256: str
    """Of the certificate, as `openssl x509 -fingerprint -sha256` prints it, or of the service account's public key."""
    not_after: datetime | None
    upload: Mapping[str, Any] = field(repr=False)
    """The body of the upload to Telnyx, private key included."""


class PushState(StrEnum):
    """State of an object at Telnyx."""

    PENDING = "pending"
    """Intent committed; the object is being uploaded, or may have been uploaded."""
    ACTIVE = "active"
    DELETING = "deleting"
    """Without a registration; still to be deleted at Telnyx."""


@dataclass(frozen=True, slots=True)
class PushObject:
    """One ledger row: one material, one object at Telnyx. Holds only public facts about the material."""

    fingerprint: str
    """A keyed hash, so that the ledger does not reveal the material."""
    type: PushType
    telnyx_alias: str
    """Finds the object if a response is lost. Telnyx allows an alias once per account."""
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
    """The last expiry warning given, in days before expiry."""

    def is_claimed_by_other(self, replica: str, now: datetime) -> bool:
        return self.claimed_until is not None and self.claimed_until > now and self.claimed_by != replica

    def _step(self, now: datetime, **changes: object) -> "PushObject":
        return replace(self, version=self.version + 1, updated_at=now, **changes)  # type: ignore[arg-type]

    def claim(self, replica: str, now: datetime, claim: timedelta) -> "PushObject":
        """PENDING (again), claimed on behalf of a caller that has the material."""
        return self._step(now, state=PushState.PENDING, claimed_by=replica, claimed_until=now + claim, retry_at=None)

    def activate(self, credential_id: str, now: datetime) -> "PushObject":
        return self._step(
            now, state=PushState.ACTIVE, credential_id=credential_id, claimed_by=None, claimed_until=None, attempts=0
        )

    def release(self, now: datetime) -> "PushObject":
        """PENDING without a holder, for the next caller to claim."""
        return self._step(now, claimed_by=None, claimed_until=None)

    def start_deleting(self, now: datetime) -> "PushObject":
        return self._step(now, state=PushState.DELETING, claimed_by=None, claimed_until=None, retry_at=now)

    def claim_deletion(self, replica: str, now: datetime, claim: timedelta, retry_at: datetime) -> "PushObject":
        """DELETING, claimed by this replica. If the deletion fails, any replica may retry it at `retry_at`."""
        return self._step(
            now,
            claimed_by=replica,
            claimed_until=now + claim,
            retry_at=retry_at,
            attempts=self.attempts + 1,
        )


@dataclass(frozen=True, slots=True)
class PushObjectUse:
    """An object, and what uses it."""

    object: PushObject
    registration_id: str | None
    """One of its registrations, which names it in requests; None if there is none."""
    registrations: int
    is_attached: bool
    """Whether a connection uses it."""


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
    """A registration with its object."""

    registration: PushRegistration
    object: PushObject
    is_attached: bool
    """Whether a connection uses the object. Without one, it wakes no device."""


def days_until(expiry: datetime, now: datetime) -> int:
    """Days left, rounded up: 1 on the last day, and 0 from the expiry on."""
    return max(0, math.ceil((expiry - now) / timedelta(days=1)))
