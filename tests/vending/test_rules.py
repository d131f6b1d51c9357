"""Pure rules: policy, naming, single flight, what is kept at hand."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.vending.errors import Busy
from app.vending.models import LoginToken, Owner, Platform
from app.vending.single_flight import Flights
from app.vending.telephony.durations import SHORTEST_TTL, lifetime, refresh_time
from app.vending.telephony.lease import LIVE, Lease, State
from app.vending.telephony.login_cache import Login, LoginsAtHand
from app.vending.telephony.naming import Naming

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TTL = {platform: timedelta(days=1) for platform in Platform}
LEASE = Lease(
    id="0" * 32,
    issuer="https://id.example.com",
    subject="alice",
    device_id="laptop",
    platform=Platform.BROWSER,
    label=None,
    connection_id="77",
    credential_name="dialtone-" + "0" * 32,
    ttl_seconds=86_400,
    state=State.ACTIVE,
    version=3,
    created_at=NOW,
    updated_at=NOW,
    expires_at=NOW + timedelta(days=1),
    usable_at=NOW,
)


# -- lifetimes -----------------------------------------------------------------------------------------------------


@given(st.none() | st.integers(-(10**9), 10**9))
def test_a_wish_never_leaves_the_bounds(wanted: int | None) -> None:
    assert SHORTEST_TTL <= lifetime(TTL, Platform.BROWSER, wanted) <= timedelta(days=1)


@given(st.timedeltas(timedelta(seconds=60), timedelta(days=90)), st.floats(0, 1, exclude_max=True))
def test_a_device_is_asked_back_while_a_fifth_of_its_login_is_left(life: timedelta, jitter: float) -> None:
    again = refresh_time(NOW, NOW + life, jitter)

    assert again > NOW
    assert (NOW + life - again) >= life * 0.199


# -- naming -----------------------------------------------------------------------------------------------------


@given(st.text())
def test_only_our_own_names_lead_back_to_a_lease(name: str) -> None:
    naming = Naming("dialtone", b"k" * 32)

    assert naming.lease_id(name) is None
    assert naming.lease_id(naming.credential_name("ab" * 16)) == "ab" * 16


@pytest.mark.parametrize(
    "name",
    [
        "dialtone-staging-" + "ab" * 16,
        "dialtone-" + "ab" * 16 + "\n",
        "dialtone-" + "AB" * 16,
        "xdialtone-" + "ab" * 16,
        "dialtone-" + "ab" * 15,
    ],
)
def test_names_that_only_resemble_ours_are_strangers(name: str) -> None:
    assert Naming("dialtone", b"k" * 32).lease_id(name) is None


@given(st.text(), st.text(), st.text(), st.text())
def test_two_users_never_share_a_tag(a: str, b: str, c: str, d: str) -> None:
    naming = Naming("dialtone", b"k" * 32)

    assert (naming.tag(Owner(a, b)) == naming.tag(Owner(c, d))) == ((a, b) == (c, d))


def test_a_tag_tells_nothing_without_the_key() -> None:
    owner = Owner("https://id.example.com", "alice")

    assert Naming("dialtone", b"one").tag(owner) != Naming("dialtone", b"two").tag(owner)


# -- leases -----------------------------------------------------------------------------------------------------


def test_every_step_raises_the_version_by_one() -> None:
    steps = [LEASE.lost(NOW), LEASE.revoking(NOW), LEASE.expired(NOW), LEASE.extended(NOW, NOW), LEASE.failed(NOW)]

    assert {step.version for step in steps} == {LEASE.version + 1}
    assert not {step.state for step in steps if step.state is not State.ACTIVE} & set(LIVE)


def test_what_a_request_ended_is_revoked_and_what_time_ended_is_deleted() -> None:
    assert LEASE.revoking(NOW).gone(NOW).state is State.REVOKED
    assert LEASE.expired(NOW).gone(NOW).state is State.DELETED


def test_no_secret_is_in_the_repr_of_a_login() -> None:
    login = Login(LEASE, NOW, NOW, NOW, token=LoginToken("eyJ.secret.secret", NOW))

    assert "secret" not in repr(login)


# -- at hand ----------------------------------------------------------------------------------------------------


def login_of(device: str) -> Login:
    return Login(replace(LEASE, device_id=device, id=device), NOW, NOW, NOW)


def test_the_least_recently_used_login_goes_first() -> None:
    at_hand = LoginsAtHand(capacity=2)
    at_hand.keep(login_of("one"))
    at_hand.keep(login_of("two"))
    at_hand.get(LEASE.owner, "one")
    at_hand.keep(login_of("three"))

    assert [at_hand.get(LEASE.owner, name) is not None for name in ("one", "two", "three")] == [True, False, True]


def test_a_mint_that_was_under_way_does_not_bring_an_ended_login_back() -> None:
    at_hand = LoginsAtHand(capacity=10)
    login = login_of("one")
    at_hand.keep(login)

    at_hand.end(login.lease, NOW)
    at_hand.keep(login)

    assert at_hand.get(LEASE.owner, "one") is None


def test_the_end_of_an_older_lease_leaves_its_successors_login() -> None:
    at_hand = LoginsAtHand(capacity=10)
    successor = login_of("one")
    at_hand.keep(successor)

    at_hand.end(replace(LEASE, device_id="one", id="older"), NOW)

    assert at_hand.get(LEASE.owner, "one") is successor


# -- single flight ----------------------------------------------------------------------------------------------


async def test_callers_share_a_flight_and_one_who_leaves_does_not_end_it() -> None:
    flights: Flights[str] = Flights(patience_seconds=5)
    started = 0

    async def work() -> str:
        nonlocal started
        started += 1
        await asyncio.sleep(0.05)
        return "done"

    leaver = asyncio.create_task(flights.join("laptop", "same", work))
    stayers = [asyncio.create_task(flights.join("laptop", "same", work)) for _ in range(9)]
    await asyncio.sleep(0.01)
    leaver.cancel()

    assert await asyncio.gather(*stayers) == ["done"] * 9
    assert (started, len(flights)) == (1, 0)


async def test_a_failure_reaches_every_caller_and_is_not_kept() -> None:
    flights: Flights[str] = Flights(patience_seconds=5)

    async def fail() -> str:
        await asyncio.sleep(0)
        raise Busy

    results = await asyncio.gather(*(flights.join("laptop", "same", fail) for _ in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [Busy] * 3
    assert len(flights) == 0


async def test_patience_ends_before_the_flight_does() -> None:
    flights: Flights[str] = Flights(patience_seconds=0.02)
    landed = asyncio.Event()

    async def slow() -> str:
        await asyncio.sleep(0.1)
        landed.set()
        return "late"

    with pytest.raises(Busy):
        await flights.join("laptop", "same", slow)
    await flights.drain()

    assert landed.is_set()
