"""Lifetimes of logins, and when clients refresh them."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.vending.models import Platform
from app.vending.telephony.durations import MIN_TTL, lifetime, refresh_time
from tests.support.leases import NOW

TTL = {platform: timedelta(days=1) for platform in Platform}


@given(st.none() | st.integers(-(10**9), 10**9))
def test_requested_lifetime_is_kept_within_bounds(wanted: int | None) -> None:
    assert MIN_TTL <= lifetime(TTL, Platform.BROWSER, wanted) <= timedelta(days=1)


@given(st.timedeltas(timedelta(seconds=60), timedelta(days=90)), st.floats(0, 1, exclude_max=True))
def test_refresh_time_leaves_a_fifth_of_the_lifetime(life: timedelta, jitter: float) -> None:
    again = refresh_time(NOW, NOW + life, jitter)

    assert again > NOW
    assert (NOW + life - again) >= life * 0.199
