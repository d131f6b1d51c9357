"""Deliveries in the ledger: claimed queues, their events, dead letters, and what an erasure changes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.outbox import queue_of, upsert_queue
from app.adapters.ledger.tables import IS_DEAD, IS_UNDELIVERED, event_deliveries, event_queues, leases, owned_by
from app.vending.events.delivery import ClaimedQueue, EventBacklog, RetryPlan
from app.vending.events.models import DELIVERY_PERIOD, Delivery
from app.vending.pseudonyms import ErasedUser, Opaque

BATCH_SIZE = 500
"""Rows that one transaction of the maintenance or of an erasure changes."""

at = event_deliveries.c
queues = event_queues.c

MAX_SEQUENCE = 2**63 - 1
SIP_FIELDS = ("sip_username", "sip_address")
"""Members of an event's data that identify a user at Telnyx."""

_DELIVERY = tuple(column for column in at if column.name != "queue")

_OF_QUEUE: dict[str, sa.BindParameter[Any]] = {
    "endpoint": sa.bindparam("of_endpoint"),
    "queue": sa.bindparam("of_queue"),
}
# A changed version means that an event was added by a transaction that this statement does not see.
_DELETE_EMPTY_QUEUE = event_queues.delete().where(
    *(queues[name] == value for name, value in _OF_QUEUE.items()),
    queues.version == sa.bindparam("of_version"),
    queues.claimed_by.is_(None),
    ~sa.select(at.sequence).where(*(at[name] == value for name, value in _OF_QUEUE.items()), IS_UNDELIVERED).exists(),
)
"""Built once: building a statement takes longer than running it."""


class SqlDeliveries:
    """Stores deliveries. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._upsert_due = upsert_queue(is_sqlite=database.is_sqlite, is_due=True)

    # -- delivery -----------------------------------------------------------------------------------------------

    async def claim(
        self, endpoint: str, replica: str, now: datetime, until: datetime, limit: int
    ) -> list[ClaimedQueue]:
        latest = until + (until - now)  # a claim that ends later is from before the clock was set back
        is_free = sa.or_(queues.claimed_until.is_(None), queues.claimed_until <= now, queues.claimed_until > latest)
        due = sa.select(event_queues).where(queues.endpoint == endpoint, queues.due_at <= now, is_free)
        due = due.order_by(queues.due_at).limit(limit)
        if not await self._database.rows(due.with_only_columns(queues.queue)):
            return []  # the usual case: no write lock is taken

        def work(connection: sa.Connection) -> list[ClaimedQueue]:
            found = connection.execute(due.with_for_update(skip_locked=True)).mappings().all()
            names = [row["queue"] for row in found]
            if names:
                is_found = sa.and_(queues.endpoint == endpoint, queues.queue.in_(names))
                connection.execute(
                    event_queues.update().where(is_found).values(claimed_by=replica, claimed_until=until)
                )
            return [ClaimedQueue(endpoint, row["queue"], row["version"], replica, until) for row in found]

        return await self._database.write(work)

    async def pending(self, queue: ClaimedQueue, limit: int) -> list[Delivery]:
        wanted = sa.select(*_DELIVERY).where(at.endpoint == queue.endpoint, at.queue == queue.name, IS_UNDELIVERED)
        return [_delivery(row) for row in await self._database.rows(wanted.order_by(at.sequence).limit(limit))]

    async def settle(
        self, queue: ClaimedQueue, done: Sequence[int], retry: RetryPlan | None, now: datetime, *, has_more: bool
    ) -> None:
        key = sa.and_(queues.endpoint == queue.endpoint, queues.queue == queue.name)
        is_own = sa.and_(key, queues.claimed_by == queue.replica, queues.claimed_until == queue.until)

        def work(connection: sa.Connection) -> None:
            if done:
                connection.execute(event_deliveries.delete().where(at.sequence.in_(done)))
            if retry is not None:
                failed = event_deliveries.update().where(at.sequence == retry.sequence)
                connection.execute(failed.values(attempts=at.attempts + 1, failure=retry.failure))
            elif not has_more:
                # A changed version means that an event was added after the queue was read.
                is_unchanged = sa.and_(is_own, queues.version == queue.version)
                if connection.execute(event_queues.delete().where(is_unchanged)).rowcount:
                    return
            due_at = now if retry is None else retry.due_at
            released = {"claimed_by": None, "claimed_until": None, "due_at": due_at}
            connection.execute(event_queues.update().where(is_own).values(released))

        await self._database.write(work)

    # -- maintenance --------------------------------------------------------------------------------------------

    async def make_due(self, endpoint: str, now: datetime, latest: datetime) -> int:
        query = sa.select(queues.queue).where(queues.endpoint == endpoint, queues.due_at > latest).limit(BATCH_SIZE)
        if not await self._database.rows(query):
            return 0

        def work(connection: sa.Connection) -> int:
            found = connection.execute(query.with_for_update(skip_locked=True)).scalars().all()
            is_found = sa.and_(queues.endpoint == endpoint, queues.queue.in_(found))
            return connection.execute(event_queues.update().where(is_found).values(due_at=now)).rowcount

        return await self._database.write(work)

    async def bury_expired(self, endpoint: str, now: datetime) -> int:
        is_old = sa.and_(IS_UNDELIVERED, at.endpoint == endpoint, at.expires_at <= now)
        return await self._bury(is_old, now, BATCH_SIZE)

    async def bury_oldest(self, endpoint: str, count: int, now: datetime) -> int:
        is_pending = sa.and_(IS_UNDELIVERED, at.endpoint == endpoint)
        return await self._bury(is_pending, now, min(count, BATCH_SIZE), failure="queue_full")

    async def _bury(
        self, is_chosen: sa.ColumnElement[bool], now: datetime, limit: int, *, failure: str | None = None
    ) -> int:
        query = sa.select(at.sequence, at.endpoint, at.queue).where(is_chosen).order_by(at.expires_at).limit(limit)
        if not await self._database.rows(query):
            return 0
        values: dict[str, Any] = {"is_dead": True, "dead_at": now}
        if failure is not None:
            values["failure"] = failure

        def work(connection: sa.Connection) -> int:
            found = connection.execute(query.with_for_update(skip_locked=True)).all()
            chosen = at.sequence.in_([row.sequence for row in found])
            connection.execute(event_deliveries.update().where(chosen).values(values))
            _delete_empty_queues(connection, {(row.endpoint, row.queue) for row in found})
            return len(found)

        return await self._database.write(work)

    async def delete_dead(self, dead_before: datetime, keep: int) -> int:
        newest = sa.select(at.sequence).where(IS_DEAD).order_by(at.dead_at.desc(), at.sequence.desc())
        old = sa.select(at.sequence).where(IS_DEAD, at.dead_at < dead_before).limit(BATCH_SIZE)
        found = [
            *await self._database.rows(old),
            *await self._database.rows(newest.offset(keep).limit(BATCH_SIZE)),
        ]
        if not found:
            return 0
        sequences = sorted({row["sequence"] for row in found})

        def work(connection: sa.Connection) -> int:
            still_dead = sa.and_(at.sequence.in_(sequences), IS_DEAD)
            return connection.execute(event_deliveries.delete().where(still_dead)).rowcount

        return await self._database.write(work)

    async def backlog(self) -> list[EventBacklog]:
        count, first_expiry = sa.func.count().label("events"), sa.func.min(at.expires_at).label("first_expiry")
        pending = sa.select(at.endpoint, count, first_expiry).where(IS_UNDELIVERED).group_by(at.endpoint)
        dead = sa.select(at.endpoint, count).where(IS_DEAD).group_by(at.endpoint)
        found = {
            row["endpoint"]: EventBacklog(
                row["endpoint"], pending=row["events"], oldest=row["first_expiry"] - DELIVERY_PERIOD
            )
            for row in await self._database.rows(pending)
        }
        for row in await self._database.rows(dead):
            known = found.get(row["endpoint"], EventBacklog(row["endpoint"]))
            found[row["endpoint"]] = known._replace(dead=row["events"])
        return list(found.values())

    # -- operators ----------------------------------------------------------------------------------------------

    async def matching(
        self, *, is_dead: bool, endpoint: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        # The number in a forged cursor may be too large for the database.
        before = MAX_SEQUENCE if after is None else min(int(after[1], 16), MAX_SEQUENCE)
        query = sa.select(*_DELIVERY).where(IS_DEAD if is_dead else IS_UNDELIVERED, at.sequence < before)
        if endpoint is not None:
            query = query.where(at.endpoint == endpoint)
        newest_first = query.order_by(at.sequence.desc()).limit(limit)
        return [_delivery(row) for row in await self._database.rows(newest_first)]

    async def replay(
        self, event_id: str | None, endpoint: str | None, endpoints: Sequence[str], now: datetime, limit: int
    ) -> int:
        query = sa.select(at.sequence, at.endpoint, at.queue).where(*_dead_letters(event_id, endpoint))
        query = query.where(at.endpoint.in_(endpoints))
        query = query.order_by(at.sequence).limit(limit).with_for_update(skip_locked=True)

        def work(connection: sa.Connection) -> int:
            found = connection.execute(query).all()
            if not found:
                return 0
            self._make_due(connection, {(row.endpoint, row.queue) for row in found}, now)
            alive = {"is_dead": False, "dead_at": None, "attempts": 0, "expires_at": now + DELIVERY_PERIOD}
            connection.execute(
                event_deliveries.update().where(at.sequence.in_([row.sequence for row in found])).values(alive)
            )
            return len(found)

        return await self._database.write(work)

    async def dead_letters(self, event_id: str | None, endpoint: str | None) -> dict[str, int]:
        query = sa.select(at.endpoint, sa.func.count().label("events")).where(*_dead_letters(event_id, endpoint))
        return {row["endpoint"]: row["events"] for row in await self._database.rows(query.group_by(at.endpoint))}

    # -- erasure ------------------------------------------------------------------------------------------------

    async def pseudonymize(self, erased: ErasedUser, opaque: Opaque, now: datetime) -> int:
        """One batch of an erased user's events: those from before the erasure, and those of earlier leases.

        They are still delivered, with the pseudonym, so that a backend learns which leases have ended.
        """
        query = sa.select(at.sequence, at.endpoint, at.device_id, at.data).where(_is_about(erased))
        query = query.order_by(at.sequence).limit(BATCH_SIZE).with_for_update(skip_locked=True)
        update = event_deliveries.update().where(at.sequence == sa.bindparam("row"))
        changed = ("subject", "device_id", "queue", "data")
        update = update.values({name: sa.bindparam(f"new_{name}") for name in changed})

        def work(connection: sa.Connection) -> int:
            rows, moved = [], set()
            for row in connection.execute(query):
                device_id = opaque(erased, row.device_id) if row.device_id else ""
                queue = queue_of(erased.alias, device_id)
                moved.add((row.endpoint, queue))
                data = {name: value for name, value in row.data.items() if name not in SIP_FIELDS}
                values = {"subject": erased.pseudonym, "device_id": device_id, "queue": queue, "data": data}
                rows.append({"row": row.sequence} | {f"new_{name}": value for name, value in values.items()})
            if rows:
                self._make_due(connection, moved, now)
                connection.execute(update, rows)
            return len(rows)

        return await self._database.write(work)

    async def has_events_about(self, erased: ErasedUser) -> bool:
        """Whether events are left for `pseudonymize`, because another transaction had locked them."""
        return bool(await self._database.rows(sa.select(at.sequence).where(_is_about(erased)).limit(1)))

    def _make_due(self, connection: sa.Connection, names: set[tuple[str, str]], now: datetime) -> None:
        unclaimed = {"version": 1, "due_at": now, "claimed_by": None, "claimed_until": None}
        rows = [{"endpoint": endpoint, "queue": queue, **unclaimed} for endpoint, queue in sorted(names)]
        connection.execute(self._upsert_due, rows)


def _dead_letters(event_id: str | None, endpoint: str | None) -> list[sa.ColumnElement[bool] | sa.TextClause]:
    conditions: list[sa.ColumnElement[bool] | sa.TextClause] = [IS_DEAD]
    if event_id is not None:
        conditions.append(at.event_id == event_id)
    if endpoint is not None:
        conditions.append(at.endpoint == endpoint)
    return conditions


def _is_about(erased: ErasedUser) -> sa.ColumnElement[bool]:
    is_of_user = sa.and_(at.subject == erased.user_key.subject, at.issuer == erased.user_key.issuer)
    of_old_lease = at.lease_id.in_(sa.select(leases.c.id).where(owned_by(erased.alias)))
    return sa.and_(is_of_user, sa.or_(at.at <= erased.erased_before, of_old_lease))


def _delete_empty_queues(connection: sa.Connection, names: set[tuple[str, str]]) -> None:
    """Delete those queues that have no pending event, in the order in which the outbox locks queues."""
    found = []
    for endpoint in {endpoint for endpoint, _ in names}:
        wanted = [queue for other, queue in names if other == endpoint]
        query = sa.select(queues.queue, queues.version).where(queues.endpoint == endpoint, queues.queue.in_(wanted))
        found += [
            {"of_endpoint": endpoint, "of_queue": row.queue, "of_version": row.version}
            for row in connection.execute(query)
        ]
    if found:
        connection.execute(_DELETE_EMPTY_QUEUE, sorted(found, key=lambda row: (row["of_endpoint"], row["of_queue"])))


def _delivery(row: sa.RowMapping) -> Delivery:
    return Delivery(**{column.name: row[column.name] for column in _DELIVERY})
