"""Which devices a new device replaces at the device limit, and when it is rejected."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.vending.errors import DeviceLimitReached, IssueInProgress
from app.vending.models import Platform
from app.vending.policy import Allowance, DeviceLimitAction
from app.vending.telephony.device_limit import leases_to_evict
from app.vending.telephony.lease import Lease, LeaseState
from tests.support.leases import LEASE, NOW
from tests.support.waiting import DAY, HOUR

REJECT, EVICT = DeviceLimitAction.REJECT, DeviceLimitAction.EVICT_OLDEST
BROWSER, IOS, ANDROID = Platform.BROWSER, Platform.IOS, Platform.ANDROID
MINUTE = timedelta(minutes=1)


def active(name: str, age: timedelta = HOUR, platform: Platform = BROWSER, **changes: Any) -> Lease:
    return replace(LEASE, id=name, device_id=name, platform=platform, updated_at=NOW - age, **changes)


def creating(name: str, age: timedelta = timedelta(0)) -> Lease:
    """A PENDING lease that a replica is working on."""
    return active(name, age, state=LeaseState.PENDING, claimed_by="replica", claimed_until=NOW + MINUTE)


def abandoned(name: str, age: timedelta = MINUTE, **changes: Any) -> Lease:
    """A PENDING lease whose create failed or whose replica was killed."""
    return active(name, age, state=LeaseState.PENDING, **changes)


def last_use(lease: Lease) -> datetime:
    return lease.last_used_at or lease.updated_at


def evicted(
    *leases: Lease, limit: int, action: DeviceLimitAction | None = REJECT, platform: Platform = BROWSER
) -> list[str]:
    allowance = Allowance("77", dict.fromkeys(Platform, DAY), max_devices=limit, at_device_limit=action)
    return [lease.id for lease in leases_to_evict(leases, platform, allowance, NOW, last_use)]


def test_nothing_is_evicted_below_the_limit() -> None:
    assert evicted(active("a"), abandoned("b"), limit=3, action=EVICT) == []


def test_active_leases_up_to_the_limit_reject_a_new_device() -> None:
    with pytest.raises(DeviceLimitReached):
        evicted(active("a"), active("b"), limit=2)


@pytest.mark.parametrize("action", [REJECT, EVICT, None])
def test_abandoned_create_makes_room_whatever_the_policy_is(action: DeviceLimitAction | None) -> None:
    assert evicted(active("a", DAY), abandoned("b"), limit=2, action=action) == ["b"]


def test_create_with_an_expired_claim_is_abandoned() -> None:
    assert evicted(abandoned("a", claimed_by="killed", claimed_until=NOW), limit=1) == ["a"]


@pytest.mark.parametrize("action", [REJECT, EVICT, None])
def test_create_in_progress_lets_a_new_device_retry(action: DeviceLimitAction | None) -> None:
    with pytest.raises(IssueInProgress):
        evicted(creating("a"), limit=1, action=action)


def test_create_in_progress_does_not_reject_below_the_limit_of_active_leases() -> None:
    with pytest.raises(IssueInProgress):
        evicted(active("a"), creating("b"), limit=2)


def test_abandoned_create_does_not_reject_less_than_active_leases_do() -> None:
    with pytest.raises(DeviceLimitReached):
        evicted(active("a"), abandoned("b"), limit=1)


def test_least_recently_used_device_is_evicted() -> None:
    assert evicted(active("a", MINUTE), active("b", DAY), active("c", HOUR), limit=3, action=EVICT) == ["b"]


def test_change_of_a_lease_does_not_count_as_a_use() -> None:
    used = active("a", DAY, last_used_at=NOW - MINUTE)
    changed = active("b", MINUTE, last_used_at=NOW - HOUR)

    assert evicted(used, changed, limit=2, action=EVICT) == ["b"]


def test_as_many_devices_are_evicted_as_a_lowered_limit_requires() -> None:
    leases = [active(str(number), number * MINUTE) for number in range(1, 6)]

    assert evicted(*leases, limit=3, action=EVICT) == ["5", "4", "3"]


def test_expired_and_ended_leases_occupy_no_place() -> None:
    ended = active("a", state=LeaseState.REVOKING)
    expired = active("b", expires_at=NOW)

    assert evicted(ended, expired, limit=1) == []


def test_browser_replaces_the_oldest_browser_and_no_phone_by_default() -> None:
    leases = [active("phone", 9 * DAY, IOS), active("tab-1", DAY), active("tab-2", HOUR)]

    assert evicted(*leases, limit=3, action=None) == ["tab-1"]


@pytest.mark.parametrize("platform", [IOS, ANDROID])
def test_phone_is_rejected_by_default(platform: Platform) -> None:
    with pytest.raises(DeviceLimitReached):
        evicted(active("tab"), limit=1, action=None, platform=platform)


def test_browser_is_rejected_by_default_if_phones_fill_the_limit() -> None:
    with pytest.raises(DeviceLimitReached):
        evicted(active("a", platform=IOS), active("b", platform=ANDROID), limit=2, action=None)


@pytest.mark.parametrize("new", list(Platform))
@pytest.mark.parametrize("old", list(Platform))
def test_explicit_eviction_applies_to_every_platform(new: Platform, old: Platform) -> None:
    assert evicted(active("a", platform=old), limit=1, action=EVICT, platform=new) == ["a"]


@pytest.mark.parametrize("platform", list(Platform))
def test_explicit_rejection_applies_to_every_platform(platform: Platform) -> None:
    with pytest.raises(DeviceLimitReached):
        evicted(active("a"), limit=1, action=REJECT, platform=platform)
