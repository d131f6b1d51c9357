"""The leases on SQLite or PostgreSQL: each method one short transaction."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.adapters.ledger.announcing import announce
from app.adapters.ledger.database import Database, is_duplicate
from app.adapters.ledger.marks import check_not_marked
from app.adapters.ledger.tables import (
    HAS_ENDED,
    IS_LIVE,
    IS_NOBODYS,
    IS_POOLED,
    IS_UNFINISHED,
    changes_between,
    is_older,
    is_still,
    lease_of,
    leases,
    owned_by,
)
from app.vending.errors import DeviceLimitReached, LeaseMoved, LeaseTaken, LedgerUnavailable
from app.vending.leases import ENDED, Lease
from app.vending.nouns import Owner, Principal

ENDED_AT_ONCE = 10_000
"""Ended leases read by one look of the watch."""


class SqlLedger:
    """The ledger. Every method raises LedgerUnavailable when the database does not do its part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def live_lease(self, owner: Owner, device_id: str) -> Lease | None:
        query = sa.select(leases).where(owned_by(owner), leases.c.device_id == device_id, IS_LIVE)
        return await self._one(query)

    async def find(self, lease_id: str) -> Lease | None:
        return await self._one(sa.select(leases).where(leases.c.id == lease_id))

    async def unfinished(self, owner: Owner) -> list[Lease]:
        return await self._all(sa.select(leases).where(owned_by(owner), IS_UNFINISHED))

    async def page(self, owner: Owner, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        query = sa.select(leases).where(owned_by(owner), IS_UNFINISHED)
        if after is not None:
            query = query.where(is_older(*after))
        return await self._all(query.order_by(leases.c.created_at.desc(), leases.c.id.desc()).limit(limit))

    async def open(self, lease: Lease, max_devices: int, principal: Principal) -> Lease:
        try:
            async with self._database.writing() as connection:
                # Else two devices could both be the last that the limit allows, or a logout miss the row written here.
                await self._database.one_at_a_time(connection, lease.owner)
                await check_not_marked(connection, principal)
                await _check_room(connection, lease, max_devices)
                return await _claim_pooled(connection, lease) or await _insert(connection, lease)
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise LeaseTaken from None
            raise

    async def is_empty(self) -> bool:
        return not await self._database.rows(sa.select(leases.c.id).limit(1))

    async def open_pooled(self, lease: Lease) -> None:
        async with self._database.writing() as connection:
            await _insert(connection, lease)

    async def pooled(self, limit: int) -> list[Lease]:
        return await self._all(sa.select(leases).where(IS_NOBODYS).order_by(leases.c.created_at).limit(limit))

    async def advance(self, before: Lease, after: Lease) -> Lease:
        update = leases.update().where(is_still(before)).values(changes_between(before, after))
        async with self._database.writing() as connection:
            if (await connection.execute(update)).rowcount != 1:
                raise LeaseMoved
            if after.state in ENDED and before.state not in ENDED:
                await announce(connection)
        return after

    async def ended_since(self, moment: datetime) -> list[Lease]:
        query = sa.select(leases).where(HAS_ENDED, leases.c.updated_at >= moment)
        return await self._all(query.order_by(leases.c.updated_at).limit(ENDED_AT_ONCE))

    async def _one(self, query: sa.Select[Any]) -> Lease | None:
        rows = await self._database.rows(query)
        return lease_of(rows[0]) if rows else None

    async def _all(self, query: sa.Select[Any]) -> list[Lease]:
        return [lease_of(row) for row in await self._database.rows(query)]


async def _check_room(connection: AsyncConnection, lease: Lease, max_devices: int) -> None:
    live = sa.select(sa.func.count()).where(owned_by(lease.owner), IS_LIVE, leases.c.expires_at > lease.created_at)
    if (await connection.scalar(live) or 0) < max_devices:
        return
    # The device's own live lease is no reason to refuse it: let the unique index speak first.
    same = sa.select(leases.c.id).where(owned_by(lease.owner), leases.c.device_id == lease.device_id, IS_LIVE)
    raise LeaseTaken if await connection.scalar(same) is not None else DeviceLimitReached


async def _insert(connection: AsyncConnection, lease: Lease) -> Lease:
    await connection.execute(leases.insert().values(asdict(lease)))
    return lease


async def _claim_pooled(connection: AsyncConnection, intent: Lease) -> Lease | None:
    """A ready credential of the connection, now the device's; None where there is none."""
    ready = sa.select(leases).where(
        IS_POOLED,
        leases.c.connection_id == intent.connection_id,
        leases.c.usable_at <= intent.created_at,
        leases.c.expires_at > intent.created_at,
    )
    query = ready.order_by(leases.c.usable_at).limit(1).with_for_update(skip_locked=True)
    found = (await connection.execute(query)).mappings().first()
    if found is None:
        return None
    before = lease_of(found)
    claimed = before.claimed_for(intent)
    await connection.execute(leases.update().where(is_still(before)).values(changes_between(before, claimed)))
    return claimed
