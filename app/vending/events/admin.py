"""Operators' view of events: list deliveries, and replay dead letters.

The caller checks access first (`ActivePolicy.authorize_operator`, or a shell on the machine).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.events.endpoints import ActiveEndpoints
from app.vending.events.models import Delivery

REPLAY_BATCH_SIZE = 1000
"""Dead letters that one call replays."""


class EventAdminLedger(Protocol):
    """Every method raises LedgerUnavailable."""

    async def matching(
        self, *, is_dead: bool, endpoint: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Dead letters or pending events, newest first."""

    async def replay(
        self, event_id: str | None, endpoint: str | None, endpoints: Sequence[str], now: datetime, limit: int
    ) -> int:
        """Make dead letters of these endpoints pending for a new delivery period, the oldest first.

        Skips rows that another transaction changes. Returns the number of replayed dead letters.
        """

    async def dead_letters(self, event_id: str | None, endpoint: str | None) -> dict[str, int]:
        """The number of matching dead letters by endpoint."""


class Replay(NamedTuple):
    """Outcome of a call."""

    replayed: int
    remaining: int
    """Matching dead letters that another call can replay: those above REPLAY_BATCH_SIZE, and those that another
    transaction was changing."""
    endpoint_removed: int
    """Matching dead letters that cannot be replayed, because their endpoint is no longer configured."""


class EventAdmin:
    """Operator actions on events."""

    def __init__(
        self, ledger: EventAdminLedger, active: ActiveEndpoints, audit: Audit, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._active = active
        self._audit = audit
        self._clock = clock

    async def deliveries(
        self, *, is_dead: bool, endpoint: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Newest first."""
        return await self._ledger.matching(is_dead=is_dead, endpoint=endpoint, after=after, limit=limit)

    async def replay(self, event_id: str | None, endpoint: str | None) -> Replay:
        """Deliver dead letters again: those of one event, of one endpoint, or all."""
        in_use = self._active.names()
        count = await self._ledger.replay(event_id, endpoint, in_use, self._clock(), REPLAY_BATCH_SIZE)
        chosen = {"event_id": event_id, "endpoint": endpoint}
        details: dict[str, str | int] = {name: value for name, value in chosen.items() if value is not None}
        details["events"] = count
        # Recorded before the ledger is read again, because that may fail.
        await self._audit.record(Decision(AuditAction.ADMIN_ACTION, reason="events_replayed", details=details))
        left = await self._ledger.dead_letters(event_id, endpoint)
        remaining = sum(events for name, events in left.items() if name in in_use)
        return Replay(count, remaining, sum(left.values()) - remaining)
