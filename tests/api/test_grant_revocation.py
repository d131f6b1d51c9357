"""Revoking grants: one, those of a backend, all, and not-before entries for the users of grants."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.admin_api import admin_request, current_token
from tests.support.grants import (
    RULES,
    SCOPE,
    audit_events,
    call,
    from_file,
    grant_key,
    grant_rows,
    granting_service,
    minted,
    minted_for_guest,
    revoke_grants,
    use,
    write_config,
)
from tests.support.problems import status_and_code
from tests.support.sandbox import Telnyx
from tests.support.service import Service, settings_for
from tests.support.tokens import ISSUER


async def test_revoked_grant_is_rejected_and_its_device_logged_out(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    await use(granting, grant)

    assert await revoke_grants(granting, grant_id=grant["id"]) == {"revoked": 1, "leases": 1, "complete": True}

    assert status_and_code(await use(granting, grant)) == (401, "invalid_token")
    assert [lease["state"] for lease in (await admin_request(granting, "GET", "/leases")).json()["data"]] != ["active"]
    (revoked,) = await audit_events(granting, subject="erin", action="grant_revoked")
    assert revoked["details"] == {"grant_id": grant["id"], "leases": 1}
    assert (await revoke_grants(granting, grant_id=grant["id"]))["leases"] == 0


async def test_unused_grant_can_be_revoked(granting: Service) -> None:
    grant = await minted(granting)

    await revoke_grants(granting, grant_id=grant["id"])

    assert status_and_code(await use(granting, grant)) == (401, "invalid_token")


async def test_revocation_does_not_end_a_login_that_was_made_with_a_later_grant(granting: Service) -> None:
    first, second = await minted(granting), await minted(granting)
    await use(granting, first)
    await use(granting, second)

    assert (await revoke_grants(granting, grant_id=first["id"]))["leases"] == 0

    assert status_and_code(await use(granting, first)) == (401, "invalid_token")
    assert (await use(granting, second)).status_code == 200


async def test_revocation_during_a_refresh_leaves_no_login_with_the_revoked_grant(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    patience: dict[str, Any] = {"telnyx_call_seconds": 30.0, "request_timeout_seconds": 60.0}
    async with granting_service(telnyx, sqlite, tmp_path, **patience) as service:
        first, second = await minted(service), await minted(service)
        path = f"/v1/telephony-credentials/{(await use(service, first)).json()['id']}/token"
        async with telnyx.held("POST", "/token$") as mint:
            slow = asyncio.create_task(call(service, first, "POST", path))
            await mint.arrived.wait()
            queued = asyncio.create_task(call(service, second, "POST", path))
            while None in {row["device_id"] for row in await grant_rows(service)}:
                await asyncio.sleep(0.02)

            assert (await revoke_grants(service, grant_id=second["id"]))["leases"] == 0

        assert status_and_code(await queued) == (401, "invalid_token")
        assert (await slow).status_code == 200
        assert (await revoke_grants(service, grant_id=first["id"]))["leases"] == 1


async def test_grants_of_one_backend_are_revoked(granting: Service) -> None:
    mine, other = await minted(granting), await minted(granting, backend="other-shop", subject="frank")
    await use(granting, mine)
    await use(granting, other)

    shop = {"backend_issuer": ISSUER, "backend_subject": "shop"}
    found = await revoke_grants(granting, **shop, confirm="dialtone")

    assert found == {"revoked": 1, "leases": 1, "complete": True}
    assert (await use(granting, mine)).status_code == 401
    assert (await use(granting, other)).status_code == 200


async def test_all_grants_are_revoked_also_expired_ones_with_a_live_login(granting: Service) -> None:
    expired = await minted(granting)
    await use(granting, expired)
    granting.clock.advance(timedelta(minutes=30))
    await granting.components.upkeep.sweeper.sweep()
    grant = await minted_for_guest(granting)
    await use(granting, grant)

    assert (await revoke_grants(granting, everything=True, confirm="dialtone")) == {
        "revoked": 2,
        "leases": 2,
        "complete": True,
    }

    assert (await use(granting, grant)).status_code == 401
    assert (await use(granting, await minted(granting))).status_code == 201


async def test_revoking_many_grants_requires_the_namespace(granting: Service) -> None:
    answer = await admin_request(granting, "POST", "/grant-revocations", {"everything": True})

    assert status_and_code(answer) == (422, "not_confirmed")


async def test_backend_revokes_its_own_grants_only(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    tokens = {name: {"token": current_token(granting, name, scope=SCOPE)} for name in ("shop", "other-shop", "alice")}
    path = f"/v1/grants/{grant['id']}"

    for other in ("other-shop", "alice"):
        assert status_and_code(await call(granting, tokens[other], "DELETE", path)) == (404, "grant_not_found")
    assert (await use(granting, grant)).status_code == 200
    assert (await call(granting, tokens["shop"], "DELETE", path)).status_code == 204

    assert (await use(granting, grant)).status_code == 401


async def test_revocation_reaches_the_other_replica(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, database, tmp_path) as one, granting_service(telnyx, database, tmp_path) as two:
        grant = await minted(one)
        await use(one, grant)
        assert [(await use(two, grant)).status_code for _ in range(2)] == [200, 200]

        await revoke_grants(one, grant_id=grant["id"])
        await two.components.upkeep.change_poller.poll()
        before = two.app.requests

        assert status_and_code(await use(two, grant)) == (401, "invalid_token")
        assert two.app.requests == before


async def test_not_before_applies_to_users_of_grants(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    granting.clock.advance(timedelta(seconds=2))

    await admin_request(granting, "PUT", "/not-before", {"issuer": "dialtone:users", "subject": "erin"})

    assert status_and_code(await use(granting, grant)) == (401, "invalid_token")


async def test_not_before_that_was_set_while_grants_were_off_rejects_earlier_grants(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    (tmp_path / "off").mkdir()
    rules = RULES.split('[[policy.rules]]\nname = "session-users"')[0]
    on = settings_for(telnyx.url, sqlite, **from_file(write_config(tmp_path)), grant_key=grant_key())
    off = settings_for(telnyx.url, sqlite, **from_file(write_config(tmp_path / "off", rules)))
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        grant = await minted(service)
        service.clock.advance(timedelta(seconds=2))
        await service.components.reload(off)

        answer = await admin_request(service, "PUT", "/not-before", {"issuer": "dialtone:users", "subject": "erin"})

        assert answer.status_code == 200
        await service.components.reload(on)
        service.clock.advance(timedelta(seconds=1))
        assert status_and_code(await use(service, grant)) == (401, "invalid_token")
        assert (await use(service, await minted(service))).status_code == 201


async def test_users_of_grants_can_be_logged_out_while_grants_are_off(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    (tmp_path / "off").mkdir()
    rules = RULES.split('[[policy.rules]]\nname = "session-users"')[0]
    off = settings_for(telnyx.url, sqlite, **from_file(write_config(tmp_path / "off", rules)))
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        await use(service, await minted(service))
        await service.components.reload(off)
        body = {"issuer": "dialtone:users", "subject": "erin", "refuse_tokens": True}

        answer = await admin_request(service, "POST", "/revocations", body)

        assert (answer.status_code, answer.json()["revoked"]) == (202, 1)
