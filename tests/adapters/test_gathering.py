"""Group commit: writes that come together are committed together, and none pays for another's mistake."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.group_commit import GroupCommit
from app.adapters.ledger.leases import SqlLedger
from app.vending.errors import DeviceLimitReached, LeaseTaken, LedgerUnavailable
from app.vending.telephony.lease import Lease
from tests.adapters.test_ledger import pending
from tests.stage import migrated, principal, sqlite_in


async def opened(ledger: SqlLedger, lease: Lease, most: int = 10) -> Lease | Exception:
    try:
        return await ledger.open(lease, most, principal(lease.subject))
    except Exception as error:
        return error


Works = Sequence[Callable[[Any], Any]]


def slow(seconds: float) -> Callable[[Works], Awaitable[list[Any]]]:
    """A disk that takes so long for each transaction."""

    async def commit(works: Works) -> list[Any]:
        await asyncio.sleep(seconds)
        return [work(None) for work in works]

    return commit


@pytest.fixture
async def ledger(tmp_path: Path) -> SqlLedger:
    database = sqlite_in(tmp_path)
    await migrated(database)
    return SqlLedger(Database(open_engine(database_url(database))))


async def test_writes_that_come_together_share_transactions(ledger: SqlLedger) -> None:
    begun = 0

    def count(_: sa.Connection) -> None:
        nonlocal begun
        begun += 1

    sa.event.listen(sa.Engine, "commit", count)
    leases = [pending(number=number, subject=f"user-{number}") for number in range(100)]
    outcomes = await asyncio.gather(*(opened(ledger, lease) for lease in leases))
    sa.event.remove(sa.Engine, "commit", count)

    assert outcomes == leases
    assert begun <= 4, "the first alone, the others with whoever came meanwhile"


async def test_each_gets_its_own_outcome(ledger: SqlLedger) -> None:
    twice = replace(pending(number=3), device_id="laptop")
    wanted = [pending(number=1), pending("phone", 2), twice, pending("tablet", 4, subject="bob")]

    outcomes = await asyncio.gather(
        *(opened(ledger, lease, 1 if lease.device_id == "phone" else 10) for lease in wanted)
    )

    assert outcomes[0] == wanted[0]
    assert isinstance(outcomes[1], DeviceLimitReached)
    assert isinstance(outcomes[2], LeaseTaken)
    assert outcomes[3] == wanted[3]
    assert await ledger.find(wanted[3].id) == wanted[3], "what was good is written, though its neighbour was not"


async def test_while_the_ledger_is_away_everybody_hears_so_and_nobody_waits_for_the_others() -> None:
    tried: list[int] = []

    async def away(works: Works) -> list[Any]:
        tried.append(len(works))
        await asyncio.sleep(0.01)
        raise LedgerUnavailable from sa.exc.OperationalError("UPDATE", {}, Exception("database is locked"))

    group = GroupCommit(away, patience_seconds=5)

    outcomes = await asyncio.gather(*(group.write(lambda _: None) for _ in range(5)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 5
    assert tried == [5]


async def test_who_waits_too_long_for_a_turn_is_told_so_and_nothing_is_written_later() -> None:
    written: list[str] = []

    group = GroupCommit(slow(0.3), patience_seconds=0.1)
    first = asyncio.create_task(group.write(lambda _: written.append("first")))
    await asyncio.sleep(0.01)

    with pytest.raises(LedgerUnavailable):
        await group.write(lambda _: written.append("second"))
    await first
    await asyncio.sleep(0.4)

    assert written == ["first"]


async def test_who_leaves_before_the_turn_wants_nothing_written() -> None:
    written: list[str] = []

    group = GroupCommit(slow(0.05), patience_seconds=5)
    first = asyncio.create_task(group.write(lambda _: written.append("first")))
    await asyncio.sleep(0.01)
    leaving = asyncio.create_task(group.write(lambda _: written.append("second")))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await first
    await asyncio.sleep(0.1)

    assert written == ["first"]
