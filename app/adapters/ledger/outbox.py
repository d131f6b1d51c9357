"""The outbox: writes events into the transaction of the change that they report."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.adapters.ledger.tables import IS_UNDELIVERED, event_deliveries, event_queues
from app.vending.audit import AuditEvent
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.events.models import DELIVERY_PERIOD, OutboxEvent, denied_event, lease_event
from app.vending.models import UserKey
from app.vending.telephony.lease import Lease

_GIVEN = ("endpoint", "queue", "event_id", "type", "at", "about", "issuer", "subject", "device_id", "lease_id", "data")
INSERT = event_deliveries.insert().values(
    {name: sa.bindparam(name) for name in (*_GIVEN, "expires_at")} | {"is_dead": sa.false(), "attempts": sa.text("0")}
)
IS_PENDING_DENIAL = (
    sa.select(event_deliveries.c.sequence)
    .where(
        event_deliveries.c.endpoint == sa.bindparam("of_endpoint"),
        event_deliveries.c.queue == sa.bindparam("of_queue"),
        IS_UNDELIVERED,
        event_deliveries.c.type == sa.bindparam("of_type"),
    )
    .limit(1)
)


class EventOutbox:
    """Adds events to open transactions. Without endpoints, it does nothing."""

    def __init__(
        self,
        active: ActiveEndpoints,
        *,
        is_sqlite: bool,
        sip_domain: str,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._active = active
        self._sip_domain = sip_domain
        self._clock = clock
        self._new_id = new_id
        self._upsert = upsert_queue(is_sqlite=is_sqlite)

    @property
    def is_active(self) -> bool:
        """Whether any endpoint is configured."""
        return bool(self._active.endpoints)

    def now(self) -> datetime:
        return self._clock()

    def leases_changed(self, connection: sa.Connection, changes: Iterable[tuple[Lease, Lease]]) -> None:
        """Add the events of transitions, each from the first lease to the second."""
        if self.is_active:
            found = (lease_event(before, after, self._sip_domain) for before, after in changes)
            self.add(connection, [event for event in found if event is not None])

    def decisions_recorded(self, connection: sa.Connection, audited: Iterable[AuditEvent]) -> None:
        """Add the events of denials, unless one of the same user still awaits its delivery."""
        if self.is_active:
            found = [event for event in map(denied_event, audited) if event is not None]
            # A client that repeats a denied request must not fill the ledger, also if it names other devices.
            first = {event.user_key: event for event in reversed(found)}
            self.add(connection, list(first.values()), is_repeatable=True)

    def add(self, connection: sa.Connection, events: Sequence[OutboxEvent], *, is_repeatable: bool = False) -> None:
        """Add the events. With `is_repeatable`, one queue has those of all devices of a user, and each type once."""
        rows = [
            row
            for event in events
            for row in self._rows(
                event,
                self._active.names_for(event.type, event.user_key.issuer),
                self._new_id(),
                queue_of(event.user_key, "" if is_repeatable else event.device_id),
            )
        ]
        if is_repeatable:
            rows = [row for row in rows if not _is_pending(connection, row)]
        if not rows:
            return
        # Every transaction locks queues in the same order. Otherwise two of them could deadlock. The sort is stable, so
        # events of one queue keep their order.
        rows.sort(key=lambda row: (row["endpoint"], row["queue"]))
        # The lock on the queue comes first, so that the order of the sequence is the order of the commits.
        due_at = self._clock()
        queues = {(row["endpoint"], row["queue"]): due_at for row in rows}
        connection.execute(self._upsert, [_queue(*key, at) for key, at in queues.items()])
        connection.execute(INSERT, rows)

    def _rows(
        self, event: OutboxEvent, endpoints: Iterable[str], event_id: str, queue: str
    ) -> Iterable[dict[str, Any]]:
        expires_at = self._clock() + DELIVERY_PERIOD
        for endpoint in endpoints:
            yield {
                "endpoint": endpoint,
                "queue": queue,
                "event_id": event_id,
                "type": event.type.value,
                "at": event.at,
                "about": event.about,
                "issuer": event.user_key.issuer,
                "subject": event.user_key.subject,
                "device_id": event.device_id,
                "lease_id": event.lease_id,
                "data": dict(event.data),
                "expires_at": expires_at,
            }


def queue_of(user_key: UserKey, device_id: str) -> str:
    """The queue of one user and device. A hash, because issuers and subjects can be long."""
    name = f"{len(user_key.issuer)}:{user_key.issuer}{len(user_key.subject)}:{user_key.subject}{device_id}"
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def upsert_queue(*, is_sqlite: bool, is_due: bool = False) -> sa.Insert:
    """Add a queue, or lock it and count the change. `is_due` makes an existing queue due as well."""
    table = (sqlite.insert if is_sqlite else postgresql.insert)(event_queues)
    changes: dict[str, Any] = {"version": event_queues.c.version + 1}
    if is_due:
        changes["due_at"] = table.excluded.due_at
    return table.on_conflict_do_update(index_elements=["endpoint", "queue"], set_=changes)


def _queue(endpoint: str, queue: str, due_at: datetime) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "queue": queue,
        "version": 1,
        "due_at": due_at,
        "claimed_by": None,
        "claimed_until": None,
    }


def _is_pending(connection: sa.Connection, row: dict[str, Any]) -> bool:
    wanted = {"of_endpoint": row["endpoint"], "of_queue": row["queue"], "of_type": row["type"]}
    return connection.execute(IS_PENDING_DENIAL, wanted).first() is not None
