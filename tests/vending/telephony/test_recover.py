"""Lost responses: what Telnyx committed without a response is found again, and never created twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa

from app.adapters.ledger.engines import database_url, open_engine
from app.composition.components import Components
from app.vending.errors import (
    DialtoneError,
    LedgerUnavailable,
    TelnyxKeyRejected,
    TelnyxRateLimited,
    TelnyxRejected,
    TelnyxUnreachable,
)
from app.vending.models import IssueRequest
from app.vending.not_before import LogoutClaims
from app.vending.telephony.deadlines import Timing
from app.vending.telephony.lease import ENDED
from app.vending.telephony.login_cache import Login
from tests.support.sandbox import Telnyx
from tests.support.service import idle_components, running_components
from tests.support.tokens import principal
from tests.support.waiting import DAY, HOUR, eventually

ALICE = principal("alice")
LAPTOP = IssueRequest("laptop")
CLAIM = Timing().claim * 1.1
CREATE = {"method": "POST", "path": "telephony_credentials$"}


@pytest.fixture
async def components(telnyx: Telnyx, database: str) -> AsyncIterator[Components]:
    async with idle_components(telnyx, database) as components:
        yield components


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "hang"},
        {"kind": "drop"},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502, "body": "<html>Bad Gateway</html>"},
        {"kind": "garbage", "body": "not json"},
        {"kind": "garbage", "body": '{"data": {"id": 17}}'},
        {"kind": "garbage", "body": '{"data": null}'},
        {"kind": "drip", "seconds": 0.5},
        {"kind": "huge"},
        {"kind": "garbage", "body": "{}", "headers": {"content-encoding": "gzip"}},
    ],
    ids=lambda fault: fault["kind"] + fault.get("body", "")[:12],
)
async def test_unreported_create_is_adopted(components: Components, telnyx: Telnyx, fault: dict[str, object]) -> None:
    telnyx.fail(**(CREATE | {"after_commit": True} | fault))  # type: ignore[arg-type]

    login = await request_until_issued(components)

    assert telnyx.created() == 1
    assert telnyx.live() == [login.lease.credential_id]


async def request_until_issued(components: Components) -> Login:
    for _ in range(5):
        try:
            return await components.telephony.issuer.issue(ALICE, LAPTOP)
        except DialtoneError:
            await asyncio.sleep(0.1)
    raise AssertionError("no login after five tries")


async def test_lost_create_with_a_failed_lookup_is_found_by_the_next_request(
    components: Components, telnyx: Telnyx
) -> None:
    telnyx.fail("drop", **CREATE, after_commit=True)
    telnyx.fail("status", method="GET", path="telephony_credentials$", status=503, times=3)

    with pytest.raises(TelnyxUnreachable):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert telnyx.created() == 1
    assert telnyx.live() == [login.lease.credential_id]


async def test_recovered_lease_ends_with_the_session_that_got_the_login(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("drop", **CREATE, after_commit=True)
    telnyx.fail("status", method="GET", path="telephony_credentials$", status=503, times=3)
    with pytest.raises(TelnyxUnreachable):
        await components.telephony.issuer.issue(replace(ALICE, session="s-1"), LAPTOP)
    login = await components.telephony.issuer.issue(replace(ALICE, session="s-2"), LAPTOP)
    now = telnyx.clock()
    logout = LogoutClaims(ALICE.issuer, "logout-1", now, now + HOUR, ALICE.subject, "s-2")

    await components.telephony.revoker.log_out(logout)

    ended = await components.ledger.leases.find(login.lease.id)
    assert ended is not None
    assert ended.state in ENDED


async def test_create_that_never_arrived_is_repeated_after_the_list_has_settled(
    components: Components, telnyx: Telnyx
) -> None:
    telnyx.fail("hang", **CREATE)

    login = await request_until_issued(components)

    assert telnyx.created() == 1
    assert telnyx.live() == [login.lease.credential_id]


async def test_late_create_is_deleted_when_it_is_found(telnyx: Telnyx, sqlite: str) -> None:
    async with running_components(telnyx, sqlite) as components:
        telnyx.fail("status", **CREATE, after_commit=True, status=500)
        telnyx.fail("status", method="GET", path="telephony_credentials$", status=503, times=3)
        with pytest.raises(DialtoneError):
            await components.telephony.issuer.issue(ALICE, LAPTOP)
        (first,) = telnyx.sandbox.account.credentials.values()
        account = telnyx.sandbox.account
        twin = account.create_credential(
            {"connection_id": first.connection_id, "name": first.name, "expires_at": first.expires_at.isoformat()}
        )

        login = await components.telephony.issuer.issue(ALICE, LAPTOP)

        assert telnyx.live() == [login.lease.credential_id]
        assert login.lease.credential_id in (first.id, twin["id"])


async def test_expired_pending_lease_is_not_created_again(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("drop", **CREATE, after_commit=True)
    telnyx.fail("status", method="GET", status=500, times=20)
    with pytest.raises(DialtoneError):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.sandbox.faults.plans.clear()
    telnyx.clock.advance(DAY * 2)
    telnyx.fail("status", method="DELETE", status=500, times=4)

    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    names = [item.name for item in telnyx.sandbox.account.credentials.values()]
    assert len(names) == len(set(names)) == 2
    telnyx.sandbox.faults.plans.clear()
    telnyx.clock.advance(HOUR)
    await components.upkeep.sweeper.sweep()
    assert [item.id for item in telnyx.sandbox.account.credentials.values()] == [login.lease.credential_id]


async def test_throttled_device_waits_before_telnyx_is_called_again(telnyx: Telnyx, database: str) -> None:
    telnyx.fail("status", **CREATE, status=429, headers={"retry-after": "5"})
    async with idle_components(telnyx, database, telnyx_call_seconds=2.0) as components:
        for _ in range(2):
            with pytest.raises(TelnyxRateLimited):
                await components.telephony.issuer.issue(ALICE, LAPTOP)
        assert len(telnyx.calls("POST")) == 1
        login = None
        while login is None:
            with suppress(TelnyxRateLimited):
                login = await components.telephony.issuer.issue(ALICE, LAPTOP)

        assert telnyx.live() == [login.lease.credential_id]


@pytest.mark.parametrize(("status", "error"), [(401, TelnyxKeyRejected), (422, TelnyxRejected)])
async def test_rejected_create_leaves_nothing_and_the_next_request_starts_at_once(
    components: Components, telnyx: Telnyx, status: int, error: type[DialtoneError]
) -> None:
    telnyx.fail("status", **CREATE, status=status, body='{"errors":[{"code":"10015","title":"no"}]}')

    with pytest.raises(error):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    assert telnyx.live() == []
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert telnyx.live() == [login.lease.credential_id]
    assert telnyx.calls("GET") == [], "no look-up, which would wait until the list has settled"


async def test_failed_mint_causes_no_second_credential(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("status", method="POST", path="/token$", status=500)

    with pytest.raises(DialtoneError):
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    login = await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert telnyx.live() == [login.lease.credential_id]
    assert not login.is_new


@pytest.mark.parametrize("status", [503, 429, 401])
async def test_cached_login_is_returned_during_a_telnyx_outage(
    components: Components, telnyx: Telnyx, status: int
) -> None:
    first = await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.clock.advance((first.refresh_after - first.issued_at) * 1.05)
    telnyx.fail("status", status=status, times=1000)

    meanwhile = await components.telephony.issuer.issue(ALICE, LAPTOP)
    telnyx.clock.advance(first.expires_at - telnyx.clock())
    with pytest.raises(DialtoneError):
        await components.telephony.issuer.issue(ALICE, LAPTOP)

    assert meanwhile.token == first.token
    assert (meanwhile.refresh_after - first.issued_at) < (first.expires_at - first.issued_at)


async def test_without_a_ledger_row_telnyx_is_not_called(telnyx: Telnyx, database: str) -> None:
    async with running_components(telnyx, database) as components:
        await execute(database, "DROP TABLE leases")

        with pytest.raises(LedgerUnavailable):
            await components.telephony.issuer.issue(ALICE, LAPTOP)

        assert telnyx.calls() == []


async def test_failed_commit_after_the_create_is_recovered_by_name(telnyx: Telnyx, sqlite: str) -> None:
    async with running_components(telnyx, sqlite) as components:
        await execute(
            sqlite,
            "CREATE TRIGGER full BEFORE UPDATE ON leases WHEN NEW.state = 'active' "
            "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END",
        )
        with pytest.raises(DialtoneError):
            await components.telephony.issuer.issue(ALICE, LAPTOP)
        await execute(sqlite, "DROP TRIGGER full")

        login = await components.telephony.issuer.issue(ALICE, LAPTOP)

        assert telnyx.created() == 1
        assert telnyx.live() == [login.lease.credential_id]


async def test_resumed_claim_holder_does_not_delete_its_successors_credential(telnyx: Telnyx, sqlite: str) -> None:
    """The worst order: the holder's create is committed late, after its successor has created another credential."""
    async with (
        running_components(telnyx, sqlite, request_timeout_seconds=30) as slow,
        running_components(telnyx, sqlite) as other,
    ):
        telnyx.fail("hang", **CREATE)
        first = asyncio.create_task(slow.telephony.issuer.issue(ALICE, LAPTOP))
        await eventually(lambda: telnyx.calls("POST"))
        telnyx.clock.advance(CLAIM)
        second = await other.telephony.issuer.issue(ALICE, LAPTOP)
        row = second.lease
        account = telnyx.sandbox.account
        late = account.create_credential({"connection_id": row.connection_id, "name": row.credential_name})
        account.credentials = {late["id"]: account.credentials.pop(late["id"])} | account.credentials  # the older one

        again = await first

        assert second.lease.credential_id in telnyx.live()
        assert again.lease.credential_id == second.lease.credential_id


async def test_pending_lease_of_another_replica_is_awaited(telnyx: Telnyx, database: str) -> None:
    async with running_components(telnyx, database) as here, running_components(telnyx, database) as there:
        telnyx.fail("delay", **CREATE, seconds=0.5)

        first, second = await asyncio.gather(
            here.telephony.issuer.issue(ALICE, LAPTOP), there.telephony.issuer.issue(ALICE, LAPTOP)
        )

        assert first.lease.credential_id == second.lease.credential_id
        assert telnyx.created() == 1


async def test_expired_claim_is_taken_over_and_its_holder_yields(telnyx: Telnyx, database: str) -> None:
    """The holder is slow, not dead: it resumes after its claim has expired and must change nothing."""
    async with running_components(telnyx, database) as slow, running_components(telnyx, database) as other:
        telnyx.fail("delay", **CREATE, seconds=0.4)
        first = asyncio.create_task(slow.telephony.issuer.issue(ALICE, LAPTOP))
        await eventually(lambda: telnyx.calls("POST"))
        telnyx.clock.advance(CLAIM)

        second = await other.telephony.issuer.issue(ALICE, LAPTOP)
        late = await first

        assert late.lease.id == second.lease.id
        assert late.lease.credential_id == second.lease.credential_id
        await eventually(lambda: telnyx.live() == [second.lease.credential_id])


async def execute(database: str, statement: str) -> None:
    engine = open_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))
    await engine.dispose()
