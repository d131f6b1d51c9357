"""Lease administration: operators and the voice backend search and revoke the leases of all users.

The caller checks access first (`ActivePolicy.authorize_operator`, or a shell on the machine). Nothing here handles a
secret.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import ActivityCount, Audit, AuditAction, AuditCriteria, AuditEvent, AuditOutcome, Decision
from app.vending.errors import ConfirmationRequired, LeaseNotFound
from app.vending.models import Platform, UserKey
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.telephony.revoke import Revoker
from app.vending.visibility import ALL_ISSUERS, Visibility

REVOKE_BATCH_SIZE = 100
"""Leases ended in one transaction. With ten endpoints for events, it keeps SQLite's only writer for 0.1 seconds."""

MAX_REVOKED_PER_CALL = 5_000
"""Leases ended in one call: a few seconds' work."""

REPLICA_SKEW = timedelta(minutes=1)
"""Maximum difference between the clocks of two replicas. A mass revocation accepts later creation times up to it."""


@dataclass(frozen=True, slots=True)
class LeaseCriteria:
    """Filter for leases. None matches every value. Leases of the warm pool never match."""

    issuer: str | None = None
    subject: str | None = None
    device_id: str | None = None
    platform: Platform | None = None
    state: LeaseState | None = None
    connection_id: str | None = None
    sip_username: str | None = None
    id_prefix: str | None = None
    """The first characters of the id, in lower case."""
    visibility: Visibility = ALL_ISSUERS
    """Set by LeaseAdmin. The other fields are the caller's."""


@dataclass(frozen=True, slots=True)
class BulkRevocation:
    """Number of leases ended, and whether those were all; if not, the caller repeats the call."""

    count: int
    is_all: bool


class LeaseAdminLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def unfinished(self, user_key: UserKey) -> list[Lease]: ...


class LeaseSearch(Protocol):
    async def matching(self, criteria: LeaseCriteria, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        """Newest first, starting after `after` = (created_at, id)."""

    async def end_matching(
        self, criteria: LeaseCriteria, made_until: datetime, after_id: str, now: datetime, limit: int
    ) -> list[Lease]:
        """Set live leases to REVOKING in one transaction, and return them in that state, ordered by id.

        At most `limit` leases, created up to `made_until`, with an id after `after_id`.
        """

    async def census(self) -> dict[str, int]:
        """Number of pending, active and pooled leases, by state."""


class AuditReader(Protocol):
    async def matching(
        self, criteria: AuditCriteria, after: tuple[datetime, str] | None, limit: int
    ) -> list[AuditEvent]:
        """Newest first, starting after `after` = (at, id)."""

    async def activity(self, since: datetime) -> list[ActivityCount]: ...


class LeaseAdmin:
    """The leases of all users, and the audit; or those that one operator may see."""

    def __init__(
        self,
        ledger: LeaseAdminLedger,
        search: LeaseSearch,
        revoker: Revoker,
        audit_reader: AuditReader,
        audit: Audit,
        clock: Callable[[], datetime],
        namespace: str,
    ) -> None:
        self.namespace = namespace
        self._ledger = ledger
        self._search = search
        self._revoker = revoker
        self._audit_reader = audit_reader
        self.lease_counts: dict[str, int] = {}
        """Number of leases by state, as of the last count."""
        self._audit = audit
        self._clock = clock
        self.visibility = ALL_ISSUERS

    def visible_to(self, visibility: Visibility) -> "LeaseAdmin":
        """The leases and the audit that an operator may see. For other leases, each method raises LeaseNotFound."""
        limited = copy.copy(self)
        limited.visibility = visibility
        return limited

    async def refresh_counts(self) -> None:
        self.lease_counts = await self._search.census()

    async def ensure_counted(self) -> None:
        """Count the leases, unless a background task has done so."""
        if not self.lease_counts:
            await self.refresh_counts()

    async def search(self, criteria: LeaseCriteria, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        return await self._search.matching(self._limited(criteria), after, limit)

    async def get(self, lease_id: str) -> Lease:
        """Raises LeaseNotFound."""
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.is_unassigned or not self.visibility.includes(lease.issuer):
            raise LeaseNotFound
        return lease

    async def revoke(self, lease_id: str) -> bool:
        """Log one device out. Returns whether Telnyx has confirmed. Raises LeaseNotFound."""
        return await self._revoker.end(await self.get(lease_id), "asked_by_operator")

    def check_confirmed(self, word: str | None) -> None:
        """Raises ConfirmationRequired unless `word` is the deployment's namespace."""
        if word != self.namespace:
            raise ConfirmationRequired

    async def revoke_matching(self, criteria: LeaseCriteria) -> BulkRevocation:
        """Log all matching devices out. Returns once that is committed; the sweeper deletes at Telnyx.

        A device can log in again, and may be logged out again until the call ends. To prevent new logins, set a
        not-before for its tokens first. Raises IssuerNotFound if the criteria name an issuer that the operator may not
        see. After an interruption, by a failure or a shutdown, the audit has the leases that were ended before.
        """
        if criteria.issuer is not None:
            self.visibility.check_issuer(criteria.issuer)
        ended: Counter[str] = Counter()
        try:
            is_all = await self._end_matching(self._limited(criteria), ended)
        except BaseException:  # also a cancellation
            if ended:
                for decision in self._decisions(criteria, ended):
                    self._audit.record_nowait(decision)
            raise
        # At once, because all leases have ended: if a required audit fails for one event, the others are queued too.
        await asyncio.gather(*map(self._audit.record, self._decisions(criteria, ended)))
        return BulkRevocation(ended.total(), is_all)

    async def audit(self, criteria: AuditCriteria, after: tuple[datetime, str] | None, limit: int) -> list[AuditEvent]:
        """Audit events, newest first. A bound operator sees the events about visible issuers, and no other callers."""
        found = await self._audit_reader.matching(replace(criteria, visibility=self.visibility), after, limit)
        return [event.visible_to(self.visibility) for event in found]

    async def activity(self, span: timedelta) -> list[ActivityCount]:
        """Number of audit events per minute."""
        return await self._audit_reader.activity(self._clock() - span)

    def _limited(self, criteria: LeaseCriteria) -> LeaseCriteria:
        return replace(criteria, visibility=self.visibility)

    def _decisions(self, criteria: LeaseCriteria, ended: Counter[str]) -> list[Decision]:
        """One event for each issuer whose users were logged out, so that every operator of the issuer sees it.

        If no user was logged out, one event with the only issuer that the call concerns, or without an issuer.
        """
        visible = self.visibility.issuers or frozenset()
        named = criteria.issuer or (min(visible) if len(visible) == 1 else None)
        user_key = UserKey(criteria.issuer, criteria.subject) if criteria.issuer and criteria.subject else None
        names = [field.name for field in fields(criteria) if field.name not in ("issuer", "visibility")]
        given = {name: str(value) for name in names if (value := getattr(criteria, name)) is not None}
        counts: list[tuple[str | None, int]] = [*ended.items()] or [(named, 0)]
        return [
            Decision(
                AuditAction.REVOKED,
                AuditOutcome.UNCONFIRMED if leases else AuditOutcome.DONE,
                "asked_by_operator",
                user_key,
                details={**({} if issuer is None else {"issuer": issuer}), **given, "leases": leases},
            )
            for issuer, leases in counts
        ]

    async def _end_matching(self, criteria: LeaseCriteria, ended: Counter[str]) -> bool:
        """End matching leases, and count them by issuer in `ended`. Returns False if more match: the caller repeats."""
        made_until, last_id = self._clock() + REPLICA_SKEW, ""

        async def end_batch() -> list[Lease]:
            batch = await self._search.end_matching(criteria, made_until, last_id, self._clock(), REVOKE_BATCH_SIZE)
            self._revoker.on_leases_ended(batch)
            ended.update(lease.issuer for lease in batch)
            return batch

        while ended.total() < MAX_REVOKED_PER_CALL:
            running = asyncio.ensure_future(end_batch())
            try:
                batch = await asyncio.shield(running)
            finally:
                await asyncio.wait({running})  # after a cancellation: the batch may be about to be committed
            if len(batch) < REVOKE_BATCH_SIZE:
                return True
            last_id = batch[-1].id
        return False

    async def dialable(self, user_key: UserKey) -> list[Lease]:
        """The user's leases that a call can reach now, newest first."""
        if not self.visibility.includes(user_key.issuer):
            return []
        now = self._clock()
        leases = [
            lease
            for lease in await self._ledger.unfinished(user_key)
            if lease.state is LeaseState.ACTIVE and not lease.has_expired(now) and lease.usable_at <= now
        ]
        return sorted(leases, key=lambda lease: (lease.created_at, lease.id), reverse=True)

    async def get_by_sip_username(self, sip_username: str) -> Lease:
        """The current or former lease of a SIP username. Raises LeaseNotFound."""
        found = await self.search(LeaseCriteria(sip_username=sip_username), None, 1)
        if not found:
            raise LeaseNotFound
        return found[0]
