"""Not-before marks in memory and in the ledger, on both databases."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.adapters.ledger.database import Database, one_at_a_time, one_session_at_a_time
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.not_before import SqlNotBefore
from app.adapters.ledger.sweep import SqlSweep
from app.vending.errors import LogoutTokenRejected, TokenRejected
from app.vending.models import Principal, UserKey
from app.vending.not_before import MEMORY, SKEW, LogoutClaims, NotBefore, NotBeforeRegistry, NotBeforeTarget, Reach
from app.vending.telephony.lease import LeaseState
from app.vending.upkeep.change_feed import KeyRefresh
from tests.support.leases import open_lease, pending_lease
from tests.support.tokens import ISSUER

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def holder(
    issued: datetime | None = NOW, user: str = "alice", session: str | None = None, issuer: str = ISSUER
) -> Principal:
    return Principal(issuer, user, NOW + timedelta(days=400), issued_at=issued, session=session)


def logout(subject: str | None = "alice", session: str | None = None, number: str = "one") -> LogoutClaims:
    return LogoutClaims(ISSUER, number, NOW, NOW + timedelta(minutes=2), subject, session)


class Time:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def notices(opened: Database) -> SqlNotBefore:
    return SqlNotBefore(opened)


def loaded(notices: SqlNotBefore, clock: Time) -> NotBeforeRegistry:
    marks = NotBeforeRegistry(notices, clock)
    marks.are_loaded = True
    return marks


async def is_refused(marks: NotBeforeRegistry, who: Principal) -> bool:
    try:
        await marks.check(who)
    except TokenRejected as refusal:
        return refusal.reason == "not_before"
    return False


ALICE, SESSION = NotBeforeTarget(ISSUER, Reach.USER, "alice"), NotBeforeTarget(ISSUER, Reach.SESSION, "s-1")


@pytest.mark.parametrize(
    ("target", "who", "refused"),
    [
        (ALICE, holder(NOW - SECOND), True),
        (ALICE, holder(NOW), False),
        (ALICE, holder(None), True),
        (ALICE, holder(NOW - SECOND, session="s-1"), True),
        (ALICE, holder(NOW - SECOND, user="bob"), False),
        (ALICE, holder(NOW - SECOND, issuer="https://other.example.com"), False),
        (SESSION, holder(NOW - SECOND, session="s-1"), True),
        (SESSION, holder(NOW - SECOND, session="s-2"), False),
        (SESSION, holder(NOW - SECOND), False),
        (NotBeforeTarget(ISSUER), holder(NOW - SECOND, user="bob", session="s-9"), True),
        (NotBeforeTarget(ISSUER), holder(NOW - SECOND, issuer="https://other.example.com"), False),
    ],
    ids=str,
)
async def test_mark_rejects_only_earlier_tokens_of_its_target(
    notices: SqlNotBefore, target: NotBeforeTarget, who: Principal, refused: bool
) -> None:
    clock = Time()
    marks = loaded(notices, clock)
    await marks.set(NotBefore(target, NOW, NOW))

    assert await is_refused(marks, who) is refused
    assert await is_refused(NotBeforeRegistry(notices, clock), who) is refused, (
        "a replica that has not loaded its marks reads the ledger"
    )


async def test_later_of_two_marks_applies_in_any_order(notices: SqlNotBefore) -> None:
    clock = Time()
    marks = loaded(notices, clock)
    for moment in (NOW, NOW - timedelta(hours=1)):
        await marks.set(NotBefore(ALICE, moment, NOW))

    assert await is_refused(marks, holder(NOW - SECOND))
    assert await notices.not_before([ALICE]) == NOW


async def test_old_token_is_rejected_by_a_mark_no_longer_in_memory(notices: SqlNotBefore) -> None:
    clock = Time()
    marks = loaded(notices, clock)
    await marks.set(NotBefore(ALICE, NOW, NOW))
    clock.now += MEMORY + 2 * SKEW
    marks.add(NotBefore(NotBeforeTarget(ISSUER, Reach.USER, "bob"), clock.now, clock.now))
    assert len(marks) == 1

    assert await is_refused(marks, holder(NOW - SECOND))
    assert not await is_refused(marks, holder(NOW + SECOND))


async def test_session_logout_ends_its_devices_and_those_without_a_session(
    notices: SqlNotBefore, ledger: SqlLeases, sweeping: SqlSweep
) -> None:
    for number, (device, session, user) in enumerate(
        [("in", "s-1", "alice"), ("unknown", None, "alice"), ("other", "s-2", "alice"), ("bobs", "s-1", "bob")], 1
    ):
        lease = pending_lease(device, number, session=session, subject=user)
        await open_lease(ledger, lease, 10, holder(user=user))

    ended = await notices.log_out(logout(session="s-1"), NOW)

    assert {lease.device_id for lease in ended} == {"in", "unknown"}
    for lease in ended:
        assert await ledger.find(lease.id) == lease
        assert lease.state is LeaseState.REVOKING
    due = await sweeping.due(NOW, NOW - timedelta(hours=1), 9)
    assert {lease.device_id for lease in due} == {"in", "unknown"}


@pytest.mark.parametrize(
    ("wanted", "gone"),
    [
        (logout("alice"), {"one", "two"}),
        (logout(None, "s-1"), {"one"}),
        (logout("carol"), set()),
        (logout(None, "s-9"), set()),
    ],
    ids=["user", "session", "unknown user", "unknown session"],
)
async def test_logout_targets_a_user_or_a_session(
    notices: SqlNotBefore, ledger: SqlLeases, wanted: LogoutClaims, gone: set[str]
) -> None:
    await open_lease(ledger, pending_lease("one", 1, session="s-1"), 10, holder())
    await open_lease(ledger, pending_lease("two", 2, session="s-2"), 10, holder())
    await open_lease(ledger, pending_lease("three", 3, session="s-1", issuer="https://other.example.com"), 10, holder())

    assert {lease.device_id for lease in await notices.log_out(wanted, NOW)} == gone


async def test_logout_ends_tokens_of_the_same_second_and_session(notices: SqlNotBefore) -> None:
    marks = loaded(notices, Time())
    await marks.log_out(logout(session="s-1"), NOW)

    assert await is_refused(marks, holder(NOW, session="s-1"))
    assert await is_refused(marks, holder(NOW)), "a token without a session may belong to that session"
    assert not await is_refused(marks, holder(NOW, session="s-2"))
    assert not await is_refused(marks, holder(NOW + SECOND, session="s-1"))


async def test_logout_token_is_accepted_once(notices: SqlNotBefore, ledger: SqlLeases) -> None:
    await notices.log_out(logout(), NOW)
    await open_lease(ledger, pending_lease(), 10, holder(NOW + SECOND))

    with pytest.raises(LogoutTokenRejected) as refusal:
        await notices.log_out(logout(), NOW + SECOND)

    assert refusal.value.reason == "used_before"
    assert await ledger.live_lease(pending_lease().user_key, "laptop") == pending_lease()
    await notices.log_out(logout(number="two"), NOW + SECOND)


async def test_used_logout_tokens_are_removed_after_their_expiry(notices: SqlNotBefore) -> None:
    await notices.log_out(logout(), NOW)

    await notices.log_out(logout(number="two"), NOW + timedelta(hours=1))

    await notices.log_out(logout(), NOW + timedelta(hours=1))  # expired: the verifier rejects it earlier


async def test_token_ended_by_a_logout_opens_no_device(notices: SqlNotBefore, ledger: SqlLeases) -> None:
    await notices.log_out(logout(), NOW)

    with pytest.raises(TokenRejected):
        await open_lease(ledger, pending_lease(), 10, holder(NOW))
    await open_lease(ledger, pending_lease(), 10, holder(NOW + SECOND))


async def test_token_ended_by_a_logout_finds_no_lease_of_its_device(notices: SqlNotBefore, ledger: SqlLeases) -> None:
    await open_lease(ledger, pending_lease())
    await notices.log_out(logout(session=None), NOW)

    with pytest.raises(TokenRejected):
        await open_lease(ledger, pending_lease(number=2), holder=holder(NOW - SECOND))


async def test_marks_and_key_refreshes_are_listed_since_a_given_time(notices: SqlNotBefore) -> None:
    for hour in range(3):
        made = NOW + timedelta(hours=hour)
        await notices.set_not_before(NotBefore(NotBeforeTarget(ISSUER, Reach.USER, f"user-{hour}"), NOW, made))
        await notices.request_key_refresh(KeyRefresh(ISSUER, made))

    assert [mark.target.name for mark in await notices.not_before_since(NOW + timedelta(hours=1))] == [
        "user-1",
        "user-2",
    ]
    assert await notices.key_refreshes_since(NOW) == [KeyRefresh(ISSUER, NOW + timedelta(hours=2))]


@pytest.mark.parametrize(
    "end",
    [
        lambda notices: notices.set_not_before(NotBefore(ALICE, NOW, NOW)),
        lambda notices: notices.set_not_before(NotBefore(SESSION, NOW, NOW)),
        lambda notices: notices.log_out(logout(None, "s-1"), NOW),
    ],
    ids=["user", "session", "logout of a session"],
)
async def test_end_of_tokens_waits_for_a_login_that_is_being_opened(
    opened: Database, notices: SqlNotBefore, end: Callable[[SqlNotBefore], Awaitable[object]]
) -> None:
    def lock(connection: sa.Connection) -> None:
        one_at_a_time(connection, UserKey(ISSUER, "alice"))
        one_session_at_a_time(connection, ISSUER, "s-1")

    async with opened.writing() as connection:
        await connection.run_sync(lock)
        ending = asyncio.ensure_future(end(notices))
        done, _ = await asyncio.wait({ending}, timeout=0.2)
        assert not done

    await ending
