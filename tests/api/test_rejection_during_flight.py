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

CREATE, MINT = "/telephony_credentials$", "/token$"

Ask = Callable[[str], Awaitable[httpx.Response]]
Answering = asyncio.Future[httpx.Response]


def seconds_ago(seconds: int) -> int:
    return int(time.time()) - seconds


def issued(seconds: int, **claims: Any) -> str:
    """A token of alice that was issued this many seconds ago."""
    return token("alice", iat=seconds_ago(seconds), **claims)


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, sqlite, telnyx_call_seconds=20.0, request_timeout_seconds=60.0) as service:
        yield service


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
    async with telnyx.held("POST", CREATE) as create:
        asked = [asyncio.create_task(issue(service, unverified_token)) for _ in range(3)]
        await create.arrived.wait()
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
    async with telnyx.held("POST", MINT) as mint:
        asked = [asyncio.create_task(refresh(service, unverified_token, lease_id)) for _ in range(3)]
        await mint.arrived.wait()
        await refuse(service, target)

    answers = await asyncio.gather(*asked)

    assert [status_and_code(answer) for answer in answers] == [REJECTED] * 3


@asynccontextmanager
async def both(service: Service, order: tuple[str, str], ask: Ask, path: str) -> AsyncIterator[list[Answering]]:
    """Requests with two tokens. The call to Telnyx is made for the first one, and returns when the context ends."""
    async with service.telnyx.held("POST", path) as held:
        before = service.app.requests
        asked: list[Answering] = [asyncio.ensure_future(ask(order[0]))]
        await held.arrived.wait()
        asked.append(asyncio.ensure_future(ask(order[1])))
        await eventually(lambda: service.app.requests == before + 2)
        await asyncio.sleep(0.1)
        yield asked


@pytest.mark.parametrize("is_old_first", [True, False])
async def test_not_before_during_a_create_rejects_only_the_older_token(
    service: Service, telnyx: Telnyx, *, is_old_first: bool
) -> None:
    old, new = issued(60), issued(10)
    order = (old, new) if is_old_first else (new, old)
    not_before = datetime.fromtimestamp(seconds_ago(30), UTC)
    async with both(service, order, lambda each: issue(service, each), CREATE) as asked:
        await refuse(service, NotBeforeTarget(ISSUER, Reach.USER, "alice"), not_before)

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
    not_before = datetime.fromtimestamp(seconds_ago(30), UTC)
    async with both(service, order, lambda each: refresh(service, each, lease_id), MINT) as asked:
        await refuse(service, NotBeforeTarget(ISSUER, Reach.USER, "alice"), not_before)

    answers = dict(zip(order, await asyncio.gather(*asked), strict=True))

    assert status_and_code(answers[old]) == REJECTED
    assert answers[new].status_code == 200


@pytest.mark.parametrize("is_old_first", [True, False])
async def test_logout_during_a_create_leaves_a_login_for_the_later_token_only(
    service: Service, telnyx: Telnyx, *, is_old_first: bool
) -> None:
    old, new = issued(60), issued(10)
    order = (old, new) if is_old_first else (new, old)
    logout = logout_token(iat=seconds_ago(30))
    async with both(service, order, lambda each: issue(service, each), CREATE) as asked:
        assert (await service.client.post("/v1/backchannel-logout", data={"logout_token": logout})).status_code == 200

    answers = dict(zip(order, await asyncio.gather(*asked), strict=True))

    assert status_and_code(answers[old]) == REJECTED
    assert answers[new].status_code == 201
    await eventually(lambda: len(telnyx.live()) == 1)


@pytest.mark.parametrize("is_revoked_first", [True, False])
async def test_grant_revoked_during_a_refresh_gets_no_login_of_another_grant(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, *, is_revoked_first: bool
) -> None:
    patience: dict[str, Any] = {"telnyx_call_seconds": 20.0, "request_timeout_seconds": 60.0}
    async with granting_service(telnyx, sqlite, tmp_path, **patience) as service:
        revoked, other = await minted(service), await minted(service)
        lease_id = (await use(service, revoked)).json()["id"]
        assert (await use(service, other)).status_code == 200  # the device belongs to the session of this grant now
        order = (revoked, other) if is_revoked_first else (other, revoked)
        path = f"/v1/telephony-credentials/{lease_id}/token"
        grants = {grant["token"]: grant for grant in order}
        tokens = (order[0]["token"], order[1]["token"])
        async with both(service, tokens, lambda each: call(service, grants[each], "POST", path), MINT) as asked:
            await admin_request(service, "POST", "/grant-revocations", {"grant_id": revoked["id"]})

        answers = dict(zip((grant["id"] for grant in order), await asyncio.gather(*asked), strict=True))

        assert status_and_code(answers[revoked["id"]]) in (REJECTED, (410, "credential_ended"))
        assert is_revoked_first or answers[other["id"]].status_code == 200


async def test_token_rejected_during_an_outage_gets_no_cached_login(service: Service, telnyx: Telnyx) -> None:
    unverified_token = issued(10, exp=4_000_000_000)
    assert (await issue(service, unverified_token)).status_code == 201
    telnyx.clock.advance(timedelta(hours=20))
    telnyx.fail("status", status=503, times=99)
    async with telnyx.held("PATCH", "telephony_credentials") as extension:
        asked = asyncio.create_task(issue(service, unverified_token))
        await extension.arrived.wait()
        await refuse(service, NotBeforeTarget(ISSUER, Reach.USER, "alice"))

    assert status_and_code(await asked) == REJECTED


async def test_token_rejected_while_another_replica_creates_the_login_gets_none(telnyx: Telnyx, database: str) -> None:
    unverified_token = issued(10)
    patience: dict[str, Any] = {"telnyx_call_seconds": 20.0, "request_timeout_seconds": 60.0}
    async with (
        running_service(telnyx, database, **patience) as one,
        running_service(telnyx, database, **patience) as two,
    ):
        async with telnyx.held("POST", CREATE) as create:
            creating = asyncio.create_task(issue(one, unverified_token))
            await create.arrived.wait()
            waiting = asyncio.create_task(issue(two, unverified_token))
            await eventually(lambda: two.app.requests == 1)
            await asyncio.sleep(0.1)
            await refuse(two, NotBeforeTarget(ISSUER, Reach.USER, "alice"))

        assert status_and_code(await waiting) == REJECTED
        await creating
