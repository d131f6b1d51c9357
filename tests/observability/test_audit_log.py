"""The queue of audit events: which events count as queued, and their order after a failure."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import count

from app.observability.audit_log import AuditLog
from app.vending.audit import AuditAction, AuditEvent, Decision
from app.vending.errors import LedgerUnavailable
from tests.support.leases import NOW
from tests.support.waiting import eventually


class Table:
    """Stores events once `is_open` is set. Each call raises the next planned failure."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.failures: list[Exception | None] = []
        self.calls = 0
        self.is_open = asyncio.Event()

    async def write(self, events: Sequence[AuditEvent]) -> None:
        self.calls += 1
        await self.is_open.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.rows += [str(event.decision.reason) for event in events]


async def forget(_: object, __: int) -> int:
    return 0


def audit_log(table: Table) -> AuditLog:
    numbers = count()
    return AuditLog(
        write=table.write,
        forget=forget,
        count=lambda _: None,
        count_repeat=lambda _: None,
        clock=lambda: NOW,
        new_id=lambda: f"{next(numbers):032x}",
        monotonic=lambda: 0.0,
        is_required=False,
        retention=timedelta(days=1),
    )


async def test_event_is_queued_until_its_row_is_written() -> None:
    table = Table()
    audit = audit_log(table)
    audit.record_nowait(Decision(AuditAction.ADMIN_ACTION, reason="first"))
    await eventually(lambda: table.calls)

    assert audit.queued == 1

    table.is_open.set()
    await eventually(lambda: not audit.queued)
    assert table.rows == ["first"]


async def test_events_keep_their_order_when_the_ledger_fails_between_them() -> None:
    table = Table()
    table.is_open.set()
    # The batch has an event that cannot be written, so its events are written singly: "a", and then the ledger fails.
    table.failures = [ValueError(), None, LedgerUnavailable()]
    audit = audit_log(table)
    for reason in "abc":
        audit.record_nowait(Decision(AuditAction.ADMIN_ACTION, reason=reason))

    await eventually(lambda: not audit.queued)

    assert table.rows == ["a", "b", "c"]
