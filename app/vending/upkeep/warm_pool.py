"""The warm pool: credentials created ahead, so that a new device need not wait for propagation at Telnyx.

A new credential can log in after about five seconds. A pooled credential is old enough: it is claimed in the ledger,
gets its owner's tag and expiry at Telnyx, and works at once.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.errors import LeaseConflict, TelnyxError, TelnyxNotFound, TelnyxRejected
from app.vending.models import Credential, Platform, UserKey
from app.vending.replica import Replica
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.upkeep.warm_pool_size import LONGER, RECENT, NewDevices, target_size

POOLED_LIFETIME = timedelta(days=7)
"""Lifetime of a pooled credential at Telnyx, until its owner's lifetime replaces it."""

MIN_REMAINING = timedelta(days=1)
"""A pooled credential with less than this left is discarded: it might expire while it is being assigned."""

SURPLUS_KEPT = timedelta(hours=1)
"""A surplus credential of a pool that sizes itself is kept for this long, because the rate may rise again."""

TARGETS_KEPT = timedelta(seconds=5)
"""How long a computed target is used. Under load, the pool is refilled many times in a second."""

MIN_PAUSE = timedelta(seconds=5)
MAX_PAUSE = timedelta(minutes=10)
"""After a failed create, none is tried for MIN_PAUSE, doubling up to MAX_PAUSE: Telnyx may reject them for hours."""

CREATE_BATCH_SIZE = 10
MAX_EXAMINED = 2000

UNASSIGNED = UserKey("", "")
"""Owner of a pooled lease. No token has an empty issuer."""


class WarmPoolLedger(Protocol):
    async def pooled(self, limit: int) -> list[Lease]:
        """Leases without a user, oldest first: POOLED ones, and PENDING ones that are being created for the pool."""

    async def open_pooled(self, lease: Lease, max_pooled: int) -> bool:
        """Insert the lease unless the pool of its connection has `max_pooled` leases. Returns whether it was inserted.

        So several replicas that refill the pool at the same time do not exceed its size.
        """

    async def new_devices(self, connection_id: str, recent: datetime, longer: datetime) -> NewDevices:
        """Number of devices that got a lease on the connection since each of the two times."""

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class WarmPoolTelnyx(Protocol):
    async def create(self, *, connection_id: str, name: str, tag: str, expires_at: datetime) -> Credential: ...


class WarmPool:
    """Keeps ready credentials for each connection. Every replica refills the pool; surplus is discarded."""

    def __init__(
        self,
        *,
        size: int | None,
        connections: Callable[[], Iterable[str]],
        ledger: WarmPoolLedger,
        telnyx: WarmPoolTelnyx,
        replica: Replica,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        """`size` is the number of credentials for each connection; 0: no pool; None: it depends on the demand."""
        self.size = size
        self._connections = connections
        self._ledger = ledger
        self._telnyx = telnyx
        self._naming = replica.naming
        self._timing = replica.timing
        self._replica = replica.id
        self._clock = clock
        self._new_id = new_id
        self._refill_lock = asyncio.Lock()
        self.ready: dict[str, int] = {}
        """Number of ready credentials by connection, as of the last refill or count."""
        self.targets: dict[str, int] = {}
        """Number of credentials by connection that the pool should have. Empty if there is no pool."""
        self._targets_until: datetime | None = None
        self._failures = 0
        self._paused_until: datetime | None = None

    async def refill(self) -> None:
        """Discard stale and surplus credentials, create missing ones. Raises LedgerUnavailable and TelnyxErrors."""
        async with self._refill_lock:
            await self._refill()

    async def count(self) -> None:
        """Count the ready credentials by connection in the ledger. Raises LedgerUnavailable."""
        now = self._clock()
        found = dict.fromkeys(sorted(self._connections()), 0)
        for lease in await self._ledger.pooled(MAX_EXAMINED):
            if lease.state is LeaseState.POOLED and not _is_stale(lease, now) and lease.connection_id in found:
                found[lease.connection_id] += 1
        self.ready = found

    async def ensure_counted(self) -> None:
        """Count, and compute the targets, unless a refill has done so. Raises LedgerUnavailable."""
        if not self.ready:
            await self.count()
            await self.compute_targets()

    async def compute_targets(self) -> dict[str, int]:
        """The present `targets`, from the ledger if the pool sizes itself. Raises LedgerUnavailable."""
        now = self._clock()
        connections = [] if self.size == 0 else sorted(self._connections())
        if self.size is not None:
            self.targets = dict.fromkeys(connections, self.size)
        elif self._targets_until is None or now >= self._targets_until or connections != list(self.targets):
            since = now - RECENT, now - LONGER
            self.targets = {
                connection_id: target_size(await self._ledger.new_devices(connection_id, *since))
                for connection_id in connections
            }
            self._targets_until = now + TARGETS_KEPT
        return self.targets

    async def _refill(self) -> None:
        now = self._clock()
        pooled = await self._ledger.pooled(MAX_EXAMINED)
        wanted = await self.compute_targets()
        for lease in pooled:
            if lease.state is LeaseState.POOLED and (_is_stale(lease, now) or lease.connection_id not in wanted):
                await self._discard(lease)
        self.ready = {}
        missing: dict[str, int] = {}
        for connection_id, target in wanted.items():
            current = [lease for lease in pooled if lease.connection_id == connection_id and not _is_stale(lease, now)]
            ready = [lease for lease in current if lease.state is LeaseState.POOLED]
            self.ready[connection_id] = len(ready)
            missing[connection_id] = min(target - len(current), CREATE_BATCH_SIZE)
            for surplus in ready[target:]:
                if self.size is not None or surplus.created_at < now - SURPLUS_KEPT:
                    await self._discard(surplus)
        if self._paused_until is None or now >= self._paused_until:
            await self._create_missing(missing)

    async def _create_missing(self, missing: Mapping[str, int]) -> None:
        try:
            for connection_id, count in missing.items():
                for _ in range(count):
                    if not await self._create(connection_id):
                        break
        except TelnyxError:
            self._paused_until = self._clock() + min(MIN_PAUSE * 2 ** min(self._failures, 10), MAX_PAUSE)
            self._failures += 1
            raise
        self._failures = 0

    async def _create(self, connection_id: str) -> bool:
        """Create one credential. Returns False if the pool is full, because other replicas fill it too."""
        now = self._clock()
        lease_id = self._new_id()
        lease = Lease(
            id=lease_id,
            issuer=UNASSIGNED.issuer,
            subject=UNASSIGNED.subject,
            device_id=lease_id,
            platform=Platform.BROWSER,
            label=None,
            connection_id=connection_id,
            credential_name=self._naming.credential_name(lease_id),
            ttl_seconds=int(POOLED_LIFETIME.total_seconds()),
            state=LeaseState.PENDING,
            version=1,
            created_at=now,
            updated_at=now,
            expires_at=(now + POOLED_LIFETIME).replace(microsecond=0),
            usable_at=now + self._timing.propagation,
            claimed_by=self._replica,
            claimed_until=now + self._timing.claim,
            attempted_at=now,
        )
        if not await self._ledger.open_pooled(lease, self.targets[connection_id]):
            return False
        try:
            credential = await self._telnyx.create(
                connection_id=connection_id,
                name=lease.credential_name,
                tag=self._naming.tag(UNASSIGNED),
                expires_at=lease.expires_at,
            )
        except TelnyxError as error:
            # If the credential exists after all, the sweeper finds it by name. No device waits for it.
            is_certain = not error.may_have_happened or isinstance(error, TelnyxRejected | TelnyxNotFound)
            with suppress(LeaseConflict):
                now = self._clock()
                await self._ledger.advance(lease, lease.mark_failed(now) if is_certain else lease.start_revoking(now))
            raise
        now = self._clock()
        with suppress(LeaseConflict):
            await self._ledger.advance(lease, lease.mark_pooled(credential, now, now + self._timing.propagation))
            self.ready[connection_id] += 1
        return True

    async def _discard(self, lease: Lease) -> None:
        with suppress(LeaseConflict):  # a device has claimed it
            await self._ledger.advance(lease, lease.mark_expired(self._clock()))


def _is_stale(lease: Lease, now: datetime) -> bool:
    return lease.expires_at < now + MIN_REMAINING
