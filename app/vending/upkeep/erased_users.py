"""Erased users in memory: each replica removes them from its caches when it reads of their erasure in the ledger."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.vending.models import UserKey

CHECKED_AT_ONCE = 500
"""Users whose hashes are computed before other tasks may run: about a millisecond."""


@dataclass(frozen=True, slots=True)
class ErasureNotice:
    """An erasure in the ledger. It does not name the user."""

    user_hash: str
    recorded_at: datetime


class UserCache(Protocol):
    def users(self) -> set[UserKey]:
        """The users that have entries."""

    def forget(self, users: Collection[UserKey]) -> None:
        """Remove the entries of these users."""


class CachedUsers:
    """The users in the caches of this replica."""

    def __init__(self, caches: Sequence[UserCache], hashes: Callable[[UserKey], Sequence[str]]) -> None:
        """`hashes` returns the hashes that an erasure of the user may have in the ledger."""
        self._caches = caches
        self._hashes = hashes

    async def forget(self, user_hashes: Collection[str]) -> None:
        """Remove the users that have one of these hashes from all caches."""
        cached: set[UserKey] = set()
        for cache in self._caches:
            cached |= cache.users()
        erased = set()
        for number, user_key in enumerate(cached, start=1):
            if any(user_hash in user_hashes for user_hash in self._hashes(user_key)):
                erased.add(user_key)
            if number % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        for cache in self._caches:
            cache.forget(erased)
