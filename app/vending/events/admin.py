"""Operators' view of events: list deliveries, and replay dead letters.

The caller checks access first (`ActivePolicy.authorize_operator`, or a shell on the machine).
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.events.models import Delivery

REPLAY_BATCH_SIZE = 1000
"""Dead letters that one call replays."""


class EventAdminLedger(Protocol):
    """Every method raises LedgerUnavailable."""

    async def matching(
        self, *, is_dead: bool, endpoint: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Dead letters or pending events, newest first."""

    async def replay(self, event_id: str | None, endpoint: str | None, now: datetime, limit: int) -> int:
        """Make dead letters pending for a new delivery period, the oldest first. Returns their number."""


class Replay(NamedTuple):
    """Outcome of a call."""

    replayed: int
    is_complete: bool
    """False if more dead letters match: the caller repeats the call."""


class EventAdmin:
    """Operator actions on events."""

    def __init__(self, ledger: EventAdminLedger, audit: Audit, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._audit = audit
        self._clock = clock

    async def deliveries(
        self, *, is_dead: bool, endpoint: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Newest first."""
        return await self._ledger.matching(is_dead=is_dead, endpoint=endpoint, after=after, limit=limit)

    async def replay(self, event_id: str | None, endpoint: str | None) -> Replay:
        """Deliver dead letters again: those of one event, of one endpoint, or all."""
        count = await self._ledger.replay(event_id, endpoint, self._clock(), REPLAY_BATCH_SIZE)
        chosen = {"event_id": event_id, "endpoint": endpoint}
        details: dict[str, str | int] = {name: value for name, value in chosen.items() if value is not None}
        details["events"] = count
        await self._audit.record(Decision(AuditAction.ADMIN_ACTION, reason="events_replayed", details=details))
        return Replay(count, count < REPLAY_BATCH_SIZE)
