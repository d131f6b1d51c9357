"""Grants: backends vouch for users without an access token and for guests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import KeySet

from app.adapters.identity.grant_keys import GrantSigningKey
from app.adapters.ledger.tables import grants
from app.vending.not_before import NotBeforeTarget, Reach
from tests.support.admin_api import admin_request, current_token
from tests.support.grants import (
    RULES,
    SCOPE,
    call,
    ed25519_key,
    from_file,
    grant_key,
    granting_service,
    mint,
    minted,
    minted_for_guest,
    use,
    write_config,
)
from tests.support.sandbox import Telnyx
from tests.support.service import Service, settings_for

APP = "https://app.example.com"


@pytest.fixture
async def granting(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        yield service


async def events_of(service: Service, count: int = 1, **criteria: str) -> list[dict[str, Any]]:
    """The audit events, once there are `count`."""
    deadline = asyncio.get_running_loop().time() + 5
    while True:
        found: list[dict[str, Any]] = (await admin_request(service, "GET", "/audit", **criteria)).json()["data"]
        if len(found) >= count or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(0.05)


async def rows_of(service: Service) -> list[sa.RowMapping]:
    return await service.components.ledger.database.rows(sa.select(grants))


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# -- minting ----------------------------------------------------------------------------------------------------------


async def test_user_that_a_backend_vouches_for_gets_a_login(granting: Service) -> None:
    grant = await minted(granting)

    answer = await use(granting, grant)

    assert answer.status_code == 201
    (lease,) = (await admin_request(granting, "GET", "/leases", subject="erin")).json()["data"]
    assert (lease["issuer"], lease["subject"], lease["device_id"]) == ("dialtone:users", "erin", "tab-1")


async def test_grant_is_a_jwt_that_the_published_keys_verify(granting: Service) -> None:
    grant = await minted(granting, origin=APP)

    keys = (await granting.client.get("/.well-known/jwks.json")).json()

    assert [sorted(key) for key in keys["keys"]] == [["alg", "crv", "kid", "kty", "use", "x", "y"]]
    verified = jwt.decode(grant["token"], KeySet.import_key_set(keys), algorithms=["ES256"])
    assert verified.header["typ"] == "grant+jwt"
    assert verified.claims | {"iat": 0, "exp": 0} == {
        "iss": "dialtone:users",
        "sub": "erin",
        "aud": "dialtone:dialtone",
        "sid": grant["id"],
        "origin": APP,
        "iat": 0,
        "exp": 0,
    }
    assert verified.claims["exp"] - verified.claims["iat"] == 300


async def test_ed25519_key_signs_grants(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, grant_key=ed25519_key()) as service:
        grant = await minted(service)
        assert jwt.decode(
            grant["token"],
            KeySet.import_key_set((await service.client.get("/.well-known/jwks.json")).json()),
            algorithms=["EdDSA"],
        )

        assert (await use(service, grant)).status_code == 201


@pytest.mark.parametrize(("wanted", "seconds"), [(60, 60), (3600, 300), (None, 300)])
async def test_lifetime_is_bounded_by_the_setting(granting: Service, wanted: int | None, seconds: int) -> None:
    grant = await minted(granting, ttl_seconds=wanted)

    left = datetime.fromisoformat(grant["expires_at"]) - granting.clock()
    assert seconds - 10 < left.total_seconds() <= seconds


async def test_each_guest_is_another_user(granting: Service) -> None:
    one, two = await minted_for_guest(granting), await minted_for_guest(granting)

    answers = [await use(granting, grant, "tab") for grant in (one, two)]

    assert one["issuer"] == "dialtone:guests"
    assert one["subject"] != two["subject"]
    assert answers[0].json()["sip_username"] != answers[1].json()["sip_username"]


@pytest.mark.parametrize(
    ("caller", "scope", "code"),
    [
        ("alice", SCOPE, "access_denied"),
        ("shop", "phone", "insufficient_scope"),
        ("olga", "dialtone:admin", "access_denied"),
        ("olga", f"dialtone:admin {SCOPE}", "access_denied"),
    ],
)
async def test_caller_without_scope_or_rule_mints_nothing(
    granting: Service, caller: str, scope: str, code: str
) -> None:
    headers = {"Authorization": f"Bearer {current_token(granting, caller, scope=scope)}"}

    answer = await granting.client.post("/v1/grants", headers=headers, json={"kind": "guest"})

    assert code_of(answer) == (403, code)
    assert await rows_of(granting) == []


async def test_backend_mints_only_the_kinds_of_its_rule(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    rules = RULES.replace('vouches_for = ["user", "guest"]', 'vouches_for = ["guest"]')
    async with granting_service(telnyx, sqlite, tmp_path, rules) as service:
        assert code_of(await mint(service)) == (403, "access_denied")
        assert (await mint(service, kind="guest")).status_code == 201


@pytest.mark.parametrize(
    "rules", [RULES.split('[[policy.rules]]\nname = "session-users"')[0], RULES + '\n[policy]\nmode = "shadow"\n']
)
async def test_grants_are_off_without_an_enforced_rule(telnyx: Telnyx, sqlite: str, tmp_path: Path, rules: str) -> None:
    if "shadow" in rules:
        rules = '[policy]\nmode = "shadow"\n' + RULES
    async with granting_service(telnyx, sqlite, tmp_path, rules) as service:
        assert code_of(await mint(service))[0] == 403
        assert await rows_of(service) == []


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "user"},
        {"kind": "operator", "subject": "x"},
        {"kind": "user", "subject": "a\nb"},
        {"kind": "user", "subject": "erin", "issuer": "https://id.example.com"},
        {"kind": "guest", "origin": "https://app.example.com/path"},
        {"kind": "guest", "origin": "*"},
        {"kind": "guest", "ttl_seconds": 0},
        {"kind": "guest", "scope": "dialtone:admin"},
    ],
)
async def test_invalid_request_is_rejected(granting: Service, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {current_token(granting, 'shop', scope=SCOPE)}"}

    assert code_of(await granting.client.post("/v1/grants", headers=headers, json=body)) == (422, "invalid_request")


async def test_guests_of_a_backend_are_limited(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, limit_guest_grants="2/hour") as service:
        answers = [(await mint(service, kind="guest")).status_code for _ in range(3)]

        assert answers == [201, 201, 429]
        assert (await mint(service)).status_code == 201
        assert (await mint(service, kind="guest", backend="other-shop")).status_code == 201


async def test_guest_has_a_rate_limit_of_its_own(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, limit_guest="2/hour") as service:
        guest, user = await minted_for_guest(service), await minted(service)

        assert [(await use(service, guest)).status_code for _ in range(3)] == [201, 200, 429]
        assert [(await use(service, user)).status_code for _ in range(3)] == [201, 200, 200]


@pytest.mark.parametrize(
    "body",
    [
        {"subject": "a\u00a0b"},
        {"subject": "a\u200bb"},
        {"origin": "https://app.example.com:443"},
        {"origin": "http://localhost:80"},
        {"origin": "https://app.example.com:"},
    ],
)
async def test_grant_that_no_request_could_use_is_not_minted(granting: Service, body: dict[str, str]) -> None:
    assert code_of(await mint(granting, **body)) == (422, "invalid_request")


# -- forged grants ----------------------------------------------------------------------------------------------------


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

    assert code_of(await use(granting, forged(granting, **claims))) == (401, "invalid_token")

    (denied,) = await events_of(granting, subject="erin", action="denied")
    assert denied["reason"] == "grant_revoked"


async def test_forged_grant_cannot_name_the_row_of_another_grant(granting: Service) -> None:
    own, granted = await minted_for_guest(granting), await minted(granting, origin=APP)

    for claims in ({"sid": own["id"]}, {"sid": granted["id"], "exp": 4102444800}, {"sid": granted["id"]}):
        assert code_of(await use(granting, forged(granting, **claims))) == (401, "invalid_token")

    assert (await use(granting, granted, Origin=APP)).status_code == 201


async def test_forged_grant_reaches_no_push_credential(granting: Service) -> None:
    answer = await call(granting, forged(granting, sid="unknown"), "GET", "/v1/push-credentials")

    assert code_of(answer) == (401, "invalid_token")


# -- the powers of a grant --------------------------------------------------------------------------------------------


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

    assert code_of(await call(granting, grant, "GET", "/v1/push-credentials")) == (403, "push_not_allowed")


async def test_guest_gets_no_sip_password(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, sip_password=True) as service:
        grant = await minted_for_guest(service)
        body = {"device_id": "tab", "grant": "sip_password"}

        assert code_of(await call(service, grant, "POST", json=body)) == (403, "grant_not_allowed")


async def test_user_of_an_identity_provider_is_another_user_than_that_of_a_grant(granting: Service) -> None:
    grant = await minted(granting, subject="alice")
    of_provider = {"token": current_token(granting, "alice")}

    mine = (await use(granting, of_provider, "tab")).json()
    answers = [
        await call(granting, grant, method, f"/v1/telephony-credentials/{mine['id']}{tail}")
        for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/token"))
    ]

    assert [code_of(answer) for answer in answers] == [(404, "credential_not_found")] * 3


async def test_guest_cannot_touch_the_login_of_another_guest(granting: Service) -> None:
    mine = (await use(granting, await minted_for_guest(granting), "tab")).json()
    other = await minted_for_guest(granting)

    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/token")):
        answer = await call(granting, other, method, f"/v1/telephony-credentials/{mine['id']}{tail}")
        assert code_of(answer) == (404, "credential_not_found")


async def test_rule_may_examine_the_claims_of_a_grant(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    own = 'issuers = ["dialtone:users"]\n'
    async with granting_service(telnyx, sqlite, tmp_path, RULES.replace(own, own + 'claims.sub = "erin"\n')) as service:
        assert (await use(service, await minted(service))).status_code == 201
        assert code_of(await mint(service, subject="frank")) == (403, "access_denied")


async def test_identity_provider_cannot_name_the_issuer_of_grants(granting: Service) -> None:
    forged = {"token": current_token(granting, "erin", iss="dialtone:users", aud="dialtone:dialtone", sid="x")}

    assert code_of(await use(granting, forged)) == (401, "invalid_token")


# -- binding ----------------------------------------------------------------------------------------------------------


async def test_grant_works_again_on_its_device_and_on_no_other(granting: Service) -> None:
    grant = await minted(granting)
    first = await use(granting, grant, "tab-1")

    assert [first.status_code, (await use(granting, grant, "tab-1")).status_code] == [201, 200]
    assert code_of(await use(granting, grant, "tab-2")) == (401, "invalid_token")
    refreshed = await call(granting, grant, "POST", f"/v1/telephony-credentials/{first.json()['id']}/token")
    assert refreshed.status_code == 200
    denied = await events_of(granting, subject="erin", action="denied")
    assert [event["reason"] for event in denied] == ["grant_of_other_device"]


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("PATCH", ""), ("POST", "/token"), ("DELETE", "")])
async def test_grant_of_one_device_cannot_touch_another(granting: Service, method: str, tail: str) -> None:
    other = (await use(granting, await minted(granting), "tab-2")).json()
    grant = await minted(granting)
    await use(granting, grant, "tab-1")
    body = {"label": "x"} if method == "PATCH" else None

    answer = await call(granting, grant, method, f"/v1/telephony-credentials/{other['id']}{tail}", json=body)

    assert code_of(answer) == (401, "invalid_token")


async def test_of_concurrent_devices_one_is_bound(granting: Service) -> None:
    grant = await minted(granting)

    answers = await asyncio.gather(*(use(granting, grant, f"tab-{number}") for number in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 7
    (row,) = await rows_of(granting)
    (used,) = await events_of(granting, subject="erin", action="grant_used")
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
        assert len(await rows_of(one)) == 1


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

    assert code_of(refreshed) == (401, "invalid_token")
    assert code_of(await use(granting, grant)) == (401, "invalid_token")


# -- origin -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example.com"}, {"Origin": "null"}])
async def test_grant_of_one_origin_is_rejected_from_others(
    granting: Service, headers: dict[str, str], *, is_cached: bool
) -> None:
    grant = await minted(granting, origin=APP)
    if is_cached:
        assert (await use(granting, grant, Origin=APP)).status_code == 201

    assert code_of(await use(granting, grant, **headers)) == (401, "invalid_token")

    denied = await events_of(granting, subject="erin", action="denied")
    assert [event["reason"] for event in denied] == ["grant_of_other_origin"]


async def test_fast_path_answers_requests_of_the_right_origin(granting: Service) -> None:
    grant = await minted(granting, origin=APP)
    await use(granting, grant, Origin=APP)
    before = granting.app.requests

    answer = await use(granting, grant, Origin=APP)

    assert answer.status_code == 200
    assert granting.app.requests == before


# -- revocation -------------------------------------------------------------------------------------------------------


async def revoke(service: Service, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await admin_request(service, "POST", "/grant-revocations", body)).json()
    return found


async def test_revoked_grant_is_rejected_and_its_device_logged_out(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    await use(granting, grant)

    assert await revoke(granting, grant_id=grant["id"]) == {"revoked": 1, "leases": 1, "complete": True}

    assert code_of(await use(granting, grant)) == (401, "invalid_token")
    assert [lease["state"] for lease in (await admin_request(granting, "GET", "/leases")).json()["data"]] != ["active"]
    (revoked,) = await events_of(granting, subject="erin", action="grant_revoked")
    assert revoked["details"] == {"grant_id": grant["id"], "leases": 1}
    assert (await revoke(granting, grant_id=grant["id"]))["leases"] == 0


async def test_unused_grant_can_be_revoked(granting: Service) -> None:
    grant = await minted(granting)

    await revoke(granting, grant_id=grant["id"])

    assert code_of(await use(granting, grant)) == (401, "invalid_token")


async def test_revocation_does_not_end_a_login_that_was_made_with_a_later_grant(granting: Service) -> None:
    first, second = await minted(granting), await minted(granting)
    await use(granting, first)
    await use(granting, second)

    assert (await revoke(granting, grant_id=first["id"]))["leases"] == 0

    assert code_of(await use(granting, first)) == (401, "invalid_token")
    assert (await use(granting, second)).status_code == 200


async def test_revocation_during_a_refresh_leaves_no_login_with_the_revoked_grant(
    granting: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await minted(granting), await minted(granting)
    lease_id = (await use(granting, first)).json()["id"]
    issuer = granting.components.telephony.issuer
    create = issuer._create  # noqa: SLF001

    async def after_the_revocation(*arguments: Any) -> Any:
        assert (await revoke(granting, grant_id=second["id"]))["leases"] == 0
        return await create(*arguments)

    monkeypatch.setattr(issuer, "_create", after_the_revocation)

    answer = await call(granting, second, "POST", f"/v1/telephony-credentials/{lease_id}/token")

    assert code_of(answer) == (401, "invalid_token")
    monkeypatch.undo()
    assert (await revoke(granting, grant_id=first["id"]))["leases"] == 1


async def test_grants_of_one_backend_are_revoked(granting: Service) -> None:
    mine, other = await minted(granting), await minted(granting, backend="other-shop", subject="frank")
    await use(granting, mine)
    await use(granting, other)

    found = await revoke(granting, backend_issuer="https://id.example.com", backend_subject="shop", confirm="dialtone")

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

    assert (await revoke(granting, everything=True, confirm="dialtone")) == {
        "revoked": 2,
        "leases": 2,
        "complete": True,
    }

    assert (await use(granting, grant)).status_code == 401
    assert (await use(granting, await minted(granting))).status_code == 201


async def test_revoking_many_grants_requires_the_namespace(granting: Service) -> None:
    answer = await admin_request(granting, "POST", "/grant-revocations", {"everything": True})

    assert code_of(answer) == (422, "not_confirmed")


async def test_backend_revokes_its_own_grants_only(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    tokens = {name: {"token": current_token(granting, name, scope=SCOPE)} for name in ("shop", "other-shop", "alice")}
    path = f"/v1/grants/{grant['id']}"

    for other in ("other-shop", "alice"):
        assert code_of(await call(granting, tokens[other], "DELETE", path)) == (404, "grant_not_found")
    assert (await use(granting, grant)).status_code == 200
    assert (await call(granting, tokens["shop"], "DELETE", path)).status_code == 204

    assert (await use(granting, grant)).status_code == 401


async def test_revocation_reaches_the_other_replica(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, database, tmp_path) as one, granting_service(telnyx, database, tmp_path) as two:
        grant = await minted(one)
        await use(one, grant)
        assert [(await use(two, grant)).status_code for _ in range(2)] == [200, 200]

        await revoke(one, grant_id=grant["id"])
        await two.components.upkeep.change_poller.poll()
        before = two.app.requests

        assert code_of(await use(two, grant)) == (401, "invalid_token")
        assert two.app.requests == before


async def test_not_before_applies_to_grant_users(granting: Service) -> None:
    grant = await minted(granting)
    await use(granting, grant)
    granting.clock.advance(timedelta(seconds=2))

    await granting.components.operators.tokens.set_not_before(
        NotBeforeTarget("dialtone:users", Reach.USER, "erin"), None
    )

    assert code_of(await use(granting, grant)) == (401, "invalid_token")


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_rotation_accepts_grants_of_both_keys(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        before = await minted(service)
        own = from_file(write_config(tmp_path))
        new = settings_for(telnyx.url, sqlite, **own, grant_key=grant_key("second"), other_grant_key=grant_key())

        await service.components.reload(new)

        assert len((await service.client.get("/.well-known/jwks.json")).json()["keys"]) == 2
        assert (await use(service, before)).status_code == 201
        assert (await use(service, await minted(service, subject="frank"))).status_code == 201

        await service.components.reload(settings_for(telnyx.url, sqlite, **own, grant_key=grant_key("second")))

        assert (await use(service, before)).status_code == 401


# -- upkeep -----------------------------------------------------------------------------------------------------------


async def test_sweeper_deletes_expired_grants_without_a_live_login(granting: Service) -> None:
    used, unused = await minted(granting), await minted(granting, subject="frank")
    await use(granting, used)

    granting.clock.advance(timedelta(minutes=30))
    await granting.components.upkeep.sweeper.sweep()
    assert [row["id"] for row in await rows_of(granting)] == [used["id"]]
    granting.clock.advance(timedelta(days=2))
    await granting.components.upkeep.sweeper.sweep()
    await granting.components.upkeep.sweeper.sweep()

    assert await rows_of(granting) == []
    assert unused["id"] != used["id"]


async def test_erasure_removes_the_grants_of_the_user(granting: Service) -> None:
    mine, other = await minted(granting), await minted(granting, subject="frank")
    body = {"issuer": "dialtone:users", "subject": "erin", "confirm": "dialtone"}

    await admin_request(granting, "POST", "/erasures", body)

    assert [row["id"] for row in await rows_of(granting)] == [other["id"]]
    assert (await use(granting, mine)).status_code == 401
    assert (await call(granting, mine, "GET", "/v1/push-credentials")).status_code == 401
    assert (await call(granting, other, "GET", "/v1/push-credentials")).status_code == 200


async def test_unavailable_ledger_mints_nothing(granting: Service, telnyx: Telnyx) -> None:
    await granting.components.ledger.database.write(lambda connection: grants.drop(connection))

    assert code_of(await mint(granting)) == (503, "ledger_unavailable")
