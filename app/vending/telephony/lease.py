"""The lease: one ledger row with a device, its Telnyx credential and the expiry, and every transition between states.

    pending -> active -> revoking -> revoked
     | | ^       |`----> expired  -> deleted
     | | |       `-----> lost     -> deleted
     | `-> pooled -----> expired
     `---> failed, revoking

A transition returns the next value with `version` one higher. The ledger writes it only if the row still has the
previous version, so of two concurrent writers one succeeds and the other gets LeaseConflict. A lease that has ended
never becomes live again.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.vending.models import Credential, Platform, UserKey


class LeaseState(StrEnum):
    """State of a lease. Only PENDING and ACTIVE leases occupy a device."""

    POOLED = "pooled"
    """Created ahead and not yet assigned to a user."""
    PENDING = "pending"
    """Intent committed; the credential is being created, or may have been created."""
    ACTIVE = "active"
    REVOKING = "revoking"
    """Ended on request; Telnyx has not confirmed the deletion of the credential yet."""
    REVOKED = "revoked"
    EXPIRED = "expired"
    """Ended by time; the credential is still to be deleted at Telnyx."""
    DELETED = "deleted"
    """Expired or lost, and deleted at Telnyx."""
    LOST = "lost"
    """Telnyx reports the credential as gone although Dialtone did not end it; it is deleted to be sure."""
    FAILED = "failed"
    """Telnyx rejected the create: no credential exists."""


LIVE = (LeaseState.PENDING, LeaseState.ACTIVE)
"""States that occupy a device. A unique index allows at most one such lease per device."""

ENDED = tuple(state for state in LeaseState if state not in (*LIVE, LeaseState.POOLED))
"""States of an ended lease. Only other ended states follow them."""

AWAITING_DELETION = (LeaseState.REVOKING, LeaseState.EXPIRED, LeaseState.LOST)
"""States that the sweeper works on: a credential may still exist at Telnyx."""


FIRST_ACTIVE_VERSION = 2
"""Version of a lease whose create succeeded at once. No earlier version was ACTIVE."""


@dataclass(frozen=True, slots=True)
class LeaseVersion:
    """The part of a changed lease that the login caches of other replicas need."""

    id: str
    user_key: UserKey
    device_id: str
    state: LeaseState
    version: int
    expires_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """One ledger row. Times are timezone-aware UTC. Holds no secret."""

    id: str
    issuer: str
    subject: str
    device_id: str
    platform: Platform
    label: str | None
    connection_id: str
    credential_name: str
    """Namespace and lease id. The credential is found by this name if a create's response is lost."""
    ttl_seconds: int
    """How far ahead of now each renewal sets the credential's expiry."""
    state: LeaseState
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    """The credential's expiry at Telnyx. After it, Telnyx rejects every change except deletion."""
    usable_at: datetime
    """When a login starts to work; Telnyx needs a few seconds to propagate a new credential."""
    credential_id: str | None = None
    sip_username: str | None = None
    claimed_by: str | None = None
    """The replica that is creating the credential."""
    claimed_until: datetime | None = None
    attempted_at: datetime | None = None
    """When an unresolved create that may have reached Telnyx was started; None if there is no such create."""
    retry_at: datetime | None = None
    """For an ended lease: when the sweeper next tries the deletion."""
    attempts: int = 0
    """For an ended lease: number of deletion attempts."""
    session: str | None = None
    """The identity provider's session of the device's last request; its logout ends the lease."""
    last_used_at: datetime | None = None
    """When the device last got a login, accurate to a minute. Not part of the version: it is written in batches."""

    @property
    def user_key(self) -> UserKey:
        return UserKey(self.issuer, self.subject)

    @property
    def is_unassigned(self) -> bool:
        """Whether the lease belongs to the warm pool. No token has an empty issuer."""
        return not self.issuer

    def is_claimed(self, now: datetime) -> bool:
        """Whether a replica holds an unexpired claim on the row."""
        return self.claimed_until is not None and self.claimed_until > now

    def is_claimed_by_other(self, replica: str, now: datetime) -> bool:
        return self.is_claimed(now) and self.claimed_by != replica

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at <= now

    def _step(self, now: datetime, **changes: object) -> "Lease":
        return replace(self, version=self.version + 1, updated_at=now, **changes)  # type: ignore[arg-type]

    def claim(self, replica: str, now: datetime, claim: timedelta, session: str | None = None) -> "Lease":
        """PENDING under a new holder, whose session the device belongs to. The previous holder's commit will fail."""
        return self._step(now, claimed_by=replica, claimed_until=now + claim, session=session or self.session)

    def record_attempt(self, now: datetime, expires_at: datetime) -> "Lease":
        """PENDING, about to call Telnyx again. Committed before the request is sent."""
        return self._step(now, attempted_at=now, expires_at=expires_at)

    def release(self, now: datetime, *, maybe_created: bool) -> "Lease":
        """PENDING without a holder, for the next caller to claim."""
        return self._step(
            now,
            claimed_by=None,
            claimed_until=None,
            attempted_at=self.attempted_at if maybe_created else None,
        )

    def activate(self, credential: Credential, now: datetime, usable_at: datetime) -> "Lease":
        """PENDING becomes ACTIVE with the credential that Telnyx created."""
        return self._step(
            now,
            state=LeaseState.ACTIVE,
            credential_id=credential.id,
            sip_username=credential.sip_username,
            expires_at=min(self.expires_at, credential.expires_at or self.expires_at),
            usable_at=usable_at,
            claimed_by=None,
            claimed_until=None,
            attempted_at=None,
            last_used_at=now,
        )

    def mark_pooled(self, credential: Credential, now: datetime, usable_at: datetime) -> "Lease":
        """PENDING without a user becomes POOLED with the credential that Telnyx created."""
        return replace(self.activate(credential, now, usable_at), state=LeaseState.POOLED, last_used_at=None)

    def assign_to(self, intent: "Lease") -> "Lease":
        """POOLED becomes PENDING for a device. Id, credential and `usable_at` stay; the rest comes from the intent."""
        return replace(
            intent,
            id=self.id,
            credential_name=self.credential_name,
            credential_id=self.credential_id,
            sip_username=self.sip_username,
            usable_at=self.usable_at,
            version=self.version + 1,
        )

    def extend(self, expires_at: datetime, now: datetime) -> "Lease":
        """ACTIVE with a later expiry at Telnyx, or an earlier one if the user requests that."""
        return self._step(now, expires_at=expires_at)

    def change(
        self, now: datetime, *, label: str | None, platform: Platform, ttl_seconds: int, session: str | None
    ) -> "Lease":
        """The lease under new terms; state, credential and expiry stay."""
        return self._step(now, label=label, platform=platform, ttl_seconds=ttl_seconds, session=session)

    def mark_failed(self, now: datetime) -> "Lease":
        return self._step(now, state=LeaseState.FAILED, claimed_by=None, claimed_until=None, attempted_at=None)

    def mark_lost(self, now: datetime) -> "Lease":
        return self._step(now, state=LeaseState.LOST, retry_at=now)

    def start_revoking(self, now: datetime) -> "Lease":
        return self._step(now, state=LeaseState.REVOKING, retry_at=now)

    def mark_expired(self, now: datetime) -> "Lease":
        return self._step(now, state=LeaseState.EXPIRED, retry_at=now)

    def mark_deleted(self, now: datetime) -> "Lease":
        """The final state: Telnyx has confirmed that no credential is left."""
        end = LeaseState.REVOKED if self.state is LeaseState.REVOKING else LeaseState.DELETED
        return self._step(now, state=end, retry_at=None)

    def schedule_retry(self, now: datetime, retry_at: datetime) -> "Lease":
        """Ended, with a deletion about to be tried. It is retried at `retry_at` unless confirmed."""
        return self._step(now, retry_at=retry_at, attempts=self.attempts + 1)

    def retry_without_counting(self, now: datetime, retry_at: datetime) -> "Lease":
        """Ended, with a deletion that never reached Telnyx: the attempt does not count."""
        return self._step(now, retry_at=retry_at, attempts=max(0, self.attempts - 1))
