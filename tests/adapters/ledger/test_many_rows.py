"""Rows of ManyRows equal those that SQLAlchemy stores, on each database."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.many_rows import ManyRows
from app.adapters.ledger.tables import audit_events, sweep_runs

NOT_UTC = datetime(2026, 11, 26, 12, 30, 0, 5, timezone(timedelta(hours=5, minutes=30)))
EMPTY = dict.fromkeys(audit_events.c.keys()) | {"at": NOT_UTC, "action": "denied", "outcome": "denied", "details": {}}
EVENTS: dict[str, dict[str, Any]] = {
    "usual": {"subject": "alice", "details": {"rule": "desk", "folded": 3}},
    "no values": {},
    "other scripts": {"subject": "Zoë ✆ \U0001f4de", "user_agent": "quote ' \" \\ $1 ? :name %s"},
    "whole second": {"at": datetime(2026, 1, 1, tzinfo=UTC)},
}


async def stored(database: Database) -> list[dict[str, Any]]:
    return [dict(row) for row in await database.rows(sa.select(audit_events).order_by(audit_events.c.id))]


@pytest.mark.parametrize("changes", EVENTS.values(), ids=EVENTS.keys())
async def test_many_rows_stores_the_row_that_sqlalchemy_stores(opened: Database, changes: dict[str, Any]) -> None:
    rows = [EMPTY | {"id": name} | changes for name in ("a", "b")]

    await opened.write(lambda connection: ManyRows(audit_events.insert()).execute(connection, rows[:1]))
    await opened.write(lambda connection: connection.execute(audit_events.insert(), rows[1:]))

    ours, theirs = await stored(opened)
    assert ours | {"id": "b"} == theirs


async def test_many_rows_updates_each_row_with_its_own_values(opened: Database) -> None:
    runs = [{"id": name, "state": "running", "started_at": NOT_UTC} for name in ("a", "b", "c")]
    statement = (
        sweep_runs.update()
        .where(sweep_runs.c.id == sa.bindparam("run"), sweep_runs.c.started_at < sa.bindparam("moment"))
        .values(ended_at=sa.bindparam("moment"))
    )
    later, earlier = NOT_UTC + timedelta(hours=1), NOT_UTC - timedelta(hours=1)

    def work(connection: sa.Connection) -> None:
        connection.execute(sweep_runs.insert(), runs)
        ManyRows(statement).execute(connection, [{"run": "a", "moment": later}, {"run": "b", "moment": earlier}])

    await opened.write(work)

    ended = {row["id"]: row["ended_at"] for row in await opened.rows(sa.select(sweep_runs))}
    assert ended == {"a": later, "b": None, "c": None}


async def test_no_row_needs_no_statement(opened: Database) -> None:
    await opened.write(lambda connection: ManyRows(audit_events.insert()).execute(connection, []))

    assert await stored(opened) == []


async def test_time_without_a_zone_is_an_error_and_stores_nothing(opened: Database) -> None:
    rows = [EMPTY | {"id": "a"}, EMPTY | {"id": "b", "at": NOT_UTC.replace(tzinfo=None)}]

    with pytest.raises(ValueError, match="a time without a zone"):
        await opened.write(lambda connection: ManyRows(audit_events.insert()).execute(connection, rows))

    assert await stored(opened) == []
