"""Reconciling: compares this namespace's credentials at Telnyx with the ledger. One without a lease is an orphan.

Credentials with names outside the namespace are never touched. Young credentials are skipped, because their row may not
be written yet. Orphans are deleted only on request, because after the loss of a ledger every credential would be one.
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
"""Younger credentials are never orphans. Longer than any create and its recovery take."""

DELETE_BATCH_SIZE = 1000
"""Orphans deleted in one run; the next run continues."""


class ReconcilerLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def is_empty(self) -> bool:
        """Whether no user ever had a lease."""


class ReconcilerTelnyx(Protocol):
    def list(self, *, connection_id: str) -> AsyncIterator[Credential]:
        """Every credential of the connection, over all pages."""

    async def delete(self, credential_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Orphan:
    """A credential of this namespace without a lease."""

    credential_id: str
    name: str
    connection_id: str
    created_at: datetime | None
    why: str


@dataclass(slots=True)
class Reconciliation:
    """Outcome of one run."""

    walked: int = 0
    foreign: int = 0
    young: int = 0
    orphans: list[Orphan] = field(default_factory=list)
    deleted: int = 0


class Reconciler:
    """Compares all credentials of every connection in use with the ledger."""

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
        """Number of orphans left after the last run."""

    async def reconcile(self, *, deletes: bool = False, force: bool = False) -> Reconciliation:
        """Find orphans and, if `deletes`, delete them. Raises TelnyxErrors and LedgerUnavailable.

        Raises LedgerMismatch instead of deleting if the ledger has never had a lease of a user, unless `force`.
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
            # Checked again, because the listing may have taken minutes.
            lease = await self._ledger.find(self._naming.lease_id(orphan.name) or "")
            if lease is not None and lease.state in LIVE and lease.credential_id in (None, orphan.credential_id):
                continue
            with suppress(TelnyxNotFound):
                await self._telnyx.delete(orphan.credential_id)
            outcome.deleted += 1
            details = {"credential": orphan.name, "why": orphan.why}
            self._audit.record_nowait(Decision(AuditAction.SWEPT, reason="orphan", details=details))


def _why_orphan(lease: Lease | None, credential: Credential) -> str | None:
    """Why the credential is an orphan; None if its lease uses it, may still adopt it or will have it swept."""
    if lease is None:
        return "no lease of that name"
    if lease.state in AWAITING_DELETION or (lease.state is LeaseState.PENDING and lease.credential_id is None):
        return None
    if lease.state in (*LIVE, LeaseState.POOLED):
        return None if lease.credential_id == credential.id else "its lease has another credential"
    return f"its lease is {lease.state}"
