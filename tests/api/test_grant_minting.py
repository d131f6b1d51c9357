"""Minting grants: which backends may mint them, for which users, for how long, and how often."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.adapters.ledger.tables import grants
from tests.support.admin_api import admin_request, current_token
from tests.support.grants import (
    RULES,
    SCOPE,
    grant_rows,
    granting_service,
    mint,
    minted,
    minted_for_guest,
    use,
)
from tests.support.problems import status_and_code
from tests.support.sandbox import Telnyx
from tests.support.service import Service


async def test_user_that_a_backend_vouches_for_gets_a_login(granting: Service) -> None:
    grant = await minted(granting)

    answer = await use(granting, grant)

    assert answer.status_code == 201
    (lease,) = (await admin_request(granting, "GET", "/leases", subject="erin")).json()["data"]
    assert (lease["issuer"], lease["subject"], lease["device_id"]) == ("dialtone:users", "erin", "tab-1")


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

    assert status_and_code(answer) == (403, code)
    assert await grant_rows(granting) == []


async def test_backend_mints_only_the_kinds_of_its_rule(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    rules = RULES.replace('vouches_for = ["user", "guest"]', 'vouches_for = ["guest"]')
    async with granting_service(telnyx, sqlite, tmp_path, rules) as service:
        assert status_and_code(await mint(service)) == (403, "access_denied")
        assert (await mint(service, kind="guest")).status_code == 201


@pytest.mark.parametrize(
    "rules", [RULES.split('[[policy.rules]]\nname = "session-users"')[0], '[policy]\nmode = "shadow"\n' + RULES]
)
async def test_grants_are_off_without_an_enforced_rule(telnyx: Telnyx, sqlite: str, tmp_path: Path, rules: str) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, rules) as service:
        assert status_and_code(await mint(service))[0] == 403
        assert await grant_rows(service) == []


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

    assert status_and_code(await granting.client.post("/v1/grants", headers=headers, json=body)) == (
        422,
        "invalid_request",
    )


@pytest.mark.parametrize(("kind", "setting"), [("guest", "limit_guest_grants"), ("user", "limit_user_grants")])
async def test_grants_of_a_backend_are_limited_by_kind(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, kind: str, setting: str
) -> None:
    other_kind = "user" if kind == "guest" else "guest"
    async with granting_service(telnyx, sqlite, tmp_path, **{setting: "2/hour"}) as service:
        answers = [await mint(service, kind=kind) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert int(answers[2].headers["Retry-After"]) > 0
        assert (await mint(service, kind=other_kind)).status_code == 201
        assert (await mint(service, kind=kind, backend="other-shop")).status_code == 201


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
    assert status_and_code(await mint(granting, **body)) == (422, "invalid_request")


async def test_unavailable_ledger_mints_nothing(granting: Service) -> None:
    await granting.components.ledger.database.write(lambda connection: grants.drop(connection))

    assert status_and_code(await mint(granting)) == (503, "ledger_unavailable")
