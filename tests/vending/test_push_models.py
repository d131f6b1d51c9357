"""Days until the expiry of a push certificate are rounded up, so that the last day is not the day after it."""

from datetime import timedelta

import pytest

from app.vending.push.models import days_until
from tests.support.leases import NOW

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("left", "days"),
    [
        (30 * DAY + TICK, 31),
        (30 * DAY, 30),
        (DAY + TICK, 2),
        (DAY, 1),
        (DAY - TICK, 1),
        (TICK, 1),
        (timedelta(0), 0),
        (-TICK, 0),
        (-365 * DAY, 0),
    ],
)
def test_days_until_the_expiry_are_rounded_up(left: timedelta, days: int) -> None:
    assert days_until(NOW + left, NOW) == days
