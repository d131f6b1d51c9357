"""Ledger queries of the sweeper: due rows, which it claims so that no other replica processes them too."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.tables import (
    HAS_ENDED,
    IS_ACTIVE,
    IS_AWAITING_DELETION,
    IS_PENDING,
    lease_of,
    leases,
    step,
    sweep_runs,
)
from app.vending.telephony.lease import Lease
from app.vending.upkeep.sweep_jobs import SweepJob, SweepJobState
from app.vending.upkeep.sweeper import Backlog


class SqlSweep:
    """Finds due rows by index only. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, outbox: EventOutbox | None = None) -> None:
        """`outbox` gets the events of expired leases."""
        self._database = database
        self._outbox = outbox

    async def due(self, now: datetime, stale_before: datetime, limit: int) -> list[Lease]:
        found: list[Lease] = []
        for query in _due(now, stale_before):
            found += await self._all(query.limit(limit - len(found)))
        return found

    async def expire(self, now: datetime, limit: int) -> list[Lease]:
        query = (
            sa.select(leases).where(IS_ACTIVE, leases.c.expires_at <= now).order_by(leases.c.expires_at).limit(limit)
        )
        if not await self._database.rows(query.with_only_columns(leases.c.id)):
            return []  # the usual case: no write lock is taken

        def work(connection: sa.Connection) -> list[Lease]:
            rows = connection.execute(query.with_for_update(skip_locked=True)).mappings().all()
            ended = [(before, before.mark_expired(now)) for before in map(lease_of, rows)]
            for before, after in ended:
                connection.execute(*step(before, after))
            if self._outbox is not None:
                self._outbox.leases_changed(connection, ended)
            return [after for _, after in ended]

        return await self._database.write(work)

    async def take_due(
        self, now: datetime, stale_before: datetime, limit: int, take: Callable[[Lease], Lease]
    ) -> list[Lease]:
        taken: list[tuple[Lease, Lease]] = []
        async with self._database.writing() as connection:
            for query in _due(now, stale_before):
                free = query.limit(limit - len(taken)).with_for_update(skip_locked=True)
                for row in (await connection.execute(free)).mappings().all():
                    before = lease_of(row)
                    after = take(before)
                    await connection.execute(*step(before, after))
                    taken.append((before, after))
            if self._outbox is not None:
                await connection.run_sync(self._outbox.leases_changed, taken)
        return [after for _, after in taken]

    async def backlog(self, min_attempts: int) -> Backlog:
        irrevocable = sa.func.sum(sa.case((leases.c.attempts >= min_attempts, 1), else_=0))
        query = sa.select(sa.func.count(), irrevocable, sa.func.min(leases.c.created_at)).where(IS_AWAITING_DELETION)
        async with self._database.reading() as connection:
            waiting, stuck_count, oldest = (await connection.execute(query)).one()
        return Backlog(waiting, stuck_count or 0, oldest)

    async def irrevocable(self, min_attempts: int, limit: int) -> list[Lease]:
        query = sa.select(leases).where(IS_AWAITING_DELETION, leases.c.attempts >= min_attempts)
        return await self._all(query.order_by(leases.c.retry_at).limit(limit))

    async def save_job(self, run: SweepJob) -> None:
        values = {**asdict(run), "state": run.state.value}
        async with self._database.writing() as connection:
            await connection.execute(sweep_runs.delete().where(sweep_runs.c.id == run.id))
            await connection.execute(sweep_runs.insert().values(values))

    async def find_job(self, run_id: str) -> SweepJob | None:
        rows = await self._database.rows(sa.select(sweep_runs).where(sweep_runs.c.id == run_id))
        return SweepJob(**{**rows[0], "state": SweepJobState(rows[0]["state"])}) if rows else None

    async def delete_ended(self, ended_before: datetime, limit: int) -> int:
        is_done = sa.and_(HAS_ENDED, leases.c.updated_at < ended_before, leases.c.retry_at.is_(None))
        query = sa.select(leases.c.id).where(is_done).order_by(leases.c.updated_at).limit(limit)
        if not (rows := await self._database.rows(query)):
            return 0  # the usual case: no write lock is taken
        async with self._database.writing() as connection:
            ids = [row["id"] for row in rows]
            await connection.execute(sweep_runs.delete().where(sweep_runs.c.started_at < ended_before))
            return (await connection.execute(leases.delete().where(leases.c.id.in_(ids), is_done))).rowcount

    async def _all(self, query: sa.Select[Any]) -> list[Lease]:
        return [lease_of(row) for row in await self._database.rows(query)]


def _due(now: datetime, stale_before: datetime) -> Iterator[sa.Select[Any]]:
    for condition, column, moment in (
        (IS_AWAITING_DELETION, leases.c.retry_at, now),
        (IS_ACTIVE, leases.c.expires_at, now),
        (IS_PENDING, leases.c.updated_at, stale_before),
    ):
        yield sa.select(leases).where(condition, column <= moment).order_by(column)
