"""Settings of an issuer over HTTP: tenants are separate users, operators by a rule, and long tokens."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.admin_api import current_token
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import pem, token_of_length

TEMPLATE = "https://login.example.com/{tid}/v2.0"

CONFIGURATION = f"""
[[issuers]]
name = "entra"
issuer = "{TEMPLATE}"
tenants = ["one", "two"]
audiences = ["dialtone"]
pem = '''{pem()}'''
required_claims.scp = {{ glob = "?*" }}
scope_claim = "scp"
required_scopes = ["phone"]
max_token_bytes = 12288

[[policy.rules]]
name = "operators"
issuers = ["entra"]
claims.roles = "Dialtone.Operator"
admin = true
admin_requires_scope = false

[[policy.rules]]
name = "users"
issuers = ["entra"]
"""


@pytest.fixture
async def entra(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Service]:
    path = tmp_path / "dialtone.toml"
    path.write_text(CONFIGURATION)
    async with running_service(telnyx, sqlite, config=str(path), issuer=..., audience=..., issuer_pem=...) as service:
        yield service


def bearer(service: Service, tenant: str = "one", **claims: Any) -> dict[str, str]:
    usual: dict[str, Any] = {"iss": TEMPLATE.replace("{tid}", tenant), "tid": tenant, "scp": "phone", "scope": ...}
    return {"Authorization": f"Bearer {current_token(service, **(usual | claims))}"}


async def issue(service: Service, headers: dict[str, str]) -> httpx.Response:
    return await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": "laptop"})


async def test_equal_subjects_of_two_tenants_are_two_users(entra: Service) -> None:
    one, two = await issue(entra, bearer(entra, "one")), await issue(entra, bearer(entra, "two"))

    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json()["sip_username"] != two.json()["sip_username"]
    assert_problem(await issue(entra, bearer(entra, "three")), 401, "invalid_token")
    assert_problem(await issue(entra, bearer(entra, "one", tid="two")), 401, "invalid_token")


async def test_rules_and_required_scopes_of_a_template_apply_to_its_tenants(entra: Service) -> None:
    assert_problem(await issue(entra, bearer(entra, scp="mail")), 403, "insufficient_scope")


async def test_rule_alone_makes_an_operator(entra: Service) -> None:
    async def leases(headers: dict[str, str]) -> httpx.Response:
        return await entra.client.get("/v1/admin/leases", headers=headers)

    assert (await leases(bearer(entra, roles=["Dialtone.Operator"]))).status_code == 200
    assert_problem(await leases(bearer(entra, roles=["Dialtone.User"])), 403, "access_denied")
    assert_problem(await leases(bearer(entra, scp="phone dialtone:admin")), 403, "access_denied")


async def test_not_before_applies_to_one_tenant(entra: Service) -> None:
    operator = bearer(entra, roles=["Dialtone.Operator"], sub="olga")

    async def refuse(iss: str) -> httpx.Response:
        body = {"issuer": iss, "subject": "alice"}
        return await entra.client.put("/v1/admin/not-before", headers=operator, json=body)

    one, two = bearer(entra, "one"), bearer(entra, "two")
    entra.clock.advance(timedelta(seconds=5))

    assert (await refuse(TEMPLATE.replace("{tid}", "one"))).status_code == 200
    assert_problem(await issue(entra, one), 401, "invalid_token")
    assert (await issue(entra, two)).status_code == 201
    for unknown in (TEMPLATE, TEMPLATE.replace("{tid}", "three")):
        assert_problem(await refuse(unknown), 404, "issuer_not_found")


async def test_longest_token_gets_a_login_on_the_fast_path(entra: Service) -> None:
    now = int(entra.clock().timestamp())
    claims = {"iss": TEMPLATE.replace("{tid}", "one"), "tid": "one", "scp": "phone", "iat": now, "exp": now + 3600}

    first = await issue(entra, longest := {"Authorization": f"Bearer {token_of_length(12_288, **claims)}"})
    entra.app.requests = 0
    second = await issue(entra, longest)

    assert (first.status_code, second.status_code) == (201, 200)
    assert entra.app.requests == 0
    too_long = {"Authorization": f"Bearer {token_of_length(12_289, **claims)}"}
    assert_problem(await issue(entra, too_long), 401, "invalid_token")
