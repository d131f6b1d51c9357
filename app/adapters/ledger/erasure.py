"""Erasing users from the ledger: their rows get pseudonyms in short transactions, which a later call can continue."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.adapters.ledger.audit_rows import event_of
from app.adapters.ledger.database import Database
from app.adapters.ledger.deliveries import SqlDeliveries
from app.adapters.ledger.pg_listener import announce
from app.adapters.ledger.tables import (
    HAS_ENDED,
    IS_AWAITING_DELETION,
    IS_UNFINISHED,
    audit_events,
    erasures,
    grants,
    leases,
    owned_by,
    push_registrations,
)
from app.vending.audit import AuditEvent
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.models import UserKey
from app.vending.operators.erasure import ErasureCounts
from app.vending.pseudonyms import PSEUDONYM_PREFIX, ErasedUser, pseudonymize
from app.vending.telephony.naming import TAG_LENGTH, Naming
from app.vending.upkeep.erased_users import ErasureNotice

BATCH_SIZE = 200
"""Rows of one transaction: about ten milliseconds of SQLite's only writer."""

AUDIT_LOCK = (1_684_628_852, 1)
"""Keys of PostgreSQL's advisory lock. Writers of audit events share it; an erasure holds it alone for a moment."""

T = TypeVar("T")

_RECORDED = sa.select(erasures).where(erasures.c.user_hash.in_(sa.bindparam("hashes", expanding=True)))
_HAS_RECORDED = sa.select(sa.exists(sa.select(erasures.c.user_hash)))
_PERSONAL = ("subject", "device_id", "actor_subject", "request_id", "client_address", "user_agent", "details")
"""Columns of an audit event that a pseudonym changes."""

_REWRITE = (
    audit_events.update()
    .where(audit_events.c.id == sa.bindparam("row_id"))
    .values({name: sa.bindparam(f"new_{name}") for name in _PERSONAL})
)
_REWRITE_LEASE = (
    leases.update()
    .where(leases.c.id == sa.bindparam("row_id"))
    .values(
        subject=sa.bindparam("new_subject"),
        device_id=sa.bindparam("new_device_id"),
        label=None,
        session=None,
        sip_username=None,
        last_used_at=None,
    )
)


class SqlErasure:
    """Pseudonymizes a user's rows. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, naming: Naming) -> None:
        self._database = database
        self._naming = naming
        self._deliveries = SqlDeliveries(database)
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def count(self, user_key: UserKey) -> ErasureCounts:
        async with self._database.reading() as connection:

            async def count(table: sa.Table, *conditions: Any) -> int:
                query = sa.select(sa.func.count()).select_from(table).where(*conditions)
                return (await connection.execute(query)).scalar_one()

            at = push_registrations.c
            is_target, is_actor = _names(user_key)
            return ErasureCounts(
                leases=await count(leases, owned_by(user_key)),
                credentials=await count(leases, owned_by(user_key), sa.or_(IS_UNFINISHED, IS_AWAITING_DELETION)),
                push_registrations=await count(
                    push_registrations, at.issuer == user_key.issuer, at.subject == user_key.subject
                ),
                audit_events=await count(audit_events, is_target)
                + await count(audit_events, is_actor, sa.func.coalesce(sa.not_(is_target), sa.true())),
            )

    async def record(self, user_key: UserKey, erased_before: datetime, now: datetime) -> ErasedUser:
        hashes = self._naming.user_hashes(user_key)

        def work(connection: sa.Connection) -> ErasedUser:
            _wait_for_audit_writers(connection)
            known = connection.execute(_RECORDED, {"hashes": hashes}).mappings().first()
            pseudonym = PSEUDONYM_PREFIX + hashes[0][:TAG_LENGTH] if known is None else str(known["pseudonym"])
            # One row for each key: during a rotation, a replica may know only one of them.
            for user_hash in sorted(hashes):
                row = {"pseudonym": pseudonym, "erased_before": erased_before, "recorded_at": now}
                insert = self._insert(erasures).values(user_hash=user_hash, **row)
                connection.execute(insert.on_conflict_do_update(index_elements=["user_hash"], set_=row))
            # Without its row, a grant is rejected.
            if (kind := GRANT_ISSUERS.get(user_key.issuer)) is not None:
                of_user = sa.and_(grants.c.subject == user_key.subject, grants.c.kind == kind.value)
                connection.execute(grants.delete().where(of_user))
            announce(connection)
            return ErasedUser(user_key, pseudonym, erased_before)

        return await self._alone(work)

    async def pseudonymize_leases(self, erased: ErasedUser) -> int:
        """One batch of the user's ended leases. Their credentials are found by id and by name."""
        at, opaque = leases.c, self._naming.opaque
        query = sa.select(at.id, at.device_id).where(_ended_of(erased)).order_by(at.id).limit(BATCH_SIZE)
        query = query.with_for_update(skip_locked=True)

        def work(connection: sa.Connection) -> int:
            rows = [
                {"row_id": row.id, "new_subject": erased.pseudonym, "new_device_id": opaque(erased, row.device_id)}
                for row in connection.execute(query)
            ]
            if rows:
                connection.execute(_REWRITE_LEASE, rows)
            return len(rows)

        return await self._database.write(work)

    async def has_leases(self, erased: ErasedUser) -> bool:
        return bool(await self._database.rows(sa.select(leases.c.id).where(_ended_of(erased)).limit(1)))

    async def wait_for_audit_writers(self) -> None:
        """Return when every transaction that began to write audit events before this call has ended."""
        await self._alone(_wait_for_audit_writers)

    async def pseudonymize_events(self, erased: ErasedUser) -> int:
        """One batch of the audit events that name the user."""
        at = audit_events.c

        def work(connection: sa.Connection) -> int:
            for condition in _events_of(erased):
                query = sa.select(audit_events).where(condition).order_by(at.at, at.id).limit(BATCH_SIZE)
                # Rows that the retention or another erasure has locked are skipped, because waiting could deadlock.
                found = connection.execute(query.with_for_update(skip_locked=True)).mappings().all()
                if found:
                    events = [pseudonymize(event_of(row), erased, self._naming.opaque) for row in found]
                    connection.execute(_REWRITE, [_rewritten(event) for event in events])
                    return len(events)
            return 0

        return await self._database.write(work)

    async def has_events(self, erased: ErasedUser) -> bool:
        for condition in _events_of(erased):
            if await self._database.rows(sa.select(audit_events.c.id).where(condition).limit(1)):
                return True
        return False

    async def pseudonymize_deliveries(self, erased: ErasedUser, now: datetime) -> int:
        """One batch of the user's events for webhooks that are not delivered yet, or are dead letters."""
        return await self._deliveries.pseudonymize(erased, self._naming.opaque, now)

    async def has_deliveries(self, erased: ErasedUser) -> bool:
        return await self._deliveries.has_events_about(erased)

    async def unconfirmed(self, erased: ErasedUser) -> int:
        """Number of the user's credentials whose deletion Telnyx has not confirmed yet."""
        query = sa.select(sa.func.count()).select_from(leases).where(owned_by(erased.alias), IS_AWAITING_DELETION)
        async with self._database.reading() as connection:
            return (await connection.execute(query)).scalar_one()

    async def erasures_since(self, moment: datetime) -> list[ErasureNotice]:
        query = sa.select(erasures.c.user_hash, erasures.c.recorded_at).where(erasures.c.recorded_at >= moment)
        return [ErasureNotice(row["user_hash"], row["recorded_at"]) for row in await self._database.rows(query)]

    async def _alone(self, work: Callable[[sa.Connection], T]) -> T:
        """Run the statements in a transaction of their own, because it may wait for a lock."""
        async with self._database.writing() as connection:
            return await connection.run_sync(work)


def pseudonymize_late(
    connection: sa.Connection, naming: Naming, new_events: Sequence[AuditEvent]
) -> Sequence[AuditEvent]:
    """The events as they may be stored: those from before an erasure have the pseudonym.

    An event may be queued while its user is erased, here or on another replica.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(*AUDIT_LOCK)))
    if not connection.scalar(_HAS_RECORDED):
        return new_events  # the usual case, and much cheaper than a hash of each user
    users = {key for event in new_events for key in (event.decision.user_key, event.context.actor) if key is not None}
    by_hash = {user_hash: user_key for user_key in users for user_hash in naming.user_hashes(user_key)}
    if not by_hash:
        return new_events
    rows = connection.execute(_RECORDED, {"hashes": list(by_hash)}).mappings().all()
    for erased in {ErasedUser(by_hash[row["user_hash"]], row["pseudonym"], row["erased_before"]) for row in rows}:
        old_leases = _old_leases(connection, erased, new_events)
        new_events = [
            pseudonymize(event, erased, naming.opaque)
            if event.at <= erased.erased_before
            or event.decision.lease_id in old_leases
            or event.decision.user_key == erased.alias
            else event
            for event in new_events
        ]
    return new_events


def _old_leases(connection: sa.Connection, erased: ErasedUser, events: Sequence[AuditEvent]) -> set[str]:
    """The leases of these events that were the user's before the erasure."""
    named = {event.decision.lease_id for event in events if event.decision.user_key == erased.user_key} - {None}
    query = sa.select(leases.c.id).where(leases.c.id.in_(named), owned_by(erased.alias))
    return set(connection.scalars(query)) if named else set()


def _wait_for_audit_writers(connection: sa.Connection) -> None:
    """SQLite has one writer, so no other transaction is writing."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(*AUDIT_LOCK)))


def _names(user_key: UserKey) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """The conditions for events that are about the user, and for events with the user as the actor."""
    at = audit_events.c
    return (
        sa.and_(at.subject == user_key.subject, at.issuer == user_key.issuer),
        sa.and_(at.actor_subject == user_key.subject, at.actor_issuer == user_key.issuer),
    )


def _ended_of(erased: ErasedUser) -> sa.ColumnElement[bool]:
    return sa.and_(owned_by(erased.user_key), HAS_ENDED, leases.c.created_at <= erased.erased_before)


def _events_of(erased: ErasedUser) -> list[sa.ColumnElement[bool]]:
    """The conditions for the events to change, each with an index: those before the erasure, and of earlier leases."""
    at = audit_events.c
    of_old_lease = at.lease_id.in_(sa.select(leases.c.id).where(owned_by(erased.alias)))
    return [
        sa.and_(is_named, is_old)
        for is_named in _names(erased.user_key)
        for is_old in (at.at <= erased.erased_before, of_old_lease)
    ]


def _rewritten(event: AuditEvent) -> dict[str, Any]:
    flat = event.flat()
    return {"row_id": event.id, **{f"new_{name}": flat[name] for name in _PERSONAL}}
