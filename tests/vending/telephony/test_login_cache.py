"""The cache of logins in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.vending.models import LoginToken
from app.vending.service_status import LoginCacheStatus
from app.vending.telephony.lease import Lease, LeaseState, LeaseVersion
from app.vending.telephony.login_cache import MIN_VERSIONS, Login, LoginCache
from tests.support.leases import LEASE, NOW
from tests.support.waiting import HOUR


def test_repr_of_a_login_contains_no_secret() -> None:
    login = Login(LEASE, NOW, NOW, NOW, token=LoginToken("eyJ.secret.secret", NOW))

    assert "secret" not in repr(login)


def login_of(device: str) -> Login:
    return Login(replace(LEASE, device_id=device, id=device), NOW, NOW, NOW)


def test_cache_is_bounded_and_counts_evictions() -> None:
    cache = LoginCache(capacity=20)
    for number in range(60):
        cache.put(login_of(f"device-{number}"))
    found = [cache.get(LEASE.user_key, f"device-{number}") is not None for number in range(60)]

    assert cache.status == LoginCacheStatus(devices=20, capacity=20, hits=0, misses=0, evictions=40)
    assert found.count(True) == 20
    assert found[-1], "the newest login"


def test_late_mint_does_not_restore_an_ended_login() -> None:
    cache = LoginCache(capacity=10)
    login = login_of("one")
    cache.put(login)

    cache.update(login.lease.start_revoking(NOW), NOW)
    cache.put(login)

    assert cache.get(LEASE.user_key, "one") is None


def test_end_of_an_older_lease_keeps_its_successors_login() -> None:
    cache = LoginCache(capacity=10)
    successor = login_of("one")
    cache.put(successor)

    cache.update(replace(LEASE, device_id="one", id="older", state=LeaseState.REVOKED, version=9), NOW)

    assert cache.get(LEASE.user_key, "one") is successor


def changed(lease: Lease, **changes: Any) -> Lease:
    return replace(lease, version=lease.version + 1, **changes)


def test_changed_lease_requires_a_new_decision() -> None:
    cache = LoginCache(capacity=10)
    login = replace(login_of("one"), expires_at=NOW + HOUR, refresh_after=NOW + HOUR)
    cache.put(login)

    cache.update(changed(login.lease), NOW)

    entry = cache.get_entry(LEASE.user_key, "one")
    assert entry is not None
    assert entry.login.refresh_after <= NOW


def test_fallback_login_expires_with_a_shortened_lease() -> None:
    cache = LoginCache(capacity=10)
    cache.put(replace(login_of("one"), expires_at=NOW + HOUR, refresh_after=NOW + HOUR))

    cache.update(changed(login_of("one").lease, expires_at=NOW + HOUR / 60), NOW)

    login = cache.get(LEASE.user_key, "one")
    assert login is not None
    assert login.expires_at == NOW + HOUR / 60


def test_late_mint_on_changed_terms_is_not_cached() -> None:
    cache = LoginCache(capacity=10)

    cache.update(changed(login_of("one").lease), NOW)
    cache.put(login_of("one"))

    assert cache.get(LEASE.user_key, "one") is None


def test_login_of_the_present_version_is_cached_and_kept() -> None:
    cache = LoginCache(capacity=10)
    lease = changed(login_of("one").lease)
    cache.update(lease, NOW)
    login = replace(login_of("one"), lease=lease, refresh_after=NOW + HOUR)

    cache.put(login)
    cache.update(lease, NOW)

    assert cache.get(LEASE.user_key, "one") is login


def test_number_of_remembered_versions_is_bounded() -> None:
    cache = LoginCache(capacity=10)
    first = login_of("first")

    cache.update(changed(first.lease), NOW)
    for number in range(MIN_VERSIONS):
        cache.update(changed(login_of(f"{number}").lease), NOW)

    assert not cache.is_outdated(first.lease)


class Shared:
    """Logins that replicas share, as a dictionary."""

    def __init__(self, *logins: Login) -> None:
        self.logins = {login.lease.id: login for login in logins}
        self.reads = 0
        self.discarded: list[str] = []
        self.while_reading: Callable[[], None] = lambda: None

    async def get(self, lease: Lease) -> Login | None:
        self.reads += 1
        self.while_reading()
        return self.logins.get(lease.id)

    async def put(self, login: Login) -> None:
        self.logins[login.lease.id] = login

    def discard(self, lease: Lease | LeaseVersion) -> None:
        self.discarded.append(lease.id)


def lasting_login_of(device: str) -> Login:
    return replace(login_of(device), refresh_after=NOW + HOUR)


async def test_login_of_another_lease_is_not_current_although_its_version_is_equal() -> None:
    cache = LoginCache(capacity=10)
    former = lasting_login_of("one")
    cache.put(former)

    assert await cache.find_current(replace(former.lease, id="latter"), NOW) is None
    assert await cache.find_current(changed(former.lease), NOW) is None
    assert await cache.find_current(former.lease, NOW + HOUR) is None
    assert await cache.find_current(former.lease, NOW) is former


async def test_shared_login_is_read_once_and_then_in_memory() -> None:
    login = lasting_login_of("one")
    shared = Shared(login)
    cache = LoginCache(capacity=10, shared=shared)

    found = [await cache.find_current(login.lease, NOW) for _ in range(3)]

    assert found == [login] * 3
    assert shared.reads == 1
    assert cache.get(LEASE.user_key, "one") is login


async def test_new_login_is_stored_in_memory_and_shared() -> None:
    shared, login = Shared(), lasting_login_of("one")
    cache = LoginCache(capacity=10, shared=shared)

    await cache.store(login)

    assert cache.get(LEASE.user_key, "one") is login
    assert shared.logins == {"one": login}


async def test_lease_that_ends_while_its_shared_login_is_read_has_none() -> None:
    login = lasting_login_of("one")
    shared = Shared(login)
    cache = LoginCache(capacity=10, shared=shared)
    shared.while_reading = lambda: cache.update(login.lease.start_revoking(NOW), NOW)

    assert await cache.find_current(login.lease, NOW) is None
    assert cache.get(LEASE.user_key, "one") is None


def test_shared_login_is_discarded_when_its_lease_ends_and_not_when_it_changes() -> None:
    shared, lease = Shared(), login_of("one").lease
    cache = LoginCache(capacity=10, shared=shared)

    cache.update(changed(lease), NOW)
    assert shared.discarded == []
    cache.update(replace(changed(lease), version=9, state=LeaseState.REVOKING), NOW)
    assert shared.discarded == ["one"]
