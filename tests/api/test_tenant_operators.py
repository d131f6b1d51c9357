"""Operators that a policy rule binds to one tenant of an issuer template see the policy and the keys of that tenant."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.vending.policy import ADMIN_SCOPE
from tests.support.configuration import configured_by
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import pem, token

TEMPLATE, STAFF = "https://login.example.com/{tid}/v2.0", "https://staff.example.com"
ACME, GLOBEX = (TEMPLATE.replace("{tid}", tenant) for tenant in ("acme", "globex"))

RULES = f"""
[[policy.rules]]
name = "acme-operators"
issuers = ["tenants"]
claims.tid = "acme"
claims.role = "operator"
admin = {{ issuers = ["{ACME}"] }}
[[policy.rules]]
name = "group-operators"
issuers = ["tenants"]
claims.role = "group"
admin = {{ issuers = ["{ACME}", "staff"] }}
[[policy.rules]]
name = "globex-operators"
issuers = ["tenants"]
claims.tid = "globex"
claims.role = "operator"
admin = {{ issuers = ["{GLOBEX}"] }}
[[policy.rules]]
name = "globex-by-issuer"
claims.iss = "{GLOBEX}"
[[policy.rules]]
name = "not-acme"
issuers = ["tenants"]
claims.tid = {{ not = "acme" }}
[[policy.rules]]
name = "staff"
issuers = ["staff"]
[[policy.rules]]
name = "tenants"
issuers = ["tenants"]
claims.department = "support"
[[policy.rules]]
name = "all"
"""


@pytest.fixture(params=['["acme", "globex"]', '"any"'], ids=["listed tenants", "any tenant"])
async def service(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Service]:
    issuers = "".join(
        f"[[issuers]]\nname = \"{name}\"\naudiences = [\"dialtone\"]\npem = '''{pem()}'''\n{fields}\n"
        for name, fields in (
            ("tenants", f'issuer = "{TEMPLATE}"\ntenants = {request.param}'),
            ("staff", f'issuer = "{STAFF}"'),
        )
    )
    async with running_service(telnyx, sqlite, **configured_by(tmp_path, issuers + RULES)) as service:
        yield service


async def seen(service: Service, path: str, role: str = "operator") -> Any:
    """The response to an operator with a token of acme."""
    access_token = token("olga", iss=ACME, tid="acme", role=role, scope=ADMIN_SCOPE)
    answer = await service.client.get(f"/v1/admin{path}", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_operator_of_a_tenant_sees_the_rules_that_its_users_can_match(service: Service) -> None:
    policy = await seen(service, "/policy")

    assert [(rule["name"], rule["issuers"]) for rule in policy["rules"]] == [
        ("acme-operators", [ACME]),
        ("group-operators", [ACME]),
        ("tenants", [ACME]),
        ("all", None),
    ]
    assert policy["visible_issuers"] == policy["rules"][1]["admin_issuers"] == [ACME]
    assert GLOBEX not in str(policy)


async def test_operator_of_a_tenant_and_an_issuer_sees_the_rules_of_both(service: Service) -> None:
    policy = await seen(service, "/policy", role="group")

    assert [rule["name"] for rule in policy["rules"]] == [
        *("acme-operators", "group-operators", "globex-by-issuer", "staff", "tenants", "all"),
    ]
    assert policy["visible_issuers"] == [ACME, STAFF]


async def test_operator_of_a_tenant_sees_the_keys_that_verify_its_tokens(service: Service) -> None:
    assert [key_set["issuer"] for key_set in (await seen(service, "/keys"))["data"]] == [TEMPLATE]
