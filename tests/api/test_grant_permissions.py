"""Permissions of a grant: its own device only. Forged grants have none."""

from pathlib import Path
from typing import Any

import pytest

from app.adapters.identity.grant_keys import GrantSigningKey
from tests.support.admin_api import current_token
from tests.support.grants import (
    RULES,
    audit_events,
    call,
    grant_key,
    granting_service,
    mint,
    minted,
    minted_for_guest,
    use,
)
from tests.support.problems import status_and_code
from tests.support.sandbox import Telnyx
from tests.support.service import Service

APP = "https://app.example.com"


def forged(service: Service, **changes: Any) -> dict[str, Any]:
    """A grant for erin that an attacker with the key has signed."""
    now = int(service.clock().timestamp())
    claims = {"iss": "dialtone:users", "sub": "erin", "aud": "dialtone:dialtone", "iat": now, "exp": now + 300}
    return {"token": GrantSigningKey(grant_key()).sign(claims | changes)}


@pytest.mark.parametrize("claims", [{}, {"sid": "unknown"}, {"sid": "not\u00a0printable"}])
async def test_forged_grant_gets_no_cached_login(granting: Service, claims: dict[str, str]) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    assert (await use(granting, grant)).status_code == 200

    assert status_and_code(await use(granting, forged(granting, **claims))) == (401, "invalid_token")

    (denied,) = await audit_events(granting, subject="erin", action="denied")
    assert denied["reason"] == "grant_revoked"


async def test_forged_grant_cannot_name_the_row_of_another_grant(granting: Service) -> None:
    own, granted = await minted_for_guest(granting), await minted(granting, origin=APP)

    for claims in ({"sid": own["id"]}, {"sid": granted["id"], "exp": 4102444800}, {"sid": granted["id"]}):
        assert status_and_code(await use(granting, forged(granting, **claims))) == (401, "invalid_token")

    assert (await use(granting, granted, Origin=APP)).status_code == 201


async def test_forged_grant_reaches_no_push_credential(granting: Service) -> None:
    answer = await call(granting, forged(granting, sid="unknown"), "GET", "/v1/push-credentials")

    assert status_and_code(answer) == (401, "invalid_token")


@pytest.mark.parametrize("kind", ["user", "guest"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/grants", {"kind": "guest"}),
        ("GET", "/v1/admin/leases", None),
        ("POST", "/v1/admin/revocations", {"everything": True, "confirm": "dialtone"}),
        ("POST", "/v1/admin/grant-revocations", {"everything": True, "confirm": "dialtone"}),
        ("GET", "/v1/telephony-credentials", None),
        ("DELETE", "/v1/telephony-credentials", None),
    ],
)
async def test_grant_has_no_power_beyond_its_device(
    granting: Service, kind: str, method: str, path: str, body: Any
) -> None:
    grant = await minted(granting, kind=kind)

    assert (await call(granting, grant, method, path, json=body)).status_code == 403


async def test_guest_registers_no_push_credential(granting: Service) -> None:
    grant = await minted_for_guest(granting)

    assert status_and_code(await call(granting, grant, "GET", "/v1/push-credentials")) == (403, "push_not_allowed")


async def test_guest_gets_no_sip_password(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, sip_password=True) as service:
        grant = await minted_for_guest(service)
        body = {"device_id": "tab", "grant": "sip_password"}

        assert status_and_code(await call(service, grant, "POST", json=body)) == (403, "grant_not_allowed")


async def test_user_of_an_identity_provider_is_another_user_than_that_of_a_grant(granting: Service) -> None:
    grant = await minted(granting, subject="alice")
    of_provider = {"token": current_token(granting, "alice")}

    mine = (await use(granting, of_provider, "tab")).json()
    answers = [
        await call(granting, grant, method, f"/v1/telephony-credentials/{mine['id']}{tail}")
        for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/token"))
    ]

    assert [status_and_code(answer) for answer in answers] == [(404, "credential_not_found")] * 3


async def test_guest_cannot_touch_the_login_of_another_guest(granting: Service) -> None:
    mine = (await use(granting, await minted_for_guest(granting), "tab")).json()
    other = await minted_for_guest(granting)

    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/token")):
        answer = await call(granting, other, method, f"/v1/telephony-credentials/{mine['id']}{tail}")
        assert status_and_code(answer) == (404, "credential_not_found")


async def test_rule_may_examine_the_claims_of_a_grant(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    own = 'issuers = ["dialtone:users"]\n'
    async with granting_service(telnyx, sqlite, tmp_path, RULES.replace(own, own + 'claims.sub = "erin"\n')) as service:
        assert (await use(service, await minted(service))).status_code == 201
        assert status_and_code(await mint(service, subject="frank")) == (403, "access_denied")


async def test_identity_provider_cannot_name_the_issuer_of_grants(granting: Service) -> None:
    forged = {"token": current_token(granting, "erin", iss="dialtone:users", aud="dialtone:dialtone", sid="x")}

    assert status_and_code(await use(granting, forged)) == (401, "invalid_token")
