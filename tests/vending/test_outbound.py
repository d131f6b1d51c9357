"""The sentence about the cost of a stolen login."""

from decimal import Decimal

import pytest

from app.vending.outbound import OutboundProfile, exposure

USD = Decimal


US_CALLS = "calls to US, at up to 0.1 USD a minute, at most 5 at a time"
UNENFORCED = "no daily spend limit is enforced"

CASES = [
    (None, "cannot call phone numbers, because there is no enabled outbound voice profile"),
    (
        OutboundProfile(USD("50"), ("GB", "US"), 5, USD("0.1")),
        "can spend up to 50.00 USD a day on calls to GB and US, at up to 0.1 USD a minute, at most 5 at a time",
    ),
    (OutboundProfile(USD(0), ("US",)), "can spend up to 0.00 USD a day on calls to US"),
    (
        OutboundProfile(USD(9), ("US", "CA", "GB", "DE", "FR", "IT")),
        "can spend up to 9.00 USD a day on calls to 6 countries",
    ),
    (OutboundProfile(None, ("US",), 5, USD("0.1")), f"can spend up to 720.00 USD a day on {US_CALLS}; {UNENFORCED}"),
    (OutboundProfile(None), "can spend without a limit on calls to destinations that Telnyx does not report"),
]


@pytest.mark.parametrize(("profile", "cost"), CASES)
def test_sentence_names_every_limit(profile: OutboundProfile | None, cost: str) -> None:
    assert exposure(profile) == f"a stolen login {cost}"
