"""Expiry watched: Telnyx tells nobody when a push certificate dies, so this does, days ahead."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.errors import PushConflict
from app.vending.push.models import PushObject

WARNING_DAYS = (30, 14, 7, 1, 0)
"""A warning is given once when so many days are left, by whichever replica is first; 0 means that it has expired."""

MAX_CHECKED = 1000
"""Those that expire soonest; the rest have longer."""


class ExpiryLedger(Protocol):
    async def expiring_objects(self, limit: int) -> list[PushObject]:
        """ACTIVE objects that expire, soonest first."""

    async def note_warning(self, before: PushObject, days: int) -> None:
        """Write down that it was given. Raises PushConflict if another replica was first."""


@dataclass(frozen=True, slots=True)
class DaysLeft:
    """How long one push credential has."""

    type: str
    app_id: str
    fingerprint_sha256: str
    days: float


class ExpiryAlerts:
    """Looks through the certificates in use, now and then."""

    def __init__(
        self,
        ledger: ExpiryLedger,
        clock: Callable[[], datetime],
        warn: Callable[[PushObject, int], None],
    ) -> None:
        """`warn` hears of an object and the days it has left, at each of WARNING_DAYS once."""
        self._ledger = ledger
        self._clock = clock
        self._warn = warn
        self._watched: list[PushObject] = []

    async def check(self) -> None:
        """Raises LedgerUnavailable."""
        now = self._clock()
        self._watched = await self._ledger.expiring_objects(MAX_CHECKED)
        for found in self._watched:
            threshold = _threshold(found, now)
            if threshold is None or (found.warned_days is not None and found.warned_days <= threshold):
                continue
            try:
                await self._ledger.note_warning(found, threshold)
            except PushConflict:
                continue
            self._warn(found, max(0, (_end(found) - now).days))

    def days_left(self) -> Iterable[DaysLeft]:
        """Of every object seen at the last look."""
        now = self._clock()
        for found in self._watched:
            days = (_end(found) - now) / timedelta(days=1)
            yield DaysLeft(found.type.value, found.app_id, found.fingerprint_sha256, days)


def _threshold(found: PushObject, now: datetime) -> int | None:
    """The smallest number of WARNING_DAYS that is not less than what is left."""
    left = (_end(found) - now) / timedelta(days=1)
    return min((days for days in WARNING_DAYS if left <= days), default=None)


def _end(found: PushObject) -> datetime:
    if found.not_after is None:
        raise AssertionError("only objects that expire are watched")
    return found.not_after
