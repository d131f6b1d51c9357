"""Revoking: logging devices out. The ledger is written first; the deletion at Telnyx is retried until confirmed."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from app.vending.audit import Audit, AuditAction, AuditOutcome, Decision
from app.vending.errors import LeaseConflict, LeaseNotFound, TelnyxError, TelnyxRateLimited, TelnyxUnreachable
from app.vending.grants.binding import DeviceBinding
from app.vending.models import Principal, UserKey
from app.vending.not_before import LogoutClaims, NotBeforeRegistry
from app.vending.policy import ActivePolicy
from app.vending.telephony.lease import AWAITING_DELETION, LIVE, Lease
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.recover import LIST_LAG, Recovery

MIN_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=10)
"""An unconfirmed deletion is retried after MIN_RETRY_DELAY, doubling up to MAX_RETRY_DELAY."""

LATE_CREATE = timedelta(minutes=2)
"""How long after its start a create with a lost response may still take effect at Telnyx. Longer than any timeout of a
call. Until then, a credential that is not found by its name does not count as absent."""

DELETE_CONCURRENCY = 8
"""Deletions in flight per request to log out everywhere, and per sweeper."""


class DeletionOutcome(Enum):
    """Outcome of deleting a credential."""

    CONFIRMED = auto()
    """The credential is gone at Telnyx."""
    POSTPONED = auto()
    """Telnyx did not confirm, or a duplicate may still appear: to be retried."""
    NOT_TRIED = auto()
    """Telnyx could not be called; the next deletion would fail in the same way."""


class RevokeLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def unfinished(self, user_key: UserKey) -> list[Lease]:
        """The user's leases for which a credential may exist: PENDING, ACTIVE, REVOKING."""

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class Revoker:
    """Ends leases on request, and deletes their credentials at Telnyx."""

    def __init__(
        self,
        policy: ActivePolicy,
        ledger: RevokeLedger,
        recovery: Recovery,
        login_cache: LoginCache,
        not_before: NotBeforeRegistry,
        binding: DeviceBinding,
        audit: Audit,
        clock: Callable[[], datetime],
        wake_sweeper: Callable[[], None],
    ) -> None:
        self._audit = audit
        self._policy = policy
        self._ledger = ledger
        self._recovery = recovery
        self._login_cache = login_cache
        self._not_before = not_before
        self._binding = binding
        self._clock = clock
        self._wake_sweeper = wake_sweeper

    async def revoke(self, principal: Principal, lease_id: str) -> bool:
        """Log one device out. Returns whether Telnyx has confirmed; if not, the sweeper retries. Idempotent."""
        self._policy.authorize(principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.user_key != principal.user_key:
            raise LeaseNotFound
        await self._binding.check(principal, lease.device_id)
        return await self.end(lease, "asked_by_user")

    async def revoke_all(self, principal: Principal) -> bool:
        """Log the user out everywhere. Returns whether Telnyx has confirmed every deletion."""
        self._policy.authorize_all_devices(principal)
        semaphore = asyncio.Semaphore(DELETE_CONCURRENCY)

        async def one(lease: Lease) -> bool:
            async with semaphore:
                return await self.end(lease, "asked_by_user")

        leases = await self._ledger.unfinished(principal.user_key)
        return all(await asyncio.gather(*(one(lease) for lease in leases)))

    async def on_ended_by_policy(self, leases: Iterable[Lease], reason: str) -> None:
        """Complete the end of leases that were committed as REVOKING: at the device limit, or too old.

        The sweeper deletes the credentials at Telnyx, so that the device with a new one does not wait for that. It
        finds the credential of a lost create by its name.
        """
        ended = list(leases)
        self.on_leases_ended(ended)
        decisions = (
            Decision.about_lease(lease, AuditAction.REVOKED, reason, AuditOutcome.UNCONFIRMED) for lease in ended
        )
        # Together, because all were made: if a required audit fails for one, the others are queued too.
        await asyncio.gather(*map(self._audit.record, decisions))

    async def log_out(self, logout: LogoutClaims) -> None:
        """Apply an identity provider's logout: end the leases of the session or user, and reject earlier tokens.

        Returns once that is committed; the sweeper deletes at Telnyx. Raises LogoutTokenRejected for a reused token.
        """
        ended = await self._not_before.log_out(logout, self._clock())
        self.on_leases_ended(ended)
        user_key = None if logout.subject is None else UserKey(logout.issuer, logout.subject)
        details: dict[str, str | int] = {"issuer": logout.issuer, "leases": len(ended)}
        outcome = AuditOutcome.UNCONFIRMED if ended else AuditOutcome.DONE
        await self._audit.record(Decision(AuditAction.REVOKED, outcome, "identity_provider", user_key, details=details))

    def on_leases_ended(self, leases: Iterable[Lease]) -> None:
        """Remove the cached logins of leases that were committed as ended, and wake the sweeper to delete at Telnyx."""
        now = self._clock()
        for lease in leases:
            self._login_cache.update(lease, now)
        self._wake_sweeper()

    async def end(self, lease: Lease, reason: str) -> bool:
        """Log a device out without checking the caller. Returns whether Telnyx has confirmed."""
        ended = await self._end(lease)
        if lease.state not in LIVE:
            return await self._ensure_deleted(ended)
        try:
            is_gone = await self._ensure_deleted(ended)
        except BaseException:  # also a cancellation: the device is logged out, and a repeated call records nothing
            self._audit.record_nowait(
                Decision.about_lease(lease, AuditAction.REVOKED, reason, AuditOutcome.UNCONFIRMED)
            )
            raise
        outcome = AuditOutcome.DONE if is_gone else AuditOutcome.UNCONFIRMED
        await self._audit.record(Decision.about_lease(lease, AuditAction.REVOKED, reason, outcome))
        return is_gone

    async def _end(self, lease: Lease) -> Lease:
        """The lease after its end, which may be another writer's."""
        while lease.state in LIVE:
            try:
                lease = await self._ledger.advance(lease, lease.start_revoking(self._clock()))
            except LeaseConflict:
                moved = await self._ledger.find(lease.id)
                if moved is None:
                    raise LeaseNotFound from None
                lease = moved
        self._login_cache.update(lease, self._clock())
        return lease

    async def _ensure_deleted(self, lease: Lease) -> bool:
        """Delete an ended lease's credential. Returns whether Telnyx has confirmed."""
        if lease.state not in AWAITING_DELETION:
            return True
        try:
            return await self._finish(lease)
        except LeaseConflict:
            return False  # a sweeper has claimed it

    async def _finish(self, lease: Lease) -> bool:
        """Delete an ended lease's credential. Returns whether Telnyx has confirmed. Raises LeaseConflict."""
        now = self._clock()
        # The next attempt is committed before Telnyx is called, so that no sweeper does the same work meanwhile.
        lease = await self._ledger.advance(lease, lease.schedule_retry(now, next_try(lease, now)))
        return await self.delete_credential(lease) is DeletionOutcome.CONFIRMED

    async def delete_credential(self, lease: Lease) -> DeletionOutcome:
        """Delete the credential, and any duplicates, of an ended lease that the caller has claimed."""
        try:
            if lease.credential_id is not None:
                await self._recovery.delete(lease.credential_id)
            namesakes = [] if lease.attempted_at is None else await self._recovery.find_all(lease)
            for namesake in namesakes:
                await self._recovery.delete(namesake.id)
        except (TelnyxRateLimited, TelnyxUnreachable) as error:
            if error.may_have_happened:
                return DeletionOutcome.POSTPONED
            await self._write(lease, lease.retry_without_counting(self._clock(), self._clock() + MIN_RETRY_DELAY))
            return DeletionOutcome.NOT_TRIED
        except TelnyxError:
            return DeletionOutcome.POSTPONED
        wait = LIST_LAG if namesakes or lease.credential_id is not None else LATE_CREATE
        if lease.attempted_at is not None and self._clock() < lease.attempted_at + wait:
            return DeletionOutcome.POSTPONED  # a create may still be in flight: retry later
        return (
            DeletionOutcome.CONFIRMED
            if await self._write(lease, lease.mark_deleted(self._clock()))
            else DeletionOutcome.POSTPONED
        )

    async def _write(self, before: Lease, after: Lease) -> bool:
        """Returns whether the row was still unchanged. If not, the writer that changed it continues the work."""
        try:
            await self._ledger.advance(before, after)
        except LeaseConflict:
            return False
        return True


def next_try(lease: Lease, now: datetime) -> datetime:
    """When a deletion that is tried now may be retried, unless it is confirmed."""
    delay: timedelta = MIN_RETRY_DELAY * 2 ** min(lease.attempts, 10)
    planned = now + min(delay, MAX_RETRY_DELAY)
    if lease.attempted_at is None or now >= lease.attempted_at + LATE_CREATE:
        return planned
    # The credential of a lost create may still appear. Each logout counts as an attempt, but must not postpone this.
    return min(planned, max(lease.attempted_at + LATE_CREATE, now + MIN_RETRY_DELAY))
