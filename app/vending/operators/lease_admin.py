"""Overseeing: what operators and the voice backend may see and end of everybody's leases.

Who may is decided before (`PolicyInForce.admit_operator`, or a shell on the machine). Nothing here touches a secret.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import Action, Activity, Audit, AuditCriteria, AuditEvent, Decision, Outcome
from app.vending.errors import LeaseNotFound, NotConfirmed
from app.vending.models import Owner, Platform
from app.vending.telephony.lease import Lease, State
from app.vending.telephony.revoke import Revoker

ENDED_AT_ONCE = 500
"""Leases ended in one transaction."""

ENDED_A_CALL = 5_000
"""Leases ended before the caller is answered: a few seconds' work."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which leases; what is None does not matter. Of nobody's pool none is ever shown or ended."""

    issuer: str | None = None
    subject: str | None = None
    device_id: str | None = None
    platform: Platform | None = None
    state: State | None = None
    connection_id: str | None = None
    sip_username: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How many leases were ended, and whether there were no more: else ask again."""

    count: int
    is_all: bool


class Ledger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def unfinished(self, owner: Owner) -> list[Lease]: ...


class Search(Protocol):
    async def matching(self, criteria: Criteria, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        """Newest first, from behind `after` = (created_at, id) on."""

    async def end_matching(
        self, criteria: Criteria, made_until: datetime, after_id: str, now: datetime, limit: int
    ) -> list[Lease]:
        """Make live leases REVOKING, so many at most from behind that id on, in one transaction: as they are now."""

    async def census(self) -> dict[str, int]:
        """How many leases are pending, active and pooled."""


class AuditTrail(Protocol):
    async def matching(
        self, criteria: AuditCriteria, after: tuple[datetime, str] | None, limit: int
    ) -> list[AuditEvent]:
        """Newest first, from behind `after` = (at, id) on."""

    async def activity(self, since: datetime) -> list[Activity]: ...


class Oversight:
    """Everybody's leases, and what was decided about them."""

    def __init__(
        self,
        ledger: Ledger,
        search: Search,
        revoker: Revoker,
        trail: AuditTrail,
        audit: Audit,
        clock: Callable[[], datetime],
        namespace: str,
    ) -> None:
        self.namespace = namespace
        self._ledger = ledger
        self._search = search
        self._revoker = revoker
        self._trail = trail
        self.live: dict[str, int] = {}
        """Leases by state, at the last count."""
        self._audit = audit
        self._clock = clock

    async def count(self) -> None:
        self.live = await self._search.census()

    async def page(self, criteria: Criteria, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        return await self._search.matching(criteria, after, limit)

    async def show(self, lease_id: str) -> Lease:
        """Raises LeaseNotFound."""
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.is_nobodys:
            raise LeaseNotFound
        return lease

    async def revoke(self, lease_id: str) -> bool:
        """Log one device out. Whether Telnyx has confirmed. Raises LeaseNotFound."""
        return await self._revoker.end(await self.show(lease_id), "asked_by_operator")

    def check_confirmed(self, word: str | None) -> None:
        """Raises NotConfirmed unless it is the deployment's namespace: nobody types that in the wrong window."""
        if word != self.namespace:
            raise NotConfirmed

    async def revoke_matching(self, criteria: Criteria) -> Ended:
        """Log all of them out. Done when it is written down: the sweeper deletes at Telnyx.

        Whoever comes back meanwhile was let in again: refuse their tokens first.
        """
        ended = await self._end_matching(criteria)
        owner = Owner(criteria.issuer, criteria.subject) if criteria.issuer and criteria.subject else None
        which = {name: str(value) for name, value in asdict(criteria).items() if value is not None}
        details: dict[str, str | int] = {**which, "leases": ended.count}
        outcome = Outcome.UNCONFIRMED if ended.count else Outcome.DONE
        await self._audit.record(Decision(Action.REVOKED, outcome, "asked_by_operator", owner, details=details))
        return ended

    async def audit(self, criteria: AuditCriteria, after: tuple[datetime, str] | None, limit: int) -> list[AuditEvent]:
        """What was decided, newest first."""
        return await self._trail.matching(criteria, after, limit)

    async def activity(self, span: timedelta) -> list[Activity]:
        """How much was decided, minute by minute."""
        return await self._trail.activity(self._clock() - span)

    async def _end_matching(self, criteria: Criteria) -> Ended:
        count, began, last_id = 0, self._clock(), ""
        while count < ENDED_A_CALL:
            ended = await self._search.end_matching(criteria, began, last_id, self._clock(), ENDED_AT_ONCE)
            self._revoker.has_ended(ended)
            count += len(ended)
            if len(ended) < ENDED_AT_ONCE:
                return Ended(count, is_all=True)
            last_id = ended[-1].id
        return Ended(count, is_all=False)

    async def dialable(self, owner: Owner) -> list[Lease]:
        """The user's leases that a call reaches now, the latest first."""
        now = self._clock()
        leases = [
            lease
            for lease in await self._ledger.unfinished(owner)
            if lease.state is State.ACTIVE and not lease.has_expired(now) and lease.usable_at <= now
        ]
        return sorted(leases, key=lambda lease: (lease.created_at, lease.id), reverse=True)

    async def behind(self, sip_username: str) -> Lease:
        """The lease that a SIP username belongs or belonged to. Raises LeaseNotFound."""
        found = await self._search.matching(Criteria(sip_username=sip_username), None, 1)
        if not found:
            raise LeaseNotFound
        return found[0]
