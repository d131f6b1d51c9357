"""Binding: a grant works on the first device that uses it, and on pages of its origin."""

import asyncio
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from app.adapters.ledger.tables import grants
from tests.support.grants import (
    audit_events,
    call,
    grant_rows,
    granting_service,
    minted,
    use,
)
from tests.support.problems import status_and_code
from tests.support.sandbox import Telnyx
from tests.support.service import Service

APP = "https://app.example.com"


async def test_grant_works_again_on_its_device_and_on_no_other(granting: Service) -> None:
    grant = await minted(granting)
    first = await use(granting, grant, "tab-1")

    assert [first.status_code, (await use(granting, grant, "tab-1")).status_code] == [201, 200]
    assert status_and_code(await use(granting, grant, "tab-2")) == (401, "invalid_token")
    refreshed = await call(granting, grant, "POST", f"/v1/telephony-credentials/{first.json()['id']}/token")
    assert refreshed.status_code == 200
    denied = await audit_events(granting, subject="erin", action="denied")
    assert [event["reason"] for event in denied] == ["grant_of_other_device"]


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("PATCH", ""), ("POST", "/token"), ("DELETE", "")])
async def test_grant_of_one_device_cannot_touch_another(granting: Service, method: str, tail: str) -> None:
    other = (await use(granting, await minted(granting), "tab-2")).json()
    grant = await minted(granting)
    await use(granting, grant, "tab-1")
    body = {"label": "x"} if method == "PATCH" else None

    answer = await call(granting, grant, method, f"/v1/telephony-credentials/{other['id']}{tail}", json=body)

    assert status_and_code(answer) == (401, "invalid_token")


async def test_one_of_several_concurrent_devices_is_bound(granting: Service) -> None:
    grant = await minted(granting)

    answers = await asyncio.gather(*(use(granting, grant, f"tab-{number}") for number in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 7
    (row,) = await grant_rows(granting)
    (used,) = await audit_events(granting, subject="erin", action="grant_used")
    assert used["device_id"] == row["device_id"]
    assert used["details"] == {"grant_id": grant["id"]}


async def test_two_replicas_bind_one_device(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, database, tmp_path) as one, granting_service(telnyx, database, tmp_path) as two:
        grant = await minted(one)

        answers = await asyncio.gather(
            *(use(service, grant, f"tab-{number}") for number in range(4) for service in (one, two))
        )

        assert {answer.status_code for answer in answers} <= {200, 201, 401}
        good = {answer.json()["sip_username"] for answer in answers if answer.is_success}
        assert len(good) == 1
        assert len(await grant_rows(one)) == 1


async def test_another_grant_for_the_same_user_and_device_renews_the_login(granting: Service) -> None:
    first = (await use(granting, await minted(granting))).json()
    granting.clock.advance(timedelta(minutes=20))

    second = await use(granting, await minted(granting))

    assert second.status_code == 200
    assert second.json()["sip_username"] == first["sip_username"]


async def test_expired_grant_is_rejected(granting: Service) -> None:
    grant = await minted(granting)
    login = (await use(granting, grant)).json()
    granting.clock.advance(timedelta(seconds=331))

    refreshed = await call(granting, grant, "POST", f"/v1/telephony-credentials/{login['id']}/token")

    assert status_and_code(refreshed) == (401, "invalid_token")
    assert status_and_code(await use(granting, grant)) == (401, "invalid_token")


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example.com"}, {"Origin": "null"}])
async def test_grant_of_one_origin_is_rejected_from_others(
    granting: Service, headers: dict[str, str], *, is_cached: bool
) -> None:
    grant = await minted(granting, origin=APP)
    if is_cached:
        assert (await use(granting, grant, Origin=APP)).status_code == 201

    assert status_and_code(await use(granting, grant, **headers)) == (401, "invalid_token")

    denied = await audit_events(granting, subject="erin", action="denied")
    assert [event["reason"] for event in denied] == ["grant_of_other_origin"]


async def test_fast_path_answers_requests_of_the_right_origin(granting: Service) -> None:
    grant = await minted(granting, origin=APP)
    await use(granting, grant, Origin=APP)
    before = granting.app.requests

    answer = await use(granting, grant, Origin=APP)

    assert answer.status_code == 200
    assert granting.app.requests == before


async def test_login_event_names_the_grant(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)

    (issued,) = await audit_events(granting, subject="erin", action="issued")

    assert issued["details"] == {"grant_id": grant["id"]}


# -- unavailable ledger -----------------------------------------------------------------------------------------------


async def request_uncached_login(service: Service, grant: dict[str, str], device: str = "tab-1") -> httpx.Response:
    """Request a login that is read from the ledger, because the request names terms of its own."""
    return await call(service, grant, "POST", json={"device_id": device, "ttl_seconds": 600})


async def test_bound_device_gets_its_cached_login_while_the_ledger_is_unavailable(granting: Service) -> None:
    grant = await minted(granting)
    login = (await use(granting, grant)).json()
    await granting.components.ledger.database.write(lambda connection: grants.drop(connection))

    answer = await request_uncached_login(granting, grant)

    assert answer.status_code == 200
    assert answer.json()["login_token"] == login["login_token"]


async def test_unbound_grant_gets_no_cached_login_while_the_ledger_is_unavailable(granting: Service) -> None:
    first, second = await minted(granting), await minted(granting)
    await use(granting, first)
    await granting.components.ledger.database.write(lambda connection: grants.drop(connection))

    assert status_and_code(await request_uncached_login(granting, second)) == (503, "ledger_unavailable")
    assert status_and_code(await request_uncached_login(granting, first, "tab-2")) == (503, "ledger_unavailable")


async def test_new_grant_of_a_known_device_gets_its_cached_login_during_a_telnyx_outage(
    granting: Service, telnyx: Telnyx
) -> None:
    login = (await use(granting, await minted(granting))).json()
    another = await minted(granting)
    telnyx.fail("status", status=503, times=1000)

    answer = await request_uncached_login(granting, another)

    assert answer.status_code == 200
    assert answer.json()["login_token"] == login["login_token"]
