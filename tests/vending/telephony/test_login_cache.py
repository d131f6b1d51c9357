"""The cache of logins in memory."""

from dataclasses import replace

from app.vending.models import LoginToken
from app.vending.telephony.login_cache import Login, LoginsAtHand
from tests.support.leases import LEASE, NOW


def test_repr_of_a_login_contains_no_secret() -> None:
    login = Login(LEASE, NOW, NOW, NOW, token=LoginToken("eyJ.secret.secret", NOW))

    assert "secret" not in repr(login)


def login_of(device: str) -> Login:
    return Login(replace(LEASE, device_id=device, id=device), NOW, NOW, NOW)


def test_least_recently_used_login_is_evicted() -> None:
    cache = LoginsAtHand(capacity=2)
    cache.keep(login_of("one"))
    cache.keep(login_of("two"))
    cache.get(LEASE.owner, "one")
    cache.keep(login_of("three"))

    assert [cache.get(LEASE.owner, name) is not None for name in ("one", "two", "three")] == [True, False, True]


def test_late_mint_does_not_restore_an_ended_login() -> None:
    cache = LoginsAtHand(capacity=10)
    login = login_of("one")
    cache.keep(login)

    cache.end(login.lease, NOW)
    cache.keep(login)

    assert cache.get(LEASE.owner, "one") is None


def test_end_of_an_older_lease_keeps_its_successors_login() -> None:
    cache = LoginsAtHand(capacity=10)
    successor = login_of("one")
    cache.keep(successor)

    cache.end(replace(LEASE, device_id="one", id="older"), NOW)

    assert cache.get(LEASE.owner, "one") is successor
