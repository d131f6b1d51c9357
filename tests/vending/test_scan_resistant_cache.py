"""Eviction: bounded, and not undone by devices that ask once each."""

import itertools
import random
from collections.abc import Iterable

import pytest

from app.vending.scan_resistant_cache import ScanResistantCache

CAPACITY = 1_000


class Item:
    def __init__(self, number: int) -> None:
        self.number = number
        self.is_used = False


def share_found(keys: Iterable[int], capacity: int = CAPACITY) -> float:
    """The part of the second half of the look-ups that finds an entry. Every miss stores one."""
    chance = random.Random(7)  # noqa: S311
    cache: ScanResistantCache[int, Item] = ScanResistantCache(capacity, chance.random)
    found = []
    for key in keys:
        item = cache.get(key)
        found.append(item is not None)
        if item is None:
            cache.put(key, Item(key))
        else:
            assert item.number == key
        assert len(cache) <= capacity
    last = found[len(found) // 2 :]
    return sum(last) / len(last)


def test_everything_is_found_while_it_fits() -> None:
    assert share_found(list(range(CAPACITY)) * 4) == 1


def test_twice_as_many_devices_in_turn_find_nearly_half() -> None:
    """With a least-recently-used policy, they would find nothing."""
    assert share_found(list(range(2 * CAPACITY)) * 12) >= 0.45


def test_twice_as_many_devices_in_any_order_find_nearly_half() -> None:
    chance = random.Random(7)  # noqa: S311
    rounds = [chance.sample(range(2 * CAPACITY), 2 * CAPACITY) for _ in range(12)]

    assert share_found(itertools.chain.from_iterable(rounds)) >= 0.45


def test_frequent_devices_stay_through_a_scan() -> None:
    frequent, scan = list(range(100)), itertools.count(CAPACITY)
    keys = [key for _ in range(400) for key in (*frequent, *itertools.islice(scan, 100))]

    assert share_found(keys) >= 0.49


def test_new_users_replace_old_ones_within_some_scans() -> None:
    keys = list(range(CAPACITY)) * 5 + list(range(CAPACITY, 2 * CAPACITY)) * 60

    assert share_found(keys) >= 0.65


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_tiny_cache_is_bounded(capacity: int) -> None:
    assert 0 <= share_found(range(100), max(capacity, 2)) <= 1


def test_eviction_is_bounded_although_all_entries_were_used() -> None:
    cache: ScanResistantCache[int, Item] = ScanResistantCache(CAPACITY)
    for key in range(CAPACITY):
        cache.put(key, Item(key))
    for _ in range(3):
        for key in range(CAPACITY):
            cache.get(key)
        for key in range(CAPACITY, CAPACITY + 200):
            cache.put(key, Item(key))
            cache.get(key)

    assert len(cache) == CAPACITY


def test_removed_entry_is_gone() -> None:
    cache: ScanResistantCache[int, Item] = ScanResistantCache(CAPACITY)
    cache.put(1, Item(1))

    assert cache.pop(1) is not None
    assert cache.get(1) is None
    assert cache.pop(1) is None
