"""When an unconfirmed deletion is retried."""

from datetime import timedelta

import pytest

from app.vending.telephony.revoke import LATE_CREATE, MAX_RETRY_DELAY, MIN_RETRY_DELAY, next_try
from tests.support.leases import NOW, pending_lease


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 5), (1, 10), (3, 40), (12, 600)])
def test_delay_doubles_with_each_attempt_up_to_ten_minutes(attempts: int, seconds: int) -> None:
    lease = pending_lease(attempts=attempts)

    assert next_try(lease, NOW) == NOW + timedelta(seconds=seconds)


def test_lost_create_is_searched_again_when_it_can_no_longer_take_effect() -> None:
    """Each logout of a user counts as an attempt, so the delay may already be ten minutes."""
    lease = pending_lease(attempts=12, attempted_at=NOW)

    assert next_try(lease, NOW + timedelta(seconds=1)) == NOW + LATE_CREATE


@pytest.mark.parametrize("before_end", [timedelta(seconds=1), timedelta(0)])
def test_retry_of_a_lost_create_is_at_least_five_seconds_later(before_end: timedelta) -> None:
    lease = pending_lease(attempts=12, attempted_at=NOW)
    now = NOW + LATE_CREATE - before_end

    assert next_try(lease, now) >= now + MIN_RETRY_DELAY


def test_lost_create_has_the_usual_delay_after_that_time() -> None:
    lease = pending_lease(attempts=12, attempted_at=NOW)

    assert next_try(lease, NOW + LATE_CREATE) == NOW + LATE_CREATE + MAX_RETRY_DELAY
