"""Erasing a user: logins end, push registrations are removed, and a pseudonym replaces the user in the audit.

The caller checks access first (`ActivePolicy.authorize_operator`, or a shell on the machine). Each step is committed
separately and finds what is left to do, so an erasure that was interrupted is completed by repeating it.

Not-before entries stay. They name the user, but without them a stolen access token would be accepted again.
"""

import asyncio
import copy
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.vending.audit import Audit, AuditAction, AuditOutcome, Decision
from app.vending.models import UserKey
from app.vending.operators.lease_admin import REVOKE_BATCH_SIZE, LeaseCriteria
from app.vending.pseudonyms import ErasedUser
from app.vending.push.models import PushRegistration, RegisteredPush
from app.vending.telephony.lease import Lease
from app.vending.telephony.revoke import Revoker
from app.vending.visibility import ALL_ISSUERS, Visibility

MAX_EVENTS_PER_CALL = 5_000
"""Audit events that one call pseudonymizes: a few seconds' work."""


LOCKED_SECONDS = 0.05
"""How soon rows that another erasure is changing are checked again."""


@dataclass(frozen=True, slots=True)
class ErasureCounts:
    """Number of rows about a user, or of the rows that an erasure changed."""

    leases: int = 0
    credentials: int = 0
    """Leases of which a credential exists, or may exist, at Telnyx."""
    push_registrations: int = 0
    audit_events: int = 0
    """Events about the user, and events with the user as the actor."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Outcome of a call."""

    counts: ErasureCounts
    pseudonym: str
    is_complete: bool
    """False if audit events are left: the caller repeats the call."""
    unconfirmed: int
    """Credentials whose deletion Telnyx has not confirmed yet. The sweeper retries."""


class ErasureLedger(Protocol):
    """The part of the ledger that an erasure needs. Every method raises LedgerUnavailable."""

    async def count(self, user_key: UserKey) -> ErasureCounts: ...

    async def record(self, user_key: UserKey, erased_before: datetime, now: datetime) -> ErasedUser:
        """Record the erasure, by hash, for all replicas. A user that was erased before keeps the pseudonym.

        From then on, events from before `erased_before` are stored with the pseudonym.
        """

    async def pseudonymize_leases(self, erased: ErasedUser) -> int:
        """Change one batch of ended leases. Returns their number."""

    async def has_leases(self, erased: ErasedUser) -> bool:
        """Whether ended leases are left."""

    async def wait_for_audit_writers(self) -> None:
        """Return when the next `pseudonymize_events` sees all events that are stored without the pseudonym."""

    async def pseudonymize_events(self, erased: ErasedUser) -> int:
        """Change one batch of audit events. Returns their number."""

    async def has_events(self, erased: ErasedUser) -> bool:
        """Whether audit events are left."""

    async def pseudonymize_deliveries(self, erased: ErasedUser, now: datetime) -> int:
        """Change one batch of events for webhooks. Returns their number."""

    async def has_deliveries(self, erased: ErasedUser) -> bool:
        """Whether events for webhooks are left."""

    async def unconfirmed(self, erased: ErasedUser) -> int: ...


class EndLeases(Protocol):
    async def end_matching(
        self, criteria: LeaseCriteria, made_until: datetime, after_id: str, now: datetime, limit: int
    ) -> list[Lease]: ...


class ErasurePush(Protocol):
    async def registrations(self, user_key: UserKey) -> list[RegisteredPush]: ...

    async def deregister(self, registration: PushRegistration, now: datetime) -> None: ...


class UserEraser:
    """Erases users from the ledger and at Telnyx."""

    def __init__(
        self,
        ledger: ErasureLedger,
        leases: EndLeases,
        push: ErasurePush,
        revoker: Revoker,
        audit: Audit,
        clock: Callable[[], datetime],
        wake_push_sweeper: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._push = push
        self._revoker = revoker
        self._audit = audit
        self._clock = clock
        self._wake_push_sweeper = wake_push_sweeper
        self.visibility = ALL_ISSUERS

    def visible_to(self, visibility: Visibility) -> "UserEraser":
        """The eraser of an operator. For users of other issuers, it raises IssuerNotFound."""
        limited = copy.copy(self)
        limited.visibility = visibility
        return limited

    async def count(self, user_key: UserKey) -> ErasureCounts:
        """Count the rows that an erasure would change."""
        self.visibility.check_issuer(user_key.issuer)
        return await self._ledger.count(user_key)

    async def erase(self, user_key: UserKey, max_events: int = MAX_EVENTS_PER_CALL) -> Erasure:
        """Erase the data of the user up to now. Idempotent. Later data of the same user is that of a new user.

        Returns once that is committed; the sweepers delete credentials and unused push objects at Telnyx. Raises
        LedgerUnavailable: then a repeated call continues. The audit has the interrupted call, too.
        """
        erased_before, before = self._clock(), await self.count(user_key)
        alias = user_key
        try:
            await self._end_leases(user_key, erased_before)
            erased = await self._ledger.record(user_key, erased_before, self._clock())
            alias = erased.alias
            erasure = await self._pseudonymize(erased, before, max_events)
        except BaseException:  # also a cancellation
            self._audit.record_nowait(Decision(AuditAction.ADMIN_ACTION, AuditOutcome.FAILED, "user_erased", alias))
            raise
        await self._record(erased, erasure)
        return erasure

    async def unconfirmed(self, user_key: UserKey, pseudonym: str) -> int:
        """Number of an erased user's credentials whose deletion Telnyx has not confirmed yet."""
        return await self._ledger.unconfirmed(ErasedUser(user_key, pseudonym, self._clock()))

    async def _end_leases(self, user_key: UserKey, made_until: datetime) -> None:
        criteria, last_id = LeaseCriteria(user_key.issuer, user_key.subject), ""
        while ended := await self._leases.end_matching(criteria, made_until, last_id, self._clock(), REVOKE_BATCH_SIZE):
            self._revoker.on_leases_ended(ended)
            last_id = ended[-1].id

    async def _pseudonymize(self, erased: ErasedUser, before: ErasureCounts, max_events: int) -> Erasure:
        leases, _ = await _repeat(self._ledger.pseudonymize_leases, self._ledger.has_leases, erased, sys.maxsize)
        registrations = await self._remove_registrations(erased.user_key)
        await self._ledger.wait_for_audit_writers()
        events, is_complete = await _repeat(
            self._ledger.pseudonymize_events, self._ledger.has_events, erased, max_events
        )
        await _repeat(
            lambda user: self._ledger.pseudonymize_deliveries(user, self._clock()),
            self._ledger.has_deliveries,
            erased,
            sys.maxsize,
        )
        counts = ErasureCounts(leases, before.credentials, registrations, events)
        return Erasure(counts, erased.pseudonym, is_complete, await self._ledger.unconfirmed(erased))

    async def _remove_registrations(self, user_key: UserKey) -> int:
        """Remove the registrations. An object that another user registered or that a connection uses stays."""
        found = await self._push.registrations(user_key)
        for registered in found:
            await self._push.deregister(registered.registration, self._clock())
        if found:
            self._wake_push_sweeper()
        return len(found)

    async def _record(self, erased: ErasedUser, erasure: Erasure) -> None:
        """Record the erasure under the pseudonym."""
        is_done = erasure.is_complete and not erasure.unconfirmed
        details = {
            "leases": erasure.counts.leases,
            "push_registrations": erasure.counts.push_registrations,
            "audit_events": erasure.counts.audit_events,
        }
        outcome = AuditOutcome.DONE if is_done else AuditOutcome.UNCONFIRMED
        decision = Decision(AuditAction.ADMIN_ACTION, outcome, "user_erased", erased.alias, details=details)
        await self._audit.record(decision)


async def _repeat(
    change: Callable[[ErasedUser], Awaitable[int]],
    is_left: Callable[[ErasedUser], Awaitable[bool]],
    erased: ErasedUser,
    most: int,
) -> tuple[int, bool]:
    """Change batches until no row is left, or `most` were changed. Returns their number and whether no row is left."""
    count, loop = 0, asyncio.get_running_loop()
    while count < most:
        began = loop.time()
        batch = await change(erased)
        if not batch and not await is_left(erased):
            return count, True
        count += batch
        # Logins get the database for at least half of the time. Without a batch, another erasure has locked the rows.
        await asyncio.sleep(max(loop.time() - began, 0 if batch else LOCKED_SECONDS))
    return count, False
