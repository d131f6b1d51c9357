"""A bounded mapping whose eviction survives a scan: devices that each ask once in turn do not replace all entries.

With a least-recently-used policy, twice as many devices as entries, asking in turn, find nothing cached at all. Here a
new entry first stays in a small queue. It is kept if it is used again there, and otherwise rarely, so that entries in
the main queue survive until their next use. Similar to S3-FIFO (Yang et al., SOSP 2023), whose own queue of evicted
keys would keep the next scan out of the small queue, but not in the main one.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

NEW_SHARE = 20
"""A twentieth of the entries are new ones."""

PROMOTED_SHARE = 1 / 32
"""The part of unused new entries that is kept, so that the cache follows a change of users within some scans."""

MAX_SECOND_CHANCES = 64
"""Used entries that are passed over in one eviction. A limit, because all entries may have been used."""


class Evictable(Protocol):
    is_used: bool
    """True if the entry was found since it was stored, or since it was last passed over."""


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=Evictable)


class ScanResistantCache(Generic[K, E]):
    """At most `capacity` entries by key."""

    def __init__(self, capacity: int, chance: Callable[[], float] = random.random) -> None:
        self._max_new = max(1, capacity // NEW_SHARE)
        self._max_kept = max(1, capacity - self._max_new)
        self._chance = chance
        self._new: OrderedDict[K, E] = OrderedDict()
        self._kept: OrderedDict[K, E] = OrderedDict()
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._kept)

    def __iter__(self) -> Iterator[K]:
        """The keys of all entries."""
        yield from (*self._kept, *self._new)

    def get(self, key: K) -> E | None:
        entry = self._kept.get(key)
        if entry is None:
            entry = self._new.get(key)
            if entry is None:
                return None
        entry.is_used = True
        return entry

    def peek(self, key: K) -> E | None:
        """The entry, without counting this as a use."""
        return self._kept.get(key) or self._new.get(key)

    def put(self, key: K, entry: E) -> None:
        """Store an entry, in place of the key's present one."""
        if key in self._kept:
            self._kept[key] = entry
            return
        self._new[key] = entry
        if len(self._new) > self._max_new:
            self._leave_new()

    def pop(self, key: K) -> E | None:
        """Remove the key's entry."""
        return self._kept.pop(key, None) or self._new.pop(key, None)

    def _leave_new(self) -> None:
        key, entry = self._new.popitem(last=False)
        if len(self._kept) < self._max_kept:
            self._kept[key] = entry
        elif entry.is_used or self._chance() < PROMOTED_SHARE:
            self._evict_kept()
            entry.is_used = False
            self._kept[key] = entry
        else:
            self.evictions += 1

    def _evict_kept(self) -> None:
        for _ in range(MAX_SECOND_CHANCES):
            key, entry = self._kept.popitem(last=False)
            if not entry.is_used:
                break
            entry.is_used = False
            self._kept[key] = entry
        else:
            self._kept.popitem(last=False)
        self.evictions += 1
