"""The size of the warm pool, from the rate of new devices."""

import random

import pytest

from app.vending.upkeep.warm_pool_size import MAX_READY, MIN_READY, REPLACEMENT_SECONDS, NewDevices, target_size


@pytest.mark.parametrize(
    ("recent", "longer", "size"),
    [
        (0, 0, MIN_READY),
        (1, 1, MIN_READY),
        (6, 6, 5),
        (60, 60, 29),
        (0, 60, 8),
        (0, 300, 29),
        (600, 600, MAX_READY),
        (100_000, 100_000, MAX_READY),
    ],
)
def test_size_follows_the_rate_within_its_bounds(recent: int, longer: int, size: int) -> None:
    assert target_size(NewDevices(recent, longer)) == size


@pytest.mark.parametrize("a_minute", [6, 30, 60, 120])
def test_devices_that_arrive_independently_rarely_find_an_empty_pool(a_minute: int) -> None:
    rng = random.Random(5)  # noqa: S311 - reproducible
    size = target_size(NewDevices(a_minute, 5 * a_minute))
    now, empty, replaced_at = 0.0, 0, [0.0] * size
    for _ in range(20_000):
        now += rng.expovariate(a_minute / 60)
        oldest = min(range(size), key=replaced_at.__getitem__)
        empty += replaced_at[oldest] > now
        replaced_at[oldest] = max(now, replaced_at[oldest]) + REPLACEMENT_SECONDS

    assert empty / 20_000 < 0.1
