"""The watch: what other replicas wrote into the ledger reaches this one's memory within a second or two."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.not_before import MEMORY, NotBefore, NotBeforeRegistry
from app.vending.telephony.lease import Lease
from app.vending.telephony.login_cache import LoginCache

OVERLAP = timedelta(seconds=30)
"""The watch reads again what was written this long ago: replicas' clocks differ, and commits come out of order."""


@dataclass(frozen=True, slots=True)
class KeyRefresh:
    """An operator asked every replica to fetch an issuer's keys anew."""

    issuer: str
    requested_at: datetime


class ChangeLedger(Protocol):
    async def ended_since(self, moment: datetime) -> list[Lease]:
        """Leases that left ACTIVE at or after `moment`, oldest first; of many, the first part."""


class ChangeNotices(Protocol):
    async def not_before_since(self, moment: datetime) -> list[NotBefore]:
        """Marks made at or after `moment`, oldest first; of many, the first part."""

    async def key_refreshes_since(self, moment: datetime) -> list[KeyRefresh]: ...


class ChangePoller:
    """Reads what ended, what was marked and what was asked for since it last looked."""

    def __init__(
        self,
        notices: ChangeNotices,
        ledger: ChangeLedger,
        login_cache: LoginCache,
        marks: NotBeforeRegistry,
        refresh_keys: Callable[[str], Awaitable[bool]],
        clock: Callable[[], datetime],
    ) -> None:
        self._notices = notices
        self._ledger = ledger
        self._login_cache = login_cache
        self._marks = marks
        self._refresh_keys = refresh_keys
        self._clock = clock
        self._began = self._seen_until = clock()
        self._refreshed: dict[str, datetime] = {}

    async def poll(self) -> None:
        """Raises LedgerUnavailable, and then reads it the next time."""
        now = self._clock()
        since = self._seen_until - OVERLAP
        await self._read_not_before(since if self._marks.are_loaded else now - MEMORY)
        await self._read_ended(since, now)
        for wanted in await self._notices.key_refreshes_since(max(since, self._began)):
            if self._refreshed.get(wanted.issuer) != wanted.requested_at:
                self._refreshed[wanted.issuer] = wanted.requested_at
                await self._refresh_keys(wanted.issuer)
        self._seen_until = now

    async def _read_not_before(self, since: datetime) -> None:
        while found := await self._notices.not_before_since(since):
            for not_before_entry in found:
                self._marks.add(not_before_entry)
            if found[-1].made_at == since:
                break
            since = found[-1].made_at
        self._marks.are_loaded = True

    async def _read_ended(self, since: datetime, now: datetime) -> None:
        while ended := await self._ledger.ended_since(since):
            for lease in ended:
                self._login_cache.invalidate(lease, now)
            if ended[-1].updated_at == since:
                break
            since = ended[-1].updated_at
