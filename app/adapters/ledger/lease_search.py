"""Lease queries of operators: search with filters, count, and revoke many leases at once."""

from datetime import datetime

import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.pg_listener import announce
from app.adapters.ledger.tables import (
    IS_ACTIVE,
    IS_LIVE,
    IS_PENDING,
    IS_POOLED,
    is_older,
    lease_of,
    leases,
    step,
    visible,
)
from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.telephony.lease import Lease, LeaseState


class SqlLeaseSearch:
    """Searches leases of all users. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, outbox: EventOutbox | None = None) -> None:
        """`outbox` gets the events of revoked leases."""
        self._database = database
        self._outbox = outbox

    async def matching(self, criteria: LeaseCriteria, after: tuple[datetime, str] | None, limit: int) -> list[Lease]:
        query = sa.select(leases).where(*_conditions(criteria))
        if after is not None:
            query = query.where(is_older(*after))
        newest_first = query.order_by(leases.c.created_at.desc(), leases.c.id.desc()).limit(limit)
        return [lease_of(row) for row in await self._database.rows(newest_first)]

    async def census(self) -> dict[str, int]:
        found = {}
        for state, condition in (
            (LeaseState.PENDING, IS_PENDING),
            (LeaseState.ACTIVE, IS_ACTIVE),
            (LeaseState.POOLED, IS_POOLED),
        ):
            async with self._database.reading() as connection:
                # Counted from the partial index of that state, without reading rows.
                query = sa.select(sa.func.count()).select_from(leases).where(condition)
                found[state.value] = (await connection.execute(query)).scalar_one()
        return found

    async def end_matching(
        self, criteria: LeaseCriteria, made_until: datetime, after_id: str, now: datetime, limit: int
    ) -> list[Lease]:
        ended: list[tuple[Lease, Lease]] = []
        # All bulk updates lock rows in the order of their ids. Otherwise two of them could deadlock.
        query = sa.select(leases).where(
            IS_LIVE, leases.c.id > after_id, leases.c.created_at <= made_until, *_conditions(criteria)
        )
        query = query.order_by(leases.c.id).limit(limit)
        async with self._database.writing() as connection:
            for row in (await connection.execute(query.with_for_update())).mappings().all():
                before = lease_of(row)
                after = before.start_revoking(now)
                await connection.execute(*step(before, after))
                ended.append((before, after))
            if ended:
                await connection.run_sync(announce)
            if self._outbox is not None:
                await connection.run_sync(self._outbox.leases_changed, ended)
        return [after for _, after in ended]


def _conditions(criteria: LeaseCriteria) -> list[sa.ColumnElement[bool]]:
    at = leases.c
    wanted = {
        at.issuer: criteria.issuer,
        at.subject: criteria.subject,
        at.device_id: criteria.device_id,
        at.platform: criteria.platform,
        at.state: criteria.state,
        at.connection_id: criteria.connection_id,
        at.sip_username: criteria.sip_username,
    }
    equal = [column == value for column, value in wanted.items() if value is not None]
    if criteria.id_prefix is not None:
        # A range, which the index of ids serves in every collation. Ids have digits and the letters a to f.
        equal += [at.id >= criteria.id_prefix, at.id < f"{criteria.id_prefix}g"]
    return [at.issuer != "", visible(at.issuer, criteria.visibility), *equal]
