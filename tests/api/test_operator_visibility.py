"""Operators that a policy rule binds to issuers neither see nor change data of other issuers, on every route."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.routes import admin
from app.main import openapi_document
from app.sandbox.account import DEMO_CONNECTION
from app.vending.policy import ADMIN_SCOPE
from tests.support.configuration import configured_by
from tests.support.problems import assert_problem
from tests.support.push_material import android, key, pem_of
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import rsa_key, token
from tests.support.waiting import eventually

ACME, GLOBEX = "https://acme.example.com", "https://globex.example.com"
NAMES = {ACME: "acme", GLOBEX: "globex"}

RULES = """
[[policy.rules]]
name = "headquarters"
claims.role = "headquarters"
admin = true
[[policy.rules]]
name = "acme-operators"
issuers = ["acme"]
claims.role = "operator"
admin = { issuers = ["acme"] }
[[policy.rules]]
name = "group-operators"
issuers = ["acme"]
claims.role = "group-operator"
admin = { issuers = ["acme", "globex"] }
[[policy.rules]]
name = "globex-operators"
issuers = ["globex"]
claims.globex_role = "operator"
admin = { issuers = ["globex"] }
[[policy.rules]]
name = "both"
issuers = ["acme", "globex"]
"""


def token_of(issuer: str, user: str, **claims: Any) -> str:
    return token(user, iss=issuer, key=rsa_key(NAMES[issuer]), **claims)


def operator(role: str = "operator") -> dict[str, str]:
    """A request header of an operator that acme's identity provider signed in."""
    return {"Authorization": f"Bearer {token_of(ACME, f'{role}-user', role=role, scope=ADMIN_SCOPE)}"}


@dataclass
class Company:
    """One issuer's users, with what would reveal them."""

    issuer: str
    leases: list[dict[str, Any]] = field(default_factory=list)
    push: dict[str, Any] = field(default_factory=dict)

    @property
    def canaries(self) -> set[str]:
        found = {self.issuer, f"{NAMES[self.issuer]}-user", f"{NAMES[self.issuer]}-operators", self.push["app_id"]}
        for lease in self.leases:
            found |= {lease["id"], lease["sip_username"], lease["device_id"]}
        return found | {self.push["id"], self.push["fingerprint_sha256"]}


@dataclass
class Companies:
    service: Service
    acme: Company
    globex: Company

    async def ask(
        self, method: str, path: str, body: Any = None, role: str = "operator", **params: Any
    ) -> httpx.Response:
        return await self.service.client.request(
            method, f"/v1/admin{path}", headers=operator(role), json=body, params=params
        )

    async def recorded(self) -> None:
        """Wait until the audit is written."""
        await eventually(lambda: not self.service.components.audit.queued)


@pytest.fixture
async def companies(telnyx: Telnyx, database: str, tmp_path: Path) -> AsyncIterator[Companies]:
    """Two issuers with a user each, who has two devices and a push credential."""
    issuers = "".join(
        f'[[issuers]]\nname = "{name}"\nissuer = "{issuer}"\naudiences = ["dialtone"]\n'
        f"pem = '''{rsa_key(name).as_pem(private=False).decode()}'''\n"
        for issuer, name in NAMES.items()
    )
    config = configured_by(tmp_path, issuers + RULES)
    async with running_service(telnyx, database, propagation_seconds=0, warm_pool_size=1, **config) as service:
        companies = Companies(service, await _company(service, ACME), await _company(service, GLOBEX))
        await service.components.upkeep.warm_pool.refill()  # a full pool makes no calls
        yield companies


def material(project: str, private_key: Any = None) -> dict[str, Any]:
    return android(project_id=project, private_key=pem_of(private_key or key(project), pkcs8=True))


async def _company(service: Service, issuer: str) -> Company:
    name, company = NAMES[issuer], Company(issuer)
    headers = {"Authorization": f"Bearer {token_of(issuer, f'{name}-user')}"}
    for device in ("laptop", "tab"):
        made = await service.client.post(
            "/v1/telephony-credentials", headers=headers, json={"device_id": f"{name}-{device}"}
        )
        company.leases.append(made.json())
    made = await service.client.post("/v1/push-credentials", headers=headers, json=material(name))
    assert made.status_code == 201, made.text
    company.push = made.json()
    return company


@dataclass(frozen=True)
class Attempt:
    """A request of a bound operator for what belongs to another issuer, and the expected response."""

    body: Any = None
    params: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    code: str | None = None


USER = {"issuer": GLOBEX, "subject": "globex-user"}


def not_found(body: Any) -> Attempt:
    return Attempt(body, status=404, code="issuer_not_found")


GLOBAL = "an operator of all issuers is required"

DECISIONS: dict[tuple[str, str], list[Attempt] | str] = {
    ("get", "/v1/admin/leases"): [
        Attempt(),
        Attempt(params=USER),
        Attempt(params={"state": "active", "connection_id": DEMO_CONNECTION}),
        Attempt(params={"sip_username": "{sip_username}"}),
        Attempt(params={"id_prefix": "{lease}"}),
    ],
    ("get", "/v1/admin/leases/{id}"): [Attempt(status=404, code="credential_not_found")],
    ("delete", "/v1/admin/leases/{id}"): [Attempt(status=404, code="credential_not_found")],
    ("post", "/v1/admin/revocations"): [
        not_found(USER),
        not_found({**USER, "refuse_tokens": True}),
        Attempt({"everything": True, "confirm": "dialtone"}, status=202),
        Attempt({"connection_id": DEMO_CONNECTION, "confirm": "dialtone"}, status=202),
    ],
    ("get", "/v1/admin/dialable"): [Attempt(params=USER)],
    ("get", "/v1/admin/sip-users/{sip_username}"): [Attempt(status=404, code="credential_not_found")],
    ("get", "/v1/admin/audit"): [
        Attempt(),
        Attempt(params=USER),
        Attempt(params={"subject": "globex-user"}),
        Attempt(params={"lease_id": "{lease}"}),
        Attempt(params={"device_id": "globex-laptop"}),
    ],
    ("put", "/v1/admin/not-before"): [
        not_found(USER),
        not_found({"issuer": GLOBEX}),
        not_found({"issuer": GLOBEX, "session": "s"}),
    ],
    ("post", "/v1/admin/erasures"): [
        not_found({**USER, "dry_run": True}),
        not_found({**USER, "confirm": "dialtone"}),
        not_found({**USER, "confirm": "dialtone", "refuse_tokens": True}),
    ],
    ("get", "/v1/admin/keys"): [Attempt()],
    ("post", "/v1/admin/keys/refresh"): [not_found({"issuer": GLOBEX}), Attempt({})],
    ("get", "/v1/admin/policy"): [Attempt()],
    ("get", "/v1/admin/push-credentials"): [Attempt()],
    ("put", "/v1/admin/connections/{connection_id}/push-credentials"): GLOBAL,
    ("get", "/v1/admin/activity"): GLOBAL,
    ("get", "/v1/admin/state"): GLOBAL,
    ("post", "/v1/admin/grant-revocations"): GLOBAL,
    ("get", "/v1/admin/events"): GLOBAL,
    ("post", "/v1/admin/events/replays"): GLOBAL,
    ("post", "/v1/admin/sweeps"): GLOBAL,
    ("get", "/v1/admin/sweeps/{id}"): GLOBAL,
}
"""For each route of operators: what a bound operator gets for another issuer's objects."""


def admin_routes() -> set[tuple[str, str]]:
    paths = openapi_document()["paths"]
    return {(method, path) for path, item in paths.items() if path.startswith("/v1/admin") for method in item}


def test_every_admin_route_has_a_decision() -> None:
    assert admin_routes() == DECISIONS.keys(), "decide what a bound operator may see on a new route, and add it here"


@pytest.mark.parametrize("resource", admin.RESOURCES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_admin_routes_have_no_components_without_a_visibility(resource: Any) -> None:
    assert not hasattr(resource, "ComponentsDep"), "use OperatorsDep or GlobalComponentsDep"


def filled(path: str, company: Company) -> str:
    lease = company.leases[0]
    return path.removeprefix("/v1/admin").format(
        id=lease["id"], sip_username=lease["sip_username"], connection_id=DEMO_CONNECTION
    )


ATTEMPTS = [
    (method, path, attempt)
    for (method, path), decision in DECISIONS.items()
    if not isinstance(decision, str)
    for attempt in decision
]


@pytest.mark.parametrize(
    ("method", "path", "attempt"), ATTEMPTS, ids=[f"{m} {p} {n}" for n, (m, p, _) in enumerate(ATTEMPTS)]
)
async def test_bound_operator_sees_and_changes_nothing_of_another_issuer(
    companies: Companies, method: str, path: str, attempt: Attempt
) -> None:
    globex = companies.globex
    await companies.recorded()
    values = {"lease": globex.leases[0]["id"], "sip_username": globex.leases[0]["sip_username"]}
    params = {name: str(value).format(**values) for name, value in attempt.params.items()}

    answer = await companies.ask(method, filled(path, globex), attempt.body, **params)

    assert answer.status_code == attempt.status, answer.text
    assert attempt.code is None or answer.json()["code"] == attempt.code
    assert [canary for canary in globex.canaries if canary in answer.text] == []
    headers = {"Authorization": f"Bearer {token_of(GLOBEX, 'globex-user')}"}
    devices = (await companies.service.client.get("/v1/telephony-credentials", headers=headers)).json()["data"]
    assert {(device["id"], device["state"]) for device in devices} == {
        (lease["id"], "active") for lease in globex.leases
    }


GLOBAL_ROUTES = [route for route, decision in DECISIONS.items() if decision == GLOBAL]
BODIES = {"post": {"dry_run": True}, "put": {}}


@pytest.mark.parametrize(("method", "path"), GLOBAL_ROUTES, ids=str)
async def test_operation_on_the_whole_service_requires_an_operator_of_all_issuers(
    companies: Companies, method: str, path: str
) -> None:
    calls = companies.service.telnyx.sandbox.journal.entries.copy()

    answer = await companies.ask(method, filled(path, companies.acme), BODIES.get(method))

    assert_problem(answer, 403, "access_denied")
    assert companies.service.telnyx.sandbox.journal.entries == calls
    allowed = await companies.ask(method, filled(path, companies.acme), BODIES.get(method), role="headquarters")
    assert allowed.status_code not in (401, 403)


async def test_bound_operator_sees_its_own_issuer(companies: Companies) -> None:
    acme = companies.acme
    lease = acme.leases[0]
    await companies.recorded()

    listed = (await companies.ask("GET", "/leases")).json()["data"]
    dialable = (await companies.ask("GET", "/dialable", issuer=ACME, subject="acme-user")).json()["data"]
    events = (await companies.ask("GET", "/audit", action="issued")).json()["data"]
    policy = (await companies.ask("GET", "/policy")).json()
    (push,) = (await companies.ask("GET", "/push-credentials")).json()["data"]

    assert {each["id"] for each in listed} == {each["id"] for each in acme.leases}
    assert len(dialable) == 2
    assert (await companies.ask("GET", f"/sip-users/{lease['sip_username']}")).json()["id"] == lease["id"]
    assert {event["actor_subject"] for event in events} == {"acme-user"}
    assert [key_set["issuer"] for key_set in (await companies.ask("GET", "/keys")).json()["data"]] == [ACME]
    names = ["headquarters", "acme-operators", "group-operators", "both"]
    assert [rule["name"] for rule in policy["rules"]] == names
    assert [rule["issuers"] for rule in policy["rules"]] == [None, [ACME], [ACME], [ACME]]
    assert (policy["visible_issuers"], policy["rules"][1]["admin_issuers"]) == ([ACME], [ACME])
    assert (push["id"], push["users"]) == (acme.push["id"], 1)


async def test_pages_of_a_bound_operator_are_full(companies: Companies) -> None:
    first = (await companies.ask("GET", "/leases", limit=1)).json()
    second = (await companies.ask("GET", "/leases", limit=1, cursor=first["next_cursor"])).json()

    assert [len(page["data"]) for page in (first, second)] == [1, 1]
    assert second["next_cursor"] is None


async def test_bound_operator_logs_out_its_own_issuer(companies: Companies) -> None:
    answer = await companies.ask("POST", "/revocations", {"everything": True, "confirm": "dialtone"})

    assert answer.json()["revoked"] == 2


async def test_bound_operator_sees_its_actions_on_the_whole_issuer(companies: Companies) -> None:
    await companies.ask("PUT", "/not-before", {"issuer": ACME, "not_before": "2020-01-01T00:00:00Z"})
    await companies.ask("POST", "/revocations", {"everything": True, "confirm": "dialtone"})
    await companies.ask("POST", "/keys/refresh", {})
    await companies.recorded()

    events = (await companies.ask("GET", "/audit", limit=200)).json()["data"]

    reasons = {event["reason"] for event in events if event["details"].get("issuer") == ACME}
    assert {"tokens_refused", "asked_by_operator", "keys_refreshed"} <= reasons


async def test_actions_on_the_whole_service_are_hidden_from_a_bound_operator(companies: Companies) -> None:
    await companies.ask("POST", "/sweeps", {"dry_run": True}, role="headquarters")
    await companies.recorded()

    events = (await companies.ask("GET", "/audit", limit=200)).json()["data"]

    assert "dry_sweep" not in {event["reason"] for event in events}


@pytest.mark.parametrize("role", ["headquarters", "group-operator"])
async def test_revocation_of_several_issuers_is_recorded_for_each(companies: Companies, role: str) -> None:
    await companies.ask("POST", "/revocations", {"everything": True, "confirm": "dialtone"}, role=role)
    await companies.recorded()

    seen = (await companies.ask("GET", "/audit", action="revoked")).json()["data"]
    of_globex = (await companies.ask("GET", "/audit", role="headquarters", action="revoked", issuer=GLOBEX)).json()

    assert [event["details"] for event in seen] == [{"issuer": ACME, "leases": 2}]
    assert [event["details"] for event in of_globex["data"]] == [{"issuer": GLOBEX, "leases": 2}]


async def test_callers_of_other_issuers_are_hidden_and_cannot_be_searched(companies: Companies) -> None:
    headers = {"Authorization": f"Bearer {token_of(GLOBEX, 'globex-chief', role='headquarters', scope=ADMIN_SCOPE)}"}
    path = f"/v1/admin/leases/{companies.acme.leases[0]['id']}"
    await companies.service.client.delete(path, headers=headers | {"User-Agent": "globex-agent"})
    await companies.recorded()

    (event,) = (await companies.ask("GET", "/audit", action="revoked")).json()["data"]
    found = await companies.ask("GET", "/audit", subject="globex-chief")

    assert event["subject"] == "acme-user"
    assert {event[name] for name in ("actor_issuer", "actor_subject", "client_address", "user_agent")} == {None}
    assert found.json()["data"] == []


async def test_bound_operator_does_not_switch_push_material_of_others(companies: Companies) -> None:
    service, shared = companies.service, material("shared")
    ids = {}
    for issuer, user, claims in (
        (GLOBEX, "globex-user", {}),
        (ACME, "operator-user", {"role": "operator", "scope": ADMIN_SCOPE}),
    ):
        headers = {"Authorization": f"Bearer {token_of(issuer, user, **claims)}"}
        made = await service.client.post("/v1/push-credentials", headers=headers, json={**shared, "alias": "shared"})
        ids[issuer] = made.json()["id"]
    connection = f"/connections/{DEMO_CONNECTION}/push-credentials"
    before = (await companies.ask("PUT", connection, {"android": ids[GLOBEX]}, role="headquarters")).json()

    changed = {**material("shared", key("other")), "alias": "shared"}
    answer = await service.client.put(f"/v1/push-credentials/{ids[ACME]}", headers=operator(), json=changed)

    assert answer.status_code == 200, answer.text
    now = (await companies.ask("PUT", connection, {}, role="headquarters")).json()
    assert now["android"]["now"] == before["android"]["now"]
