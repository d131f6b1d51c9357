"""The lease: one ledger row that says which device holds which credential, until when; and every step it may take.

    pending -> active -> revoking -> revoked
     | | ^       |`----> expired  -> deleted
     | | |       `-----> lost     -> deleted
     | `-> pooled -----> expired
     `---> failed, revoking

A step returns the next value with `version` one higher. The ledger writes it only if the row still has the version it
was made from, so of two writers one wins and the other learns of it. A lease never goes back and never leaves an end.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.vending.models import Credential, Platform, UserKey


class LeaseState(StrEnum):
    """Where a lease stands. Only PENDING and ACTIVE hold a device."""

    POOLED = "pooled"
    """Made ahead, and nobody's yet."""
    PENDING = "pending"
    """Written down; the credential is being made, or may have been."""
    ACTIVE = "active"
    REVOKING = "revoking"
    """Ended by request; Telnyx has not yet confirmed that the credential is gone."""
    REVOKED = "revoked"
    EXPIRED = "expired"
    """Ended by time; the credential still has to be deleted at Telnyx."""
    DELETED = "deleted"
    """Ended by time, and gone at Telnyx."""
    LOST = "lost"
    """Telnyx says that the credential is gone, though nobody here ended it; it is deleted to be sure."""
    FAILED = "failed"
    """Telnyx refused to make the credential: there is none."""


LIVE = (LeaseState.PENDING, LeaseState.ACTIVE)
"""States that hold a device: at most one such lease per device, by a unique index."""

ENDED = tuple(state for state in LeaseState if state not in (*LIVE, LeaseState.POOLED))
"""States that no lease leaves but towards its end."""

AWAITING_DELETION = (LeaseState.REVOKING, LeaseState.EXPIRED, LeaseState.LOST)
"""States that wait for the sweeper: a credential may still exist at Telnyx."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One row. Times are aware UTC. Holds no secret."""

    id: str
    issuer: str
    subject: str
    device_id: str
    platform: Platform
    label: str | None
    connection_id: str
    credential_name: str
    """Namespace and lease id: how a credential is found again when its answer was lost."""
    ttl_seconds: int
    """How far ahead each renewal sets the credential's expiry."""
    state: LeaseState
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    """The credential's expiry at Telnyx. Past it Telnyx refuses every change but deletion."""
    usable_at: datetime
    """From when on a login works; Telnyx needs a few seconds to spread a new credential."""
    credential_id: str | None = None
    sip_username: str | None = None
    claimed_by: str | None = None
    """The replica that is making the credential."""
    claimed_until: datetime | None = None
    attempted_at: datetime | None = None
    """When a create that may have reached Telnyx was begun; None while there certainly is no credential."""
    retry_at: datetime | None = None
    """For an ended lease: when the sweeper looks again."""
    attempts: int = 0
    """For an ended lease: deletions tried so far."""
    session: str | None = None
    """The session at the identity provider in which the device last asked; its logout ends the lease."""

    @property
    def user_key(self) -> UserKey:
        return UserKey(self.issuer, self.subject)

    @property
    def is_unassigned(self) -> bool:
        """Whether it is the pool's. No token has an empty issuer."""
        return not self.issuer

    def is_claimed_by_other(self, replica: str, now: datetime) -> bool:
        """Whether a replica that seems alive is at work on it."""
        return self.claimed_until is not None and self.claimed_until > now and self.claimed_by != replica

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at <= now

    def _step(self, now: datetime, **changes: object) -> "Lease":
        return replace(self, version=self.version + 1, updated_at=now, **changes)  # type: ignore[arg-type]

    def claim(self, replica: str, now: datetime, claim: timedelta) -> "Lease":
        """PENDING stays PENDING under a new holder; the old one's commit will now fail."""
        return self._step(now, claimed_by=replica, claimed_until=now + claim)

    def record_attempt(self, now: datetime, expires_at: datetime) -> "Lease":
        """PENDING, about to ask Telnyx once more: written down before the request leaves."""
        return self._step(now, attempted_at=now, expires_at=expires_at)

    def release(self, now: datetime, *, maybe_created: bool) -> "Lease":
        """PENDING, given up by its holder for the next caller to pick up."""
        return self._step(
            now,
            claimed_by=None,
            claimed_until=None,
            attempted_at=self.attempted_at if maybe_created else None,
        )

    def activate(self, credential: Credential, now: datetime, usable_at: datetime) -> "Lease":
        """PENDING becomes ACTIVE with the credential that Telnyx made."""
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
        )

    def mark_pooled(self, credential: Credential, now: datetime, usable_at: datetime) -> "Lease":
        """PENDING, and nobody's, becomes POOLED with the credential that Telnyx made."""
        return replace(self.activate(credential, now, usable_at), state=LeaseState.POOLED)

    def assign_to(self, intent: "Lease") -> "Lease":
        """POOLED becomes PENDING, as a device's: name, credential and age are the pool's, the rest is the intent's."""
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
        """ACTIVE with a later (or, at the user's wish, earlier) expiry at Telnyx."""
        return self._step(now, expires_at=expires_at)

    def change(
        self, now: datetime, *, label: str | None, platform: Platform, ttl_seconds: int, session: str | None
    ) -> "Lease":
        """Under other terms from now on; state, credential and expiry stay."""
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
        """The end: Telnyx has confirmed that no credential is left."""
        end = LeaseState.REVOKED if self.state is LeaseState.REVOKING else LeaseState.DELETED
        return self._step(now, state=end, retry_at=None)

    def schedule_retry(self, now: datetime, retry_at: datetime) -> "Lease":
        """Ended, and its deletion about to be tried; to be tried again then, unless it is confirmed."""
        return self._step(now, retry_at=retry_at, attempts=self.attempts + 1)

    def retry_without_counting(self, now: datetime, retry_at: datetime) -> "Lease":
        """Ended; Telnyx could not be asked, so that the try does not count."""
        return self._step(now, retry_at=retry_at, attempts=max(0, self.attempts - 1))
