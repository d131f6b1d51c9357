"""Expiry alerts: Telnyx does not announce the expiry of a push certificate, so Dialtone warns days ahead."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.errors import PushConflict
from app.vending.push.models import PushObject, days_until

WARNING_DAYS = (30, 14, 7, 1, 0)
"""Days left at which a warning is given once, by the first replica that notices; 0: the object has expired."""

MAX_CHECKED = 1000
"""Maximum number of objects per check, soonest expiry first."""


class ExpiryLedger(Protocol):
    async def expiring_objects(self, limit: int) -> list[PushObject]:
        """ACTIVE objects that expire, soonest first."""

    async def note_warning(self, before: PushObject, days: int) -> None:
        """Record that the warning was given. Raises PushConflict if another replica was first."""


@dataclass(frozen=True, slots=True)
class DaysLeft:
    """Days until one push credential expires."""

    type: str
    app_id: str
    fingerprint_sha256: str
    days: float


class ExpiryAlerts:
    """Checks the certificates in use, periodically."""

    def __init__(
        self,
        ledger: ExpiryLedger,
        clock: Callable[[], datetime],
        warn: Callable[[PushObject, int], None],
    ) -> None:
        """`warn` is called with an object and its days left, once for each of WARNING_DAYS."""
        self._ledger = ledger
        self._clock = clock
        self._warn = warn
        self._watched: list[PushObject] = []

    async def check(self) -> None:
        """Raises LedgerUnavailable."""
        now = self._clock()
        self._watched = await self._ledger.expiring_objects(MAX_CHECKED)
        for found in self._watched:
            days_left = days_until(_end(found), now)
            threshold = min((days for days in WARNING_DAYS if days_left <= days), default=None)
            if threshold is None or (found.warned_days is not None and found.warned_days <= threshold):
                continue
            try:
                await self._ledger.note_warning(found, threshold)
            except PushConflict:
                continue
            self._warn(found, days_left)

    def days_left(self) -> Iterable[DaysLeft]:
        """For every object of the last check."""
        now = self._clock()
        for found in self._watched:
            days = (_end(found) - now) / timedelta(days=1)
            yield DaysLeft(found.type.value, found.app_id, found.fingerprint_sha256, days)


def _end(found: PushObject) -> datetime:
    if found.not_after is None:
        raise AssertionError("only objects that expire are watched")
    return found.not_after
