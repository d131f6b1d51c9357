"""A token that is rejected while its request waits for a login gets no login. Other tokens of the user get one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.vending.not_before import NotBeforeTarget, Reach
from tests.support.admin_api import admin_request
from tests.support.grants import call, granting_service, minted, use
from tests.support.problems import status_and_code
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, logout_token, token
from tests.support.waiting import eventually

SLOW_SECONDS = 0.6
CREATE, MINT = "/telephony_credentials$", "/token$"

Ask = Callable[[str], Awaitable[httpx.Response]]


def seconds_ago(seconds: int) -> int:
    return int(time.time()) - seconds


def issued(seconds: int, **claims: Any) -> str:
    """A token of alice that was issued this many seconds ago."""
    return token("alice", iat=seconds_ago(seconds), **claims)


@asynccontextmanager
async def slow(telnyx: Telnyx, path: str) -> AsyncIterator[None]:
    """When the context ends, a request that its body has started waits for Telnyx, which responds in SLOW_SECONDS."""
    telnyx.sandbox.journal.clear()
    telnyx.fail("delay", method="POST", path=path, seconds=SLOW_SECONDS)
    yield
    await eventually(lambda: any(entry.fault == "delay" for entry in telnyx.sandbox.journal.entries))


async def refuse(service: Service, target: NotBeforeTarget, not_before: datetime | None = None) -> None:
    await service.components.operators.tokens.set_not_before(target, not_before)


async def issue(service: Service, unverified_token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {unverified_token}"}
    return await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": "laptop"})


async def refresh(service: Service, unverified_token: str, lease_id: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {unverified_token}"}
    return await service.client.post(f"/v1/telephony-credentials/{lease_id}/token", headers=headers)


REJECTED = (401, "invalid_token")
TARGETS = [
    NotBeforeTarget(ISSUER),
    NotBeforeTarget(ISSUER, Reach.USER, "alice"),
    NotBeforeTarget(ISSUER, Reach.SESSION, "s-1"),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.reach.value)
async def test_token_rejected_during_a_create_gets_no_login(
    service: Service, telnyx: Telnyx, target: NotBeforeTarget
) -> None:
    unverified_token = issued(10, sid="s-1")
    async with slow(telnyx, CREATE):
        asked = [asyncio.create_task(issue(service, unverified_token)) for _ in range(3)]
    await refuse(service, target)

    answers = await asyncio.gather(*asked)

    assert [status_and_code(answer) for answer in answers] == [REJECTED] * 3
    assert not any("login_token" in answer.json() for answer in answers)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.reach.value)
async def test_token_rejected_during_a_refresh_gets_no_login(
    service: Service, telnyx: Telnyx, target: NotBeforeTarget
) -> None:
    unverified_token = issued(10, sid="s-1")
    lease_id = (await issue(service, unverified_token)).json()["id"]
    async with slow(telnyx, MINT):
        asked = [asyncio.create_task(refresh(service, unverified_token, lease_id)) for _ in range(3)]
    await refuse(service, target)

    answers = await asyncio.gather(*asked)

    assert [status_and_code(answer) for answer in answers] == [REJECTED] * 3


async def both(first: str, second: str, ask: Ask, telnyx: Telnyx, path: str) -> list[asyncio.Task[httpx.Response]]:
    """Requests with two tokens. The call to Telnyx is made for the first one."""
    async with slow(telnyx, path):
        asked = [asyncio.ensure_future(ask(first))]
    asked.append(asyncio.ensure_future(ask(second)))
    await asyncio.sleep(SLOW_SECONDS / 4)
    return asked


@pytest.mark.parametrize("is_old_first", [True, False])
async def test_not_before_during_a_create_rejects_only_the_older_token(
    service: Service, telnyx: Telnyx, *, is_old_first: bool
) -> None:
    old, new = issued(60), issued(10)
    order = (old, new) if is_old_first else (new, old)
    asked = await both(*order, lambda each: issue(service, each), telnyx, CREATE)
    await refuse(service, NotBeforeTarget(ISSUER, Reach.USER, "alice"), datetime.fromtimestamp(seconds_ago(30), UTC))

    answers = dict(zip(order, await asyncio.gather(*asked), strict=True))

    assert status_and_code(answers[old]) == REJECTED
    assert answers[new].is_success
    assert telnyx.created() == 1


@pytest.mark.parametrize("is_old_first", [True, False])
async def test_not_before_during_a_refresh_rejects_only_the_older_token(
    service: Service, telnyx: Telnyx, *, is_old_first: bool
) -> None:
    old, new = issued(60), issued(10)
    lease_id = (await issue(service, old)).json()["id"]
    order = (old, new) if is_old_first else (new, old)
    asked = await both(*order, lambda each: refresh(service, each, lease_id), telnyx, MINT)
    await refuse(service, NotBeforeTarget(ISSUER, Reach.USER, "alice"), datetime.fromtimestamp(seconds_ago(30), UTC))

    answers = dict(zip(order, await asyncio.gather(*asked), strict=True))

    assert status_and_code(answers[old]) == REJECTED
    assert answers[new].status_code == 200


@pytest.mark.parametrize("is_old_first", [True, False])
async def test_logout_during_a_create_leaves_a_login_for_the_later_token_only(
    service: Service, telnyx: Telnyx, *, is_old_first: bool
) -> None:
    old, new = issued(60), issued(10)
    order = (old, new) if is_old_first else (new, old)
    asked = await both(*order, lambda each: issue(service, each), telnyx, CREATE)
    logout = logout_token(iat=seconds_ago(30))
    assert (await service.client.post("/v1/backchannel-logout", data={"logout_token": logout})).status_code == 200

    answers = dict(zip(order, await asyncio.gather(*asked), strict=True))

    assert status_and_code(answers[old]) == REJECTED
    assert answers[new].status_code == 201
    await eventually(lambda: len(telnyx.live()) == 1)


@pytest.mark.parametrize("is_revoked_first", [True, False])
async def test_grant_revoked_during_a_refresh_gets_no_login_of_another_grant(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, *, is_revoked_first: bool
) -> None:
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        revoked, other = await minted(service), await minted(service)
        lease_id = (await use(service, revoked)).json()["id"]
        assert (await use(service, other)).status_code == 200  # the device belongs to the session of this grant now
        order = (revoked, other) if is_revoked_first else (other, revoked)
        path = f"/v1/telephony-credentials/{lease_id}/token"
        async with slow(telnyx, MINT):
            asked = [asyncio.create_task(call(service, order[0], "POST", path))]
        asked.append(asyncio.create_task(call(service, order[1], "POST", path)))
        await asyncio.sleep(SLOW_SECONDS / 4)
        await admin_request(service, "POST", "/grant-revocations", {"grant_id": revoked["id"]})

        answers = dict(zip((grant["id"] for grant in order), await asyncio.gather(*asked), strict=True))

        assert status_and_code(answers[revoked["id"]]) in (REJECTED, (410, "credential_ended"))
        assert is_revoked_first or answers[other["id"]].status_code == 200


async def test_token_rejected_during_an_outage_gets_no_cached_login(service: Service, telnyx: Telnyx) -> None:
    unverified_token = issued(10, exp=4_000_000_000)
    assert (await issue(service, unverified_token)).status_code == 201
    telnyx.clock.advance(timedelta(hours=20))
    telnyx.sandbox.journal.clear()
    telnyx.fail("hang", times=99)
    asked = asyncio.create_task(issue(service, unverified_token))
    await eventually(lambda: telnyx.sandbox.journal.entries)
    await refuse(service, NotBeforeTarget(ISSUER, Reach.USER, "alice"))

    assert status_and_code(await asked) == REJECTED


async def test_token_rejected_while_another_replica_creates_the_login_gets_none(telnyx: Telnyx, database: str) -> None:
    unverified_token = issued(10)
    async with running_service(telnyx, database) as one, running_service(telnyx, database) as two:
        async with slow(telnyx, CREATE):
            creating = asyncio.create_task(issue(one, unverified_token))
        waiting = asyncio.create_task(issue(two, unverified_token))
        await asyncio.sleep(SLOW_SECONDS / 4)
        await refuse(two, NotBeforeTarget(ISSUER, Reach.USER, "alice"))

        assert status_and_code(await waiting) == REJECTED
        await creating
