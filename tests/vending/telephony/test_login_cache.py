"""The cache of logins in memory."""

from dataclasses import replace

from app.vending.models import LoginToken
from app.vending.service_status import LoginCacheStatus
from app.vending.telephony.login_cache import Login, LoginCache
from tests.support.leases import LEASE, NOW


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

    cache.invalidate(login.lease, NOW)
    cache.put(login)

    assert cache.get(LEASE.user_key, "one") is None


def test_end_of_an_older_lease_keeps_its_successors_login() -> None:
    cache = LoginCache(capacity=10)
    successor = login_of("one")
    cache.put(successor)

    cache.invalidate(replace(LEASE, device_id="one", id="older"), NOW)

    assert cache.get(LEASE.user_key, "one") is successor
