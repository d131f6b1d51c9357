"""Leases in SQLite or PostgreSQL. Each method is one short transaction."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from app.adapters.ledger.database import Database, is_duplicate, one_at_a_time, one_session_at_a_time
from app.adapters.ledger.many_rows import ManyRows
from app.adapters.ledger.not_before import latest_not_before, named
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.pg_listener import announce
from app.adapters.ledger.tables import (
    HAS_CHANGED,
    IS_LIVE,
    IS_NOBODYS,
    IS_OWNED,
    IS_POOLED,
    IS_UNFINISHED,
    is_older,
    lease_of,
    leases,
    owned_by,
    row_of,
    step,
)
from app.vending.errors import LeaseConflict, LeaseExists, LedgerUnavailable, TokenRejected
from app.vending.models import Principal, UserKey
from app.vending.not_before import is_before, targets_of
from app.vending.telephony.device_limit import ChooseEvicted, OpenedLease
from app.vending.telephony.lease import ENDED, FIRST_ACTIVE_VERSION, Lease, LeaseState, LeaseVersion
from app.vending.upkeep.warm_pool_size import NewDevices

CHANGES_BATCH_SIZE = 10_000
"""Maximum number of changed leases that one query of the change poller reads."""


# Statements of every login are built once: building one takes longer than running it.
_OF_THE_DEVICE = sa.and_(IS_OWNED, leases.c.device_id == sa.bindparam("device_id"), IS_LIVE)
LIVE_LEASE = sa.select(leases).where(_OF_THE_DEVICE)
# All updates of several leases lock rows in the order of their ids. Otherwise two of them could deadlock.
LIVE_LEASES = sa.select(leases).where(IS_OWNED, IS_LIVE).order_by(leases.c.id).with_for_update()
BY_ID = sa.select(leases).where(leases.c.id == sa.bindparam("id"))
LIVE_DEVICES = (
    sa.select(sa.func.count()).select_from(leases).where(IS_OWNED, IS_LIVE, leases.c.expires_at > sa.bindparam("now"))
)
IS_READY_IN_THE_POOL = sa.and_(
    IS_POOLED,
    leases.c.connection_id == sa.bindparam("connection_id"),
    leases.c.usable_at <= sa.bindparam("now"),
    leases.c.expires_at > sa.bindparam("now"),
)
READY_IN_THE_POOL = (
    sa.select(leases)
    .where(IS_READY_IN_THE_POOL)
    .order_by(leases.c.usable_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
ANY_OF_A_USER = sa.select(leases.c.id).where(leases.c.subject > "").limit(1)
"""Not those of the warm pool, whose subject is empty: a new ledger has them within seconds."""

POOLED_OF_A_CONNECTION = (
    sa.select(sa.func.count())
    .select_from(leases)
    .where(IS_NOBODYS, leases.c.connection_id == sa.bindparam("connection_id"))
)
_NEW_DEVICES: list[sa.ColumnElement[Any]] = [
    sa.func.count().label("longer"),
    sa.func.sum(sa.case((leases.c.created_at >= sa.bindparam("recent"), 1), else_=0)).label("recent"),
]
NEW_DEVICES = sa.select(*_NEW_DEVICES).where(
    leases.c.connection_id == sa.bindparam("connection_id"),
    leases.c.created_at >= sa.bindparam("longer"),
    leases.c.issuer != "",
)
CHANGED_SINCE = (
    sa.select(
        *(leases.c[name] for name in ("id", "issuer", "subject", "device_id", "state", "version")),
        leases.c.expires_at,
        leases.c.updated_at,
    )
    .where(HAS_CHANGED, leases.c.updated_at >= sa.bindparam("moment"), leases.c.version > FIRST_ACTIVE_VERSION)
    .order_by(leases.c.updated_at)
    .limit(CHANGES_BATCH_SIZE)
)
SET_LAST_USED = ManyRows(
    leases.update()
    .where(
        leases.c.id == sa.bindparam("used_id"),
        leases.c.sip_username.is_not(None),  # an erasure removes it, and the time of the last use with it
        sa.or_(leases.c.last_used_at.is_(None), leases.c.last_used_at < sa.bindparam("used_at")),
    )
    .values(last_used_at=sa.bindparam("used_at"))
)
INSERT = leases.insert()


@lru_cache(maxsize=8)
def _look_before_opening(targets: int) -> sa.Select[Any]:
    """One query for the not-before, the device's lease, the number of live devices and a pooled credential."""
    in_the_pool = sa.select(leases.c.id).where(IS_READY_IN_THE_POOL).limit(1)
    return sa.select(
        latest_not_before(targets).scalar_subquery().label("not_before"),
        sa.select(leases.c.id).where(_OF_THE_DEVICE).exists().label("has_lease"),
        LIVE_DEVICES.scalar_subquery().label("devices"),
        in_the_pool.scalar_subquery().label("in_the_pool"),
    )


class SqlLeases:
    """Stores leases. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, outbox: EventOutbox | None = None) -> None:
        """`outbox` gets the events of changes."""
        self._database = database
        self._outbox = outbox

    async def live_lease(self, user_key: UserKey, device_id: str) -> Lease | None:
        return await self._one(LIVE_LEASE, {**user_key._asdict(), "device_id": device_id})

    async def find(self, lease_id: str) -> Lease | None:
        return await self._one(BY_ID, {"id": lease_id})

    async def unfinished(self, user_key: UserKey) -> list[Lease]:
        return await self._all(sa.select(leases).where(owned_by(user_key), IS_UNFINISHED))

    async def page(self, user_key: UserKey, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        query = sa.select(leases).where(owned_by(user_key), IS_UNFINISHED)
        if after is not None:
            query = query.where(is_older(*after))
        return await self._all(query.order_by(leases.c.created_at.desc(), leases.c.id.desc()).limit(limit))

    async def open(self, lease: Lease, max_devices: int, principal: Principal, choose: ChooseEvicted) -> OpenedLease:
        def work(connection: sa.Connection) -> OpenedLease:
            # Without the locks, two devices could both pass the device limit, or a logout could miss the new row.
            one_at_a_time(connection, lease.user_key)
            if lease.session is not None:
                one_session_at_a_time(connection, lease.issuer, lease.session)
            seen = _look(connection, lease, principal)
            if seen.not_before is not None and is_before(principal, seen.not_before):
                raise TokenRejected("not_before")
            if seen.has_lease:
                return OpenedLease(_live(connection, lease), is_new=False, evicted=[])
            evictions = [] if seen.devices < max_devices else _make_room(connection, lease, choose)
            claimed = None if seen.in_the_pool is None else _claim_pooled(connection, lease)
            opened = claimed or _insert(connection, lease)
            self._report(connection, evictions)
            return OpenedLease(opened, is_new=True, evicted=[after for _, after in evictions])

        try:
            return await self._database.write(work)
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise LeaseExists from None
            raise

    async def is_empty(self) -> bool:
        return not await self._database.rows(ANY_OF_A_USER)

    async def open_pooled(self, lease: Lease, max_pooled: int) -> bool:
        def work(connection: sa.Connection) -> bool:
            one_at_a_time(connection, lease.user_key)
            of_its_connection = {"connection_id": lease.connection_id}
            if connection.execute(POOLED_OF_A_CONNECTION, of_its_connection).scalar_one() >= max_pooled:
                return False
            _insert(connection, lease)
            return True

        return await self._database.write(work)

    async def new_devices(self, connection_id: str, recent: datetime, longer: datetime) -> NewDevices:
        wanted = {"connection_id": connection_id, "recent": recent, "longer": longer}
        (row,) = await self._database.rows(NEW_DEVICES, wanted)
        return NewDevices(row["recent"] or 0, row["longer"])

    async def pooled(self, limit: int) -> list[Lease]:
        return await self._all(sa.select(leases).where(IS_NOBODYS).order_by(leases.c.created_at).limit(limit))

    async def advance(self, before: Lease, after: Lease, principal: Principal | None = None) -> Lease:
        """With a principal, raises TokenRejected if a not-before entry has rejected the token since."""
        update, changes = step(before, after)

        def work(connection: sa.Connection) -> Lease:
            if principal is not None:
                # As in `open`: a logout of the session either ends the lease, or is seen here.
                one_at_a_time(connection, after.user_key)
                if after.session is not None:
                    one_session_at_a_time(connection, after.issuer, after.session)
                _check_not_before(connection, principal)
            if connection.execute(update, changes).rowcount != 1:
                raise LeaseConflict
            if _is_urgent(before, after):
                announce(connection)
            self._report(connection, [(before, after)])
            return after

        return await self._database.write(work)

    async def changed_since(self, moment: datetime) -> list[LeaseVersion]:
        return [
            LeaseVersion(
                row["id"],
                UserKey(row["issuer"], row["subject"]),
                row["device_id"],
                LeaseState(row["state"]),
                row["version"],
                row["expires_at"],
                row["updated_at"],
            )
            for row in await self._database.rows(CHANGED_SINCE, {"moment": moment})
        ]

    async def set_last_used(self, uses: Sequence[tuple[str, datetime]]) -> None:
        rows = [{"used_id": lease_id, "used_at": at} for lease_id, at in uses]

        def work(connection: sa.Connection) -> None:
            SET_LAST_USED.execute(connection, rows)

        await self._database.write(work)

    def _report(self, connection: sa.Connection, changes: list[tuple[Lease, Lease]]) -> None:
        if self._outbox is not None:
            self._outbox.leases_changed(connection, changes)

    async def _one(self, query: sa.Select[Any], parameters: dict[str, Any]) -> Lease | None:
        rows = await self._database.rows(query, parameters)
        return lease_of(rows[0]) if rows else None

    async def _all(self, query: sa.Select[Any]) -> list[Lease]:
        return [lease_of(row) for row in await self._database.rows(query)]


def _is_urgent(before: Lease, after: Lease) -> bool:
    """Whether the other replicas are notified. They find other changes at their next poll.

    Most changes are renewals. A login from before a renewal remains valid, with an earlier expiry.
    """
    if after.state in ENDED:
        return before.state not in ENDED
    terms = (before.ttl_seconds, before.platform, before.label)
    return before.state is LeaseState.ACTIVE and (
        after.expires_at < before.expires_at or terms != (after.ttl_seconds, after.platform, after.label)
    )


def _check_not_before(connection: sa.Connection, principal: Principal) -> None:
    targets = targets_of(principal)
    latest: datetime | None = connection.execute(latest_not_before(len(targets)), named(targets)).scalar_one()
    if latest is not None and is_before(principal, latest):
        raise TokenRejected("not_before")


def _look(connection: sa.Connection, lease: Lease, principal: Principal) -> Any:
    targets = targets_of(principal)
    wanted = {
        **lease.user_key._asdict(),
        "device_id": lease.device_id,
        "now": lease.created_at,
        "connection_id": lease.connection_id,
        **named(targets),
    }
    return connection.execute(_look_before_opening(len(targets)), wanted).one()


def _live(connection: sa.Connection, lease: Lease) -> Lease:
    """The live lease of the device. Raises LeaseExists if it has ended in the meantime, so that the caller retries."""
    of_the_device = {**lease.user_key._asdict(), "device_id": lease.device_id}
    found = connection.execute(LIVE_LEASE, of_the_device).mappings().first()
    if found is None:
        raise LeaseExists
    return lease_of(found)


def _make_room(connection: sa.Connection, lease: Lease, choose: ChooseEvicted) -> list[tuple[Lease, Lease]]:
    """Evict the user's leases that `choose` returns. Returns each before and after."""
    live = [lease_of(row) for row in connection.execute(LIVE_LEASES, lease.user_key._asdict()).mappings()]
    evicted = []
    for before in choose(live):
        after = before.start_revoking(lease.created_at)
        connection.execute(*step(before, after))
        evicted.append((before, after))
    if evicted:
        announce(connection)
    return evicted


def _insert(connection: sa.Connection, lease: Lease) -> Lease:
    connection.execute(INSERT, row_of(lease))
    return lease


def _claim_pooled(connection: sa.Connection, intent: Lease) -> Lease | None:
    """Assign a ready pooled credential of the connection to the device; None if there is none."""
    wanted = {"connection_id": intent.connection_id, "now": intent.created_at}
    found = connection.execute(READY_IN_THE_POOL, wanted).mappings().first()
    if found is None:
        return None
    before = lease_of(found)
    claimed = before.assign_to(intent)
    connection.execute(*step(before, claimed))
    return claimed
