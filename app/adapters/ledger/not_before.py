"""Marks, spent logout tokens and asked-for key refreshes: what the identity side says, told to every replica."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.adapters.ledger.database import Database, is_duplicate, one_at_a_time
from app.adapters.ledger.pg_listener import announce
from app.adapters.ledger.tables import IS_LIVE, key_refreshes, lease_of, leases, logout_tokens, marks, owned_by
from app.vending.errors import LedgerUnavailable, LogoutRefused
from app.vending.models import Owner
from app.vending.not_before import Logout, Mark, Reach, Target
from app.vending.telephony.lease import Lease
from app.vending.upkeep.change_feed import KeyRefresh

MARKS_AT_ONCE = 10_000
"""Marks read by one look of the watch."""


class SqlMarks:
    """Every method raises LedgerUnavailable when the database does not do its part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def mark(self, mark: Mark) -> None:
        async with self._database.writing() as connection:
            await self._put(connection, mark)

    async def log_out(self, logout: Logout, now: datetime) -> list[Lease]:
        spent = logout_tokens.insert().values(
            issuer=logout.issuer, token_id=logout.token_id, expires_at=logout.expires_at
        )
        try:
            async with self._database.writing() as connection:
                await connection.execute(logout_tokens.delete().where(logout_tokens.c.expires_at < now))
                await connection.execute(spent)
                if logout.subject is not None:
                    await connection.run_sync(one_at_a_time, Owner(logout.issuer, logout.subject))
                for mark in logout.marks(now):
                    await self._put(connection, mark)
                return await _end_leases(connection, logout, now)
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise LogoutRefused("used_before") from None
            raise

    async def not_before(self, targets: Sequence[Target]) -> datetime | None:
        async with self._database.reading() as connection:
            return await connection.run_sync(_latest, targets)

    async def marks_since(self, moment: datetime) -> list[Mark]:
        query = sa.select(marks).where(marks.c.made_at >= moment).order_by(marks.c.made_at).limit(MARKS_AT_ONCE)
        return [
            Mark(Target(row["issuer"], Reach(row["reach"]), row["name"]), row["not_before"], row["made_at"])
            for row in await self._database.rows(query)
        ]

    async def ask_for_keys(self, wanted: KeyRefresh) -> None:
        async with self._database.writing() as connection:
            await connection.run_sync(announce)
            insert = self._insert(key_refreshes).values(issuer=wanted.issuer, requested_at=wanted.requested_at)
            changes = {"requested_at": insert.excluded.requested_at}
            await connection.execute(insert.on_conflict_do_update(index_elements=["issuer"], set_=changes))

    async def key_refreshes_since(self, moment: datetime) -> list[KeyRefresh]:
        query = sa.select(key_refreshes).where(key_refreshes.c.requested_at >= moment)
        return [KeyRefresh(row["issuer"], row["requested_at"]) for row in await self._database.rows(query)]

    async def _put(self, connection: AsyncConnection, mark: Mark) -> None:
        """Of two marks on one target the later moment holds, whichever is written first."""
        await connection.run_sync(announce)
        insert = self._insert(marks).values(
            issuer=mark.target.issuer,
            reach=mark.target.reach,
            name=mark.target.name,
            not_before=mark.not_before,
            made_at=mark.made_at,
        )
        new = insert.excluded
        later = sa.case((new.not_before > marks.c.not_before, new.not_before), else_=marks.c.not_before)
        await connection.execute(
            insert.on_conflict_do_update(
                index_elements=["issuer", "reach", "name"], set_={"not_before": later, "made_at": new.made_at}
            )
        )

    def _insert(self, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
        return sqlite.insert(table) if self._database.is_sqlite else postgresql.insert(table)


def _latest(connection: sa.Connection, targets: Sequence[Target]) -> datetime | None:
    latest: datetime | None = connection.scalar(latest_mark(len(targets)), named(targets))
    return latest


@lru_cache(maxsize=8)
def latest_mark(targets: int) -> sa.Select[Any]:
    """The latest mark on so many targets, which are `named` in its parameters. Made once for each number.

    An OR of equalities, because SQLite scans the table for a list of tuples.
    """
    parts = ("issuer", "reach", "name")
    each = (sa.and_(*(marks.c[part] == sa.bindparam(f"{part}{n}") for part in parts)) for n in range(targets))
    return sa.select(sa.func.max(marks.c.not_before)).where(sa.or_(*each))


def named(targets: Sequence[Target]) -> dict[str, str]:
    return {
        f"{part}{number}": value
        for number, target in enumerate(targets)
        for part, value in (("issuer", target.issuer), ("reach", target.reach), ("name", target.name))
    }


async def _end_leases(connection: AsyncConnection, logout: Logout, now: datetime) -> list[Lease]:
    ended = []
    query = sa.select(leases).where(IS_LIVE, _concerns(logout)).order_by(leases.c.id).with_for_update()
    for row in (await connection.execute(query)).mappings().all():
        lease = lease_of(row).revoking(now)
        changes = {"state": lease.state, "version": lease.version, "updated_at": now, "retry_at": lease.retry_at}
        await connection.execute(leases.update().where(leases.c.id == lease.id).values(changes))
        ended.append(lease)
    return ended


def _concerns(logout: Logout) -> sa.ColumnElement[bool]:
    in_session = sa.and_(leases.c.issuer == logout.issuer, leases.c.session == logout.session)
    if logout.subject is None:
        return in_session
    owned = owned_by(Owner(logout.issuer, logout.subject))
    if logout.session is None:
        return owned
    return sa.and_(owned, sa.or_(leases.c.session == logout.session, leases.c.session.is_(None)))
