"""When each device last got a login: noted in memory, and written to the ledger in batches."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from app.vending.telephony.lease import Lease

BATCH_SIZE = 500
"""Leases per transaction: a few milliseconds of SQLite's only writer."""

MAX_NOTED = 200_000
"""Leases noted between two writes, about 40 MB. Further ones are not noted, for instance in a long outage."""


class LastUseLedger(Protocol):
    async def set_last_used(self, uses: Sequence[tuple[str, datetime]]) -> None:
        """Write the times by lease id, in this order. A later time in the ledger is kept. Raises LedgerUnavailable."""


class LastUses:
    """The uses that are not yet in the ledger."""

    def __init__(self, ledger: LastUseLedger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._noted: dict[str, datetime] = {}

    def note(self, lease_id: str) -> None:
        """Record that the lease's device got a login now. Only in memory, because it is called for every login."""
        if len(self._noted) < MAX_NOTED:
            self._noted[lease_id] = self._clock()

    def last_use(self, lease: Lease) -> datetime:
        """The latest known use. A lease without one was last used when its row was last written."""
        known = lease.last_used_at or lease.updated_at
        return max(known, self._noted.get(lease.id, known))

    async def flush(self) -> None:
        """Write what was noted. Raises LedgerUnavailable; the next call then writes the rest.

        A use counts from memory until it is in the ledger, because a device may be evicted meanwhile.
        """
        # All updates of several leases lock rows in the order of their ids. Otherwise two of them could deadlock.
        ordered = sorted(self._noted.items())
        for start in range(0, len(ordered), BATCH_SIZE):
            written = ordered[start : start + BATCH_SIZE]
            await self._ledger.set_last_used(written)
            for lease_id, at in written:
                if self._noted.get(lease_id) == at:
                    del self._noted[lease_id]
