"""Group commit: concurrent writes share a transaction, and a failing write does not affect the others."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.group_commit import GroupCommit
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.many_rows import ManyRows
from app.adapters.ledger.tables import audit_events
from app.vending.errors import DeviceLimitReached, LedgerUnavailable
from app.vending.telephony.lease import Lease
from tests.support.databases import migrate_database, sqlite_url
from tests.support.leases import open_lease, pending_lease
from tests.support.tokens import principal

INSERT = ManyRows(audit_events.insert())


async def opened(ledger: SqlLeases, lease: Lease, most: int = 10) -> Lease | Exception:
    try:
        return await open_lease(ledger, lease, most, principal(lease.subject))
    except Exception as error:
        return error


Works = Sequence[Callable[[Any], Any]]


class Disk:
    """A disk that executes no transaction until it is ready."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.is_busy = asyncio.Event()
        """Set once a transaction has begun."""
        self.is_ready = asyncio.Event()

    async def commit(self, works: Works) -> list[Any]:
        self.is_busy.set()
        await self.is_ready.wait()
        return [work(None) for work in works]

    def write(self, name: str) -> Callable[[Any], None]:
        return lambda _: self.written.append(name)


@pytest.fixture
async def ledger(tmp_path: Path) -> SqlLeases:
    database = sqlite_url(tmp_path)
    await migrate_database(database)
    return SqlLeases(Database(open_engine(database_url(database))))


async def test_concurrent_writes_share_transactions(ledger: SqlLeases) -> None:
    begun = 0

    def count(_: sa.Connection) -> None:
        nonlocal begun
        begun += 1

    sa.event.listen(sa.Engine, "commit", count)
    leases = [pending_lease(number=number, subject=f"user-{number}") for number in range(100)]
    outcomes = await asyncio.gather(*(opened(ledger, lease) for lease in leases))
    sa.event.remove(sa.Engine, "commit", count)

    assert outcomes == leases
    assert begun <= 4, "the first alone, the others together"


async def test_each_write_gets_its_own_result(ledger: SqlLeases) -> None:
    twice = replace(pending_lease(number=3), device_id="laptop")
    wanted = [pending_lease(number=1), pending_lease("phone", 2), twice, pending_lease("tablet", 4, subject="bob")]

    outcomes = await asyncio.gather(
        *(opened(ledger, lease, 1 if lease.device_id == "phone" else 10) for lease in wanted)
    )

    assert outcomes[0] == wanted[0]
    assert isinstance(outcomes[1], DeviceLimitReached)
    assert outcomes[2] == wanted[0], "the device has a lease, which the same batch opened"
    assert outcomes[3] == wanted[3]
    assert await ledger.find(wanted[3].id) == wanted[3], "valid writes are committed although another one failed"


async def test_write_with_a_value_that_cannot_be_converted_fails_alone(tmp_path: Path) -> None:
    await migrate_database(sqlite_url(tmp_path))
    database = Database(open_engine(database_url(sqlite_url(tmp_path))))
    event = dict.fromkeys(audit_events.c.keys()) | {"action": "denied", "outcome": "denied", "details": {}}
    at = datetime(2026, 11, 26, tzinfo=UTC)

    def insert(name: str, moment: datetime) -> Callable[[sa.Connection], None]:
        return lambda connection: INSERT.execute(connection, [event | {"id": name, "at": moment}])

    outcomes = await asyncio.gather(
        *(database.write(insert(name, at)) for name in ("a", "b", "c")),
        database.write(insert("d", at.replace(tzinfo=None))),
        return_exceptions=True,
    )

    assert outcomes[:3] == [None] * 3
    assert isinstance(outcomes[3], ValueError)
    assert len(await database.rows(sa.select(audit_events.c.id))) == 3


async def test_unavailable_ledger_fails_all_pending_writes_at_once() -> None:
    tried: list[int] = []

    async def unavailable(works: Works) -> list[Any]:
        tried.append(len(works))
        await asyncio.sleep(0.01)
        raise LedgerUnavailable from sa.exc.OperationalError("UPDATE", {}, Exception("database is locked"))

    group = GroupCommit(unavailable, timeout_seconds=5)

    outcomes = await asyncio.gather(*(group.write(lambda _: None) for _ in range(5)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 5
    assert tried == [5]


async def test_write_that_times_out_in_the_queue_is_never_executed() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, timeout_seconds=0.1)
    first = asyncio.create_task(group.write(disk.write("first")))
    await disk.is_busy.wait()

    with pytest.raises(LedgerUnavailable):
        await group.write(disk.write("second"))
    disk.is_ready.set()
    await first
    await group.write(disk.write("third"))

    assert disk.written == ["first", "third"]


async def test_cancelled_write_is_never_executed() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, timeout_seconds=20)
    first = asyncio.create_task(group.write(disk.write("first")))
    await disk.is_busy.wait()
    leaving = asyncio.create_task(group.write(disk.write("second")))
    await asyncio.sleep(0)
    leaving.cancel()
    disk.is_ready.set()
    await first
    await group.write(disk.write("third"))

    assert disk.written == ["first", "third"]
