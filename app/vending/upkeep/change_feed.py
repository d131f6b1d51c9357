"""Change feed: brings what other replicas wrote to the ledger into this one's memory within a second or two."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from app.vending.not_before import MEMORY, NotBefore, NotBeforeRegistry
from app.vending.telephony.lease import LeaseVersion
from app.vending.telephony.login_cache import LoginCache
from app.vending.upkeep.erased_users import CachedUsers, ErasureNotice

OVERLAP = timedelta(seconds=30)
"""Every poll reads this much again: replicas' clocks differ, and commits arrive out of order."""


@dataclass(frozen=True, slots=True)
class KeyRefresh:
    """An operator's request that every replica fetch an issuer's keys."""

    issuer: str
    requested_at: datetime


class ChangeLedger(Protocol):
    async def changed_since(self, moment: datetime) -> list[LeaseVersion]:
        """Leases that changed or ended at or after `moment`, oldest first; only the first part if there are many.

        Leases that have never changed since they became ACTIVE may be omitted.
        """


class ChangeNotices(Protocol):
    async def not_before_since(self, moment: datetime) -> list[NotBefore]:
        """Entries made at or after `moment`, oldest first; only the first part if there are many."""

    async def key_refreshes_since(self, moment: datetime) -> list[KeyRefresh]: ...


class ErasureFeed(Protocol):
    async def erasures_since(self, moment: datetime) -> list[ErasureNotice]: ...


class ChangePoller:
    """Reads changed and ended leases, not-before entries, key refresh requests and erasures since the last poll."""

    def __init__(
        self,
        notices: ChangeNotices,
        ledger: ChangeLedger,
        login_cache: LoginCache,
        not_before: NotBeforeRegistry,
        refresh_keys: Callable[[str], Coroutine[Any, Any, bool]],
        erasures: ErasureFeed,
        cached_users: CachedUsers,
        clock: Callable[[], datetime],
    ) -> None:
        self._notices = notices
        self._ledger = ledger
        self._login_cache = login_cache
        self._not_before = not_before
        self._refresh_keys = refresh_keys
        self._clock = clock
        self._began = self._seen_until = clock()
        self._refreshed: dict[str, datetime] = {}
        self._refreshing: set[asyncio.Task[bool]] = set()
        self._erasures = erasures
        self._cached_users = cached_users
        self._forgotten: set[ErasureNotice] = set()

    async def poll(self) -> None:
        """Raises LedgerUnavailable; the next poll then reads the same changes."""
        now = self._clock()
        since = self._seen_until - OVERLAP
        await self._read_not_before(since if self._not_before.are_loaded else now - MEMORY)
        # Read before the leases: a login that is cached after this is compared with leases that the erasure has ended.
        erased = set(await self._erasures.erasures_since(since))
        await self._read_leases(since, now)
        if erased - self._forgotten:
            await self._cached_users.forget({notice.user_hash for notice in erased - self._forgotten})
        self._forgotten = erased
        for wanted in await self._notices.key_refreshes_since(max(since, self._began)):
            if self._refreshed.get(wanted.issuer) != wanted.requested_at:
                self._refreshed[wanted.issuer] = wanted.requested_at
                # Not awaited: an issuer that does not respond must delay neither other issuers nor the next poll.
                task = asyncio.create_task(self._refresh_keys(wanted.issuer))
                self._refreshing.add(task)
                task.add_done_callback(self._refreshing.discard)
        self._seen_until = now

    async def _read_not_before(self, since: datetime) -> None:
        while found := await self._notices.not_before_since(since):
            for not_before_entry in found:
                self._not_before.add(not_before_entry)
            if found[-1].made_at == since:
                break
            since = found[-1].made_at
        self._not_before.are_loaded = True

    async def _read_leases(self, since: datetime, now: datetime) -> None:
        while changed := await self._ledger.changed_since(since):
            for lease in changed:
                self._login_cache.update(lease, now)
            if changed[-1].updated_at == since:
                break
            since = changed[-1].updated_at
