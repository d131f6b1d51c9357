"""Not-before entries, used logout tokens and requested key refreshes in the ledger, which all replicas share."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.adapters.ledger.database import Database, is_duplicate, one_at_a_time, one_session_at_a_time
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.pg_listener import announce
from app.adapters.ledger.tables import (
    IS_LIVE,
    key_refreshes,
    lease_of,
    leases,
    logout_tokens,
    not_before_marks,
    owned_by,
)
from app.vending.errors import LedgerUnavailable, LogoutTokenRejected
from app.vending.models import UserKey
from app.vending.not_before import LogoutClaims, NotBefore, NotBeforeTarget, Reach
from app.vending.telephony.lease import Lease
from app.vending.upkeep.change_feed import KeyRefresh

NOT_BEFORE_BATCH_SIZE = 10_000
"""Maximum number of entries that one poll of the change poller reads."""


class SqlNotBefore:
    """Stores not-before entries. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, outbox: EventOutbox | None = None) -> None:
        """`outbox` gets the events of leases that a logout ends."""
        self._database = database
        self._outbox = outbox

    async def set_not_before(self, not_before_entry: NotBefore) -> None:
        target = not_before_entry.target

        def work(connection: sa.Connection) -> None:
            # A login that has not seen the entry is committed first, so that a revocation after this finds its lease.
            if target.reach is Reach.USER:
                one_at_a_time(connection, UserKey(target.issuer, target.name))
            elif target.reach is Reach.SESSION:
                one_session_at_a_time(connection, target.issuer, target.name)
            self._put(connection, not_before_entry)

        await self._database.write(work)

    async def log_out(self, logout: LogoutClaims, now: datetime) -> list[Lease]:
        spent = logout_tokens.insert().values(
            issuer=logout.issuer, token_id=logout.token_id, expires_at=logout.expires_at
        )

        def work(connection: sa.Connection) -> list[Lease]:
            connection.execute(logout_tokens.delete().where(logout_tokens.c.expires_at < now))
            connection.execute(spent)
            if logout.subject is not None:
                one_at_a_time(connection, UserKey(logout.issuer, logout.subject))
            elif logout.session is not None:
                one_session_at_a_time(connection, logout.issuer, logout.session)
            for not_before_entry in logout.not_before_entries(now):
                self._put(connection, not_before_entry)
            ended = _end_leases(connection, logout, now)
            if self._outbox is not None:
                self._outbox.leases_changed(connection, ended)
            return [after for _, after in ended]

        try:
            return await self._database.write(work)
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise LogoutTokenRejected("used_before") from None
            raise

    async def not_before(self, targets: Sequence[NotBeforeTarget]) -> datetime | None:
        (row,) = await self._database.rows(latest_not_before(len(targets)), named(targets))
        latest: datetime | None = row["latest"]
        return latest

    async def not_before_since(self, moment: datetime) -> list[NotBefore]:
        query = (
            sa.select(not_before_marks)
            .where(not_before_marks.c.made_at >= moment)
            .order_by(not_before_marks.c.made_at)
            .limit(NOT_BEFORE_BATCH_SIZE)
        )
        return [
            NotBefore(
                NotBeforeTarget(row["issuer"], Reach(row["reach"]), row["name"]), row["not_before"], row["made_at"]
            )
            for row in await self._database.rows(query)
        ]

    async def request_key_refresh(self, wanted: KeyRefresh) -> None:
        def work(connection: sa.Connection) -> None:
            announce(connection)
            insert = self._insert(key_refreshes).values(issuer=wanted.issuer, requested_at=wanted.requested_at)
            changes = {"requested_at": insert.excluded.requested_at}
            connection.execute(insert.on_conflict_do_update(index_elements=["issuer"], set_=changes))

        await self._database.write(work)

    async def key_refreshes_since(self, moment: datetime) -> list[KeyRefresh]:
        query = sa.select(key_refreshes).where(key_refreshes.c.requested_at >= moment)
        return [KeyRefresh(row["issuer"], row["requested_at"]) for row in await self._database.rows(query)]

    def _put(self, connection: sa.Connection, not_before_entry: NotBefore) -> None:
        """Write an entry. If the target has one already, the later not-before is kept."""
        announce(connection)
        insert = self._insert(not_before_marks).values(
            issuer=not_before_entry.target.issuer,
            reach=not_before_entry.target.reach,
            name=not_before_entry.target.name,
            not_before=not_before_entry.not_before,
            made_at=not_before_entry.made_at,
        )
        new = insert.excluded
        later = sa.case(
            (new.not_before > not_before_marks.c.not_before, new.not_before), else_=not_before_marks.c.not_before
        )
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["issuer", "reach", "name"], set_={"not_before": later, "made_at": new.made_at}
            )
        )

    def _insert(self, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
        return sqlite.insert(table) if self._database.is_sqlite else postgresql.insert(table)


@lru_cache(maxsize=8)
def latest_not_before(targets: int) -> sa.Select[Any]:
    """The query for the latest not-before of a number of targets. `named` makes its parameters.

    It is an OR of equalities, because SQLite scans the table for a list of tuples.
    """
    parts = ("issuer", "reach", "name")
    each = (
        sa.and_(*(not_before_marks.c[part] == sa.bindparam(f"{part}{n}") for part in parts)) for n in range(targets)
    )
    return sa.select(sa.func.max(not_before_marks.c.not_before).label("latest")).where(sa.or_(*each))


def named(targets: Sequence[NotBeforeTarget]) -> dict[str, str]:
    return {
        f"{part}{number}": value
        for number, target in enumerate(targets)
        for part, value in (("issuer", target.issuer), ("reach", target.reach), ("name", target.name))
    }


def _end_leases(connection: sa.Connection, logout: LogoutClaims, now: datetime) -> list[tuple[Lease, Lease]]:
    """Returns each ended lease before and after."""
    ended = []
    query = sa.select(leases).where(IS_LIVE, _concerns(logout)).order_by(leases.c.id).with_for_update()
    for row in connection.execute(query).mappings().all():
        before = lease_of(row)
        lease = before.start_revoking(now)
        changes = {"state": lease.state, "version": lease.version, "updated_at": now, "retry_at": lease.retry_at}
        connection.execute(leases.update().where(leases.c.id == lease.id).values(changes))
        ended.append((before, lease))
    return ended


def _concerns(logout: LogoutClaims) -> sa.ColumnElement[bool]:
    in_session = sa.and_(leases.c.issuer == logout.issuer, leases.c.session == logout.session)
    if logout.subject is None:
        return in_session
    owned = owned_by(UserKey(logout.issuer, logout.subject))
    if logout.session is None:
        return owned
    return sa.and_(owned, sa.or_(leases.c.session == logout.session, leases.c.session.is_(None)))
