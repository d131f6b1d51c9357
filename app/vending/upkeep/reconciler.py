"""Reconciling: what Telnyx holds under our names is compared with the ledger; what no row stands for is an orphan.

Names outside the namespace are somebody else's and never touched. Young objects are left alone: their row may be on its
way. Orphans are reported, and deleted only when told to: a ledger that was lost would make orphans of everything.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.errors import LedgerMismatch, TelnyxNotFound
from app.vending.models import Credential
from app.vending.telephony.lease import AWAITING_DELETION, LIVE, Lease, LeaseState
from app.vending.telephony.naming import Naming

MIN_ORPHAN_AGE = timedelta(hours=1)
"""Younger objects at Telnyx are never orphans. Longer than any create and its recovery take."""

DELETE_BATCH_SIZE = 1000
"""In one run; the next one goes on."""


class ReconcilerLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def is_empty(self) -> bool:
        """Whether no lease was ever written."""


class ReconcilerTelnyx(Protocol):
    def list(self, *, connection_id: str) -> AsyncIterator[Credential]:
        """Every credential of the connection, over all pages."""

    async def delete(self, credential_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Orphan:
    """A credential of our naming that no row stands for."""

    credential_id: str
    name: str
    connection_id: str
    created_at: datetime | None
    why: str


@dataclass(slots=True)
class Reconciliation:
    """The outcome of one walk."""

    walked: int = 0
    foreign: int = 0
    young: int = 0
    orphans: list[Orphan] = field(default_factory=list)
    deleted: int = 0


class Reconciler:
    """Walks the whole list of every connection in use."""

    def __init__(
        self,
        ledger: ReconcilerLedger,
        telnyx: ReconcilerTelnyx,
        naming: Naming,
        connections: Callable[[], Iterable[str]],
        audit: Audit,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._telnyx = telnyx
        self._naming = naming
        self._connections = connections
        self._audit = audit
        self._clock = clock
        self.orphans = 0
        """How many there were at the end of the last walk."""

    async def reconcile(self, *, deletes: bool = False, force: bool = False) -> Reconciliation:
        """Find orphans and, if told to, delete them. Raises TelnyxErrors and LedgerUnavailable.

        Raises LedgerMismatch rather than delete by a ledger that never held a lease, unless `is_sure`.
        """
        outcome = Reconciliation()
        for connection_id in sorted(self._connections()):
            async for credential in self._telnyx.list(connection_id=connection_id):
                outcome.walked += 1
                await self._judge(credential, connection_id, outcome)
        self.orphans = len(outcome.orphans)
        if deletes and outcome.orphans:
            if not force and await self._ledger.is_empty():
                raise LedgerMismatch
            await self._delete(outcome)
            self.orphans -= outcome.deleted
        return outcome

    async def _judge(self, credential: Credential, connection_id: str, outcome: Reconciliation) -> None:
        lease_id = self._naming.lease_id(credential.name)
        if lease_id is None:
            outcome.foreign += 1
            return
        if credential.created_at is None or credential.created_at > self._clock() - MIN_ORPHAN_AGE:
            outcome.young += 1
            return
        why = _why_orphan(await self._ledger.find(lease_id), credential)
        if why is not None:
            outcome.orphans.append(Orphan(credential.id, credential.name, connection_id, credential.created_at, why))

    async def _delete(self, outcome: Reconciliation) -> None:
        for orphan in outcome.orphans[:DELETE_BATCH_SIZE]:
            # Looked at once more: the walk may have taken minutes.
            lease = await self._ledger.find(self._naming.lease_id(orphan.name) or "")
            if lease is not None and lease.state in LIVE and lease.credential_id in (None, orphan.credential_id):
                continue
            with suppress(TelnyxNotFound):
                await self._telnyx.delete(orphan.credential_id)
            outcome.deleted += 1
            details = {"credential": orphan.name, "why": orphan.why}
            self._audit.record_nowait(Decision(AuditAction.SWEPT, reason="orphan", details=details))


def _why_orphan(lease: Lease | None, credential: Credential) -> str | None:
    """Why nobody stands for it; None if somebody does, or if the sweeper is at it already."""
    if lease is None:
        return "no lease of that name"
    if lease.state in AWAITING_DELETION or (lease.state is LeaseState.PENDING and lease.credential_id is None):
        return None
    if lease.state in (*LIVE, LeaseState.POOLED):
        return None if lease.credential_id == credential.id else "its lease has another credential"
    return f"its lease is {lease.state}"
