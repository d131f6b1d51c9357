"""Revoking: a device is logged out. Written down first, then deleted at Telnyx until Telnyx confirms."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from app.vending.audit import Audit, AuditAction, AuditOutcome, Decision
from app.vending.errors import LeaseConflict, LeaseNotFound, TelnyxError, TelnyxRateLimited, TelnyxUnreachable
from app.vending.models import Principal, UserKey
from app.vending.not_before import LogoutClaims, NotBeforeRegistry
from app.vending.policy import ActivePolicy
from app.vending.telephony.lease import AWAITING_DELETION, LIVE, Lease, LeaseState
from app.vending.telephony.login_cache import LoginCache
from app.vending.telephony.recover import LIST_LAG, Recovery

MIN_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=10)
"""A deletion that Telnyx does not confirm is tried again after FIRST_RETRY, doubling up to LAST_RETRY."""

DELETE_CONCURRENCY = 8
"""Deletions in flight for one "log me out everywhere", and for one sweeper."""


class DeletionOutcome(Enum):
    """How far the deletion of a credential came."""

    CONFIRMED = auto()
    """It is gone."""
    POSTPONED = auto()
    """Telnyx did not confirm it, or a sibling may still turn up: to be tried again."""
    NOT_TRIED = auto()
    """Telnyx could not be asked at all; the next one's turn would be no better."""


class RevokeLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def unfinished(self, user_key: UserKey) -> list[Lease]:
        """The user's leases that a credential may exist for: PENDING, ACTIVE, REVOKING."""

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class Revoker:
    """Ends leases by request, and sees a deletion through as far as Telnyx lets it."""

    def __init__(
        self,
        policy: ActivePolicy,
        ledger: RevokeLedger,
        recovery: Recovery,
        login_cache: LoginCache,
        marks: NotBeforeRegistry,
        audit: Audit,
        clock: Callable[[], datetime],
        wake_sweeper: Callable[[], None],
    ) -> None:
        self._audit = audit
        self._policy = policy
        self._ledger = ledger
        self._recovery = recovery
        self._login_cache = login_cache
        self._marks = marks
        self._clock = clock
        self._wake_sweeper = wake_sweeper

    async def revoke(self, principal: Principal, lease_id: str) -> bool:
        """Log one device out. Whether Telnyx has confirmed; if not, the sweeper goes on. Revoking twice is no error."""
        self._policy.authorize(principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.user_key != principal.user_key:
            raise LeaseNotFound
        return await self.end(lease, "asked_by_user")

    async def revoke_all(self, principal: Principal) -> bool:
        """Log the user out everywhere. Whether Telnyx has confirmed every one."""
        self._policy.authorize(principal)
        gate = asyncio.Semaphore(DELETE_CONCURRENCY)

        async def one(lease: Lease) -> bool:
            async with gate:
                return await self.end(lease, "asked_by_user")

        leases = await self._ledger.unfinished(principal.user_key)
        return all(await asyncio.gather(*(one(lease) for lease in leases)))

    async def evict_oldest(self, user_key: UserKey) -> bool:
        """Make room at the device limit. Whether there is some; False where every device is only being made.

        The oldest is the one issued or renewed the longest time ago. The sweeper deletes it at Telnyx, so that the new
        device does not wait for that.
        """
        active = [lease for lease in await self._ledger.unfinished(user_key) if lease.state is LeaseState.ACTIVE]
        if not active:
            return False
        oldest = min(active, key=lambda lease: (lease.updated_at, lease.id))
        now = self._clock()
        try:
            self._login_cache.invalidate(await self._ledger.advance(oldest, oldest.start_revoking(now)), now)
        except LeaseConflict:
            return True  # somebody did something with it: look afresh
        self._wake_sweeper()
        await self._audit.record(
            Decision.about_lease(oldest, AuditAction.REVOKED, "device_limit", AuditOutcome.UNCONFIRMED)
        )
        return True

    async def log_out(self, logout: LogoutClaims) -> None:
        """The identity provider ended a session, or all of a user's: devices end, earlier tokens are refused.

        Done when it is written down; the sweeper deletes at Telnyx. Raises LogoutTokenRejected for a token used before.
        """
        ended = await self._marks.log_out(logout, self._clock())
        self.on_leases_ended(ended)
        user_key = None if logout.subject is None else UserKey(logout.issuer, logout.subject)
        details: dict[str, str | int] = {"issuer": logout.issuer, "leases": len(ended)}
        outcome = AuditOutcome.UNCONFIRMED if ended else AuditOutcome.DONE
        await self._audit.record(Decision(AuditAction.REVOKED, outcome, "identity_provider", user_key, details=details))

    def on_leases_ended(self, leases: Iterable[Lease]) -> None:
        """They were written down as ended: forget their logins here, and have the sweeper delete them at Telnyx."""
        now = self._clock()
        for lease in leases:
            self._login_cache.invalidate(lease, now)
        self._wake_sweeper()

    async def end(self, lease: Lease, reason: str) -> bool:
        """Log a device out, whoever asks. Whether Telnyx has confirmed."""
        was_live = lease.state in LIVE
        is_gone = await self._end(lease)
        if was_live:
            outcome = AuditOutcome.DONE if is_gone else AuditOutcome.UNCONFIRMED
            await self._audit.record(Decision.about_lease(lease, AuditAction.REVOKED, reason, outcome))
        return is_gone

    async def _end(self, lease: Lease) -> bool:
        while lease.state in LIVE:
            try:
                lease = await self._ledger.advance(lease, lease.start_revoking(self._clock()))
            except LeaseConflict:
                moved = await self._ledger.find(lease.id)
                if moved is None:
                    raise LeaseNotFound from None
                lease = moved
        self._login_cache.invalidate(lease, self._clock())
        if lease.state not in AWAITING_DELETION:
            return True
        try:
            return await self._finish(lease)
        except LeaseConflict:
            return False  # a sweeper is at it

    async def _finish(self, lease: Lease) -> bool:
        """Delete an ended lease's credential. Whether it is certainly gone. Raises LeaseConflict."""
        now = self._clock()
        # The next try is written down before Telnyx is asked: it keeps sweepers from the same work meanwhile.
        lease = await self._ledger.advance(lease, lease.schedule_retry(now, next_try(lease, now)))
        return await self.delete_credential(lease) is DeletionOutcome.CONFIRMED

    async def delete_credential(self, lease: Lease) -> DeletionOutcome:
        """Delete the credential of an ended lease that the caller has taken, as far as Telnyx lets it."""
        try:
            if lease.credential_id is not None:
                await self._recovery.delete(lease.credential_id)
            for namesake in await self._recovery.find_all(lease) if lease.attempted_at is not None else ():
                await self._recovery.delete(namesake.id)
        except (TelnyxRateLimited, TelnyxUnreachable) as error:
            if error.may_have_happened:
                return DeletionOutcome.POSTPONED
            await self._write(lease, lease.retry_without_counting(self._clock(), self._clock() + MIN_RETRY_DELAY))
            return DeletionOutcome.NOT_TRIED
        except TelnyxError:
            return DeletionOutcome.POSTPONED
        if lease.attempted_at is not None and self._clock() < lease.attempted_at + LIST_LAG:
            return DeletionOutcome.POSTPONED  # a create may still be on its way: look again
        return (
            DeletionOutcome.CONFIRMED
            if await self._write(lease, lease.mark_deleted(self._clock()))
            else DeletionOutcome.POSTPONED
        )

    async def _write(self, before: Lease, after: Lease) -> bool:
        """Whether the row still was as it was taken. If not, whoever took it after us goes on with it."""
        try:
            await self._ledger.advance(before, after)
        except LeaseConflict:
            return False
        return True


def next_try(lease: Lease, now: datetime) -> datetime:
    """When a deletion that is tried now may be tried again, unless it is confirmed."""
    delay: timedelta = MIN_RETRY_DELAY * 2 ** min(lease.attempts, 10)
    return now + min(delay, MAX_RETRY_DELAY)
