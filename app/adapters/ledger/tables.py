"""The ledger's tables in SQLAlchemy. `migrations/` creates them, and a test compares the two."""

from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from app.vending.models import Platform, UserKey
from app.vending.telephony.lease import AWAITING_DELETION, ENDED, LIVE, Lease, LeaseState
from app.vending.visibility import Visibility

metadata = sa.MetaData()


class UtcTime(sa.TypeDecorator[datetime]):
    """Aware UTC times, also on SQLite, which stores no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _in(states: tuple[LeaseState, ...]) -> sa.TextClause:
    """A constant condition. A partial index is used only if the query repeats its condition literally."""
    return sa.text("state IN ({})".format(", ".join(f"'{state}'" for state in states)))


IS_LIVE = _in(LIVE)
IS_PENDING = _in((LeaseState.PENDING,))
IS_ACTIVE = _in((LeaseState.ACTIVE,))
IS_AWAITING_DELETION = _in(AWAITING_DELETION)
IS_UNFINISHED = _in((*LIVE, LeaseState.REVOKING))
HAS_ENDED = _in(ENDED)
HAS_CHANGED = _in((LeaseState.ACTIVE, *ENDED))
"""Leases that a replica may have cached a login of."""
IS_POOLED = _in((LeaseState.POOLED,))
IS_UNDELIVERED = sa.text("NOT is_dead")
IS_DEAD = sa.text("is_dead")
IS_NOBODYS = sa.text("issuer = '' AND state IN ('pooled', 'pending')")

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("device_id", sa.String(64), nullable=False),
    sa.Column("platform", sa.String(16), nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("connection_id", sa.Text, nullable=False),
    sa.Column("credential_name", sa.Text, nullable=False),
    sa.Column("ttl_seconds", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("usable_at", UtcTime, nullable=False),
    sa.Column("credential_id", sa.Text),
    sa.Column("sip_username", sa.Text),
    sa.Column("claimed_by", sa.String(64)),
    sa.Column("claimed_until", UtcTime),
    sa.Column("attempted_at", UtcTime),
    sa.Column("retry_at", UtcTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("session", sa.Text),
    sa.Column("last_used_at", UtcTime),
    sa.Index("leases_by_age", "created_at", "id"),
    sa.Index("leases_of_a_user", "subject", "created_at", "id"),
    sa.Index("leases_of_a_connection", "connection_id", "created_at", "id"),
    sa.Index("leases_by_sip_username", "sip_username"),
)

not_before_marks = sa.Table(
    "not_before_marks",
    metadata,
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("reach", sa.String(16), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("not_before", UtcTime, nullable=False),
    sa.Column("made_at", UtcTime, nullable=False),
    sa.Index("marks_by_time", "made_at"),
)

logout_tokens = sa.Table(
    "logout_tokens",
    metadata,
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("token_id", sa.Text, primary_key=True),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Index("logout_tokens_by_expiry", "expires_at"),
)

push_objects = sa.Table(
    "push_objects",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("telnyx_alias", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("app_id", sa.Text, nullable=False),
    sa.Column("fingerprint_sha256", sa.String(64), nullable=False),
    sa.Column("not_after", UtcTime),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("credential_id", sa.Text),
    sa.Column("claimed_by", sa.String(64)),
    sa.Column("claimed_until", UtcTime),
    sa.Column("retry_at", UtcTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("warned_days", sa.Integer),
    sa.Index("push_objects_by_state", "state", "updated_at"),
    sa.Index("push_objects_by_expiry", "not_after"),
    sa.Index("push_objects_by_credential", "credential_id"),
)

push_registrations = sa.Table(
    "push_registrations",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Index("one_alias_a_user", "issuer", "subject", "alias", unique=True),
    sa.Index("registrations_of_an_object", "fingerprint"),
)

push_attachments = sa.Table(
    "push_attachments",
    metadata,
    sa.Column("connection_id", sa.Text, primary_key=True),
    sa.Column("type", sa.String(16), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Index("attachments_of_an_object", "fingerprint"),
)

audit_events = sa.Table(
    "audit_events",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64)),
    sa.Column("issuer", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("device_id", sa.String(64)),
    sa.Column("lease_id", sa.String(32)),
    sa.Column("token_sha256", sa.String(64)),
    sa.Column("actor_issuer", sa.Text),
    sa.Column("actor_subject", sa.Text),
    sa.Column("request_id", sa.String(64)),
    sa.Column("client_address", sa.String(64)),
    sa.Column("user_agent", sa.Text),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Index("audit_by_age", "at", "id"),
    sa.Index("audit_of_a_user", "subject", "at", "id"),
    sa.Index("audit_of_an_actor", "actor_subject", "at", "id"),
)

activity = sa.Table(
    "activity",
    metadata,
    sa.Column("minute", UtcTime, primary_key=True),
    sa.Column("action", sa.String(16), primary_key=True),
    sa.Column("outcome", sa.String(16), primary_key=True),
    sa.Column("events", sa.Integer, nullable=False),
)
"""The number of audit events per minute, so that a report on the last hour does not read a million rows."""

sweep_runs = sa.Table(
    "sweep_runs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("reason", sa.String(64)),
    sa.Column("report", sa.JSON),
    sa.Index("sweep_runs_by_age", "started_at"),
)

key_refreshes = sa.Table(
    "key_refreshes",
    metadata,
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("requested_at", UtcTime, nullable=False),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("user_hash", sa.String(64), primary_key=True),
    sa.Column("pseudonym", sa.Text, nullable=False),
    sa.Column("erased_before", UtcTime, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False),
    sa.Index("erasures_by_time", "recorded_at"),
)
"""Users that were erased, by keyed hash. No name is stored, so the row alone does not identify the user."""

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("backend_issuer", sa.Text, nullable=False),
    sa.Column("backend_subject", sa.Text, nullable=False),
    sa.Column("origin", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("device_id", sa.String(64)),
    sa.Column("revoked_at", UtcTime),
    sa.Index("grants_by_expiry", "expires_at"),
    sa.Index("grants_of_a_backend", "backend_subject", "backend_issuer"),
    sa.Index("grants_of_a_user", "subject"),
)
"""Grants that have not expired, or that a live lease was made with. Their tokens are not stored."""

event_queues = sa.Table(
    "event_queues",
    metadata,
    sa.Column("endpoint", sa.String(64), primary_key=True),
    sa.Column("queue", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("due_at", UtcTime, nullable=False),
    sa.Column("claimed_by", sa.String(64)),
    sa.Column("claimed_until", UtcTime),
    sa.Index("event_queues_by_due_time", "endpoint", "due_at"),
)
"""Queues with undelivered events: one for each endpoint, user and device."""

event_deliveries = sa.Table(
    "event_deliveries",
    metadata,
    # SQLite counts rows only in a column of type INTEGER.
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.String(64), nullable=False),
    sa.Column("queue", sa.String(32), nullable=False),
    sa.Column("event_id", sa.String(32), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("device_id", sa.String(64), nullable=False),
    sa.Column("lease_id", sa.String(32)),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("is_dead", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failure", sa.String(64)),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("dead_at", UtcTime),
    sa.Index("deliveries_of_a_user", "subject"),
    sqlite_autoincrement=True,
)
"""The outbox: an event for one endpoint, until it is delivered, and dead letters."""


def _partial(
    name: str, *columns: str, where: sa.TextClause, unique: bool = False, table: sa.Table = leases
) -> sa.Index:
    chosen = [table.c[column] for column in columns]
    return sa.Index(name, *chosen, unique=unique, sqlite_where=where, postgresql_where=where)


_partial("one_live_lease_a_device", "issuer", "subject", "device_id", where=IS_LIVE, unique=True)
_partial("unfinished_of_a_user", "issuer", "subject", "created_at", "id", where=IS_UNFINISHED)
_partial("leftover_by_retry", "retry_at", where=_in((LeaseState.REVOKING, LeaseState.EXPIRED)))
_partial("leftover_or_lost_by_retry", "retry_at", where=IS_AWAITING_DELETION)
_partial("active_by_expiry", "expires_at", where=IS_ACTIVE)
_partial("pending_by_age", "updated_at", where=IS_PENDING)
_partial("ended_by_time", "updated_at", where=HAS_ENDED)
_partial("changed_by_time", "updated_at", where=HAS_CHANGED)
_partial("pooled_of_a_connection", "connection_id", "usable_at", where=IS_POOLED)
_partial("leases_of_nobody", "created_at", where=IS_NOBODYS)
_partial("live_of_a_session", "issuer", "session", where=IS_LIVE)
_partial("pending_of_a_queue", "endpoint", "queue", "sequence", where=IS_UNDELIVERED, table=event_deliveries)
_partial("pending_by_expiry", "endpoint", "expires_at", where=IS_UNDELIVERED, table=event_deliveries)
_partial("dead_by_sequence", "sequence", where=IS_DEAD, table=event_deliveries)
_partial("dead_by_time", "dead_at", where=IS_DEAD, table=event_deliveries)
_partial("dead_of_an_event", "event_id", where=IS_DEAD, table=event_deliveries)


IS_OWNED = sa.and_(leases.c.issuer == sa.bindparam("issuer"), leases.c.subject == sa.bindparam("subject"))
"""The condition for one user, with bind parameters for statements that are built once."""


def owned_by(user_key: UserKey) -> sa.ColumnElement[bool]:
    return sa.and_(leases.c.issuer == user_key.issuer, leases.c.subject == user_key.subject)


def visible(issuer: sa.ColumnElement[str], visibility: Visibility) -> sa.ColumnElement[bool]:
    """The condition for rows of visible issuers."""
    return sa.true() if visibility.issuers is None else issuer.in_(sorted(visibility.issuers))


def lease_of(row: sa.RowMapping) -> Lease:
    values = dict(row)
    return Lease(**{**values, "platform": Platform(values["platform"]), "state": LeaseState(values["state"])})


_FIELDS = tuple(field.name for field in fields(Lease))


def is_older(created_at: datetime, lease_id: str) -> sa.ColumnElement[bool]:
    """The condition for leases after this one in a list that is sorted newest first."""
    moment = sa.bindparam("at", created_at, leases.c.created_at.type)
    return sa.tuple_(leases.c.created_at, leases.c.id) < sa.tuple_(moment, sa.literal(lease_id))


def row_of(lease: Lease) -> dict[str, Any]:
    return {name: getattr(lease, name) for name in _FIELDS}


def step(before: Lease, after: Lease) -> tuple[sa.Update, dict[str, Any]]:
    """The UPDATE from `before` to `after`, if the row's version is unchanged, and its parameters."""
    changes = {name: value for name in _FIELDS if (value := getattr(after, name)) != getattr(before, name)}
    return _step(tuple(changes)), changes | {"id_before": before.id, "version_before": before.version}


@lru_cache(maxsize=256)
def _step(changed: tuple[str, ...]) -> sa.Update:
    """Built once for each set of columns: building a statement takes longer than running it."""
    is_still = sa.and_(leases.c.id == sa.bindparam("id_before"), leases.c.version == sa.bindparam("version_before"))
    return leases.update().where(is_still).values({name: sa.bindparam(name) for name in changed})
