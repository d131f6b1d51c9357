"""The audit in the ledger: events are added in batches, searched by filters, and deleted by age."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.adapters.ledger.audit_rows import event_of
from app.adapters.ledger.database import Database, is_duplicate
from app.adapters.ledger.erasure import pseudonymize_late
from app.adapters.ledger.many_rows import ManyRows
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.tables import activity, erasures, visible
from app.adapters.ledger.tables import audit_events as events
from app.vending.audit import ActivityCount, AuditAction, AuditCriteria, AuditEvent, AuditOutcome
from app.vending.errors import LedgerUnavailable
from app.vending.telephony.naming import Naming

_concerned_issuer: sa.ColumnElement[str] = sa.func.coalesce(events.c.issuer, events.c.details["issuer"].as_string())
"""The issuer of the user that an event is about, or the issuer that it is about as a whole."""

_INSERT = ManyRows(events.insert())


class SqlAudit:
    """Stores audit events. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, naming: Naming, outbox: EventOutbox | None = None) -> None:
        """`outbox` gets the events of denials by policy."""
        self._database = database
        self._naming = naming
        self._outbox = outbox
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def add(self, new_events: Sequence[AuditEvent]) -> None:
        """Raises ValueError if one of the events can never be stored."""
        try:
            await self._add(new_events)
        except LedgerUnavailable as error:
            if _is_about_data(error.__cause__):
                raise ValueError("an event that the database cannot store") from error
            if not is_duplicate(error.__cause__):
                raise
            # The connection was lost during the commit of an earlier attempt, which had succeeded.
            missing = await self._missing(new_events)
            if len(missing) == len(new_events):
                raise
            if missing:
                await self.add(missing)

    async def _missing(self, new_events: Sequence[AuditEvent]) -> list[AuditEvent]:
        """The events that have no row."""
        ids = [event.id for event in new_events]
        stored = {row["id"] for row in await self._database.rows(sa.select(events.c.id).where(events.c.id.in_(ids)))}
        return [event for event in new_events if event.id not in stored]

    async def _add(self, new_events: Sequence[AuditEvent]) -> None:
        # All replicas update rows in the same order. Otherwise two of them could deadlock.
        counts = sorted(Counter(map(_minute, new_events)).items())

        def add(connection: sa.Connection) -> None:
            storable = pseudonymize_late(connection, self._naming, new_events)
            _INSERT.execute(connection, (event.flat() for event in storable))
            for (minute, action, outcome), count in counts:
                row = {"minute": minute, "action": action, "outcome": outcome, "events": count}
                one = self._insert(activity).values(row)
                more = {"events": activity.c.events + one.excluded.events}
                connection.execute(one.on_conflict_do_update(index_elements=["minute", "action", "outcome"], set_=more))
            if self._outbox is not None:
                self._outbox.decisions_recorded(connection, storable)

        await self._database.write(add)

    async def matching(
        self, criteria: AuditCriteria, after: tuple[datetime, str] | None, limit: int
    ) -> list[AuditEvent]:
        query = sa.select(events).where(*_conditions(criteria))
        if after is not None:
            moment = sa.bindparam("moment", after[0], events.c.at.type)
            query = query.where(sa.tuple_(events.c.at, events.c.id) < sa.tuple_(moment, sa.literal(after[1])))
        newest_first = query.order_by(events.c.at.desc(), events.c.id.desc()).limit(limit)
        return [event_of(row) for row in await self._database.rows(newest_first)]

    async def activity(self, since: datetime) -> list[ActivityCount]:
        at = activity.c
        query = sa.select(activity).where(at.minute >= since).order_by(at.minute, at.action, at.outcome)
        return [
            ActivityCount(row["minute"], AuditAction(row["action"]), AuditOutcome(row["outcome"]), row["events"])
            for row in await self._database.rows(query)
        ]

    async def delete_expired(self, recorded_before: datetime, limit: int) -> int:
        query = sa.select(events.c.id).where(events.c.at < recorded_before).order_by(events.c.at).limit(limit)
        if not (rows := await self._database.rows(query)):
            return 0
        async with self._database.writing() as connection:
            await connection.execute(events.delete().where(events.c.id.in_([row["id"] for row in rows])))
            await connection.execute(activity.delete().where(activity.c.minute < recorded_before))
            # Every event that an erasure changed is deleted by now, and no replica has a queued one.
            await connection.execute(erasures.delete().where(erasures.c.recorded_at < recorded_before))
        return len(rows)


def _is_about_data(error: BaseException | None) -> bool:
    """True if a retry would fail too, because the database cannot represent a value (SQLSTATE class 22)."""
    if isinstance(error, sa.exc.DBAPIError):
        return (getattr(error.orig, "sqlstate", None) or "").startswith("22") or isinstance(error, sa.exc.DataError)
    return isinstance(error, sa.exc.StatementError)


def _minute(event: AuditEvent) -> tuple[datetime, str, str]:
    decision = event.decision
    return event.at.replace(second=0, microsecond=0), decision.action.value, decision.outcome.value


def _conditions(criteria: AuditCriteria) -> list[sa.ColumnElement[bool]]:
    at = events.c
    wanted = {
        at.device_id: criteria.device_id,
        at.lease_id: criteria.lease_id,
        at.action: criteria.action,
        at.outcome: criteria.outcome,
        at.request_id: criteria.request_id,
        at.token_sha256: criteria.token_sha256,
    }
    found: list[sa.ColumnElement[bool]] = [column == value for column, value in wanted.items() if value is not None]
    is_actor_visible = visible(at.actor_issuer, criteria.visibility)
    if criteria.visibility.issuers is not None:
        found.append(visible(_concerned_issuer, criteria.visibility))
    if criteria.subject is not None:
        is_actor = sa.and_(at.actor_subject == criteria.subject, is_actor_visible)
        found.append(sa.or_(at.subject == criteria.subject, is_actor))
    if criteria.issuer is not None:
        is_actor = sa.and_(at.actor_issuer == criteria.issuer, is_actor_visible)
        found.append(sa.or_(_concerned_issuer == criteria.issuer, is_actor))
    if criteria.since is not None:
        found.append(at.at >= criteria.since)
    if criteria.until is not None:
        found.append(at.at < criteria.until)
    return found
