"""The OpenAPI documents: committed, complete, valid, and what `/docs` shows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from app.api.openapi import Api
from app.api.problems import all_kinds
from app.cli.problem_reference import catalogue
from app.main import openapi_document
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import token

ROOT = Path(__file__).parent.parent.parent
CATALOGUE = ROOT / "docs" / "errors.md"
COMMITTED = {
    None: ROOT / "openapi.json",
    Api.USER: ROOT / "docs" / "openapi" / "user.json",
    Api.OPERATORS: ROOT / "docs" / "openapi" / "operators.json",
}
DOCUMENT_URI = "urn:dialtone:openapi"
EVERY_DOCUMENT = pytest.mark.parametrize("api", COMMITTED, ids=lambda api: api or "whole")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation) for path, found in document["paths"].items() for method, operation in found.items()
    ]


@EVERY_DOCUMENT
def test_committed_document_equals_the_code(api: Api | None) -> None:
    assert json.loads(COMMITTED[api].read_text()) == openapi_document(api), "the API changed: run `make openapi`"


def test_committed_catalogue_equals_the_code(document: dict[str, Any]) -> None:
    assert CATALOGUE.read_text() == catalogue(document), "problem codes changed: run `make errors`"


def test_catalogue_lists_every_code_under_its_status(document: dict[str, Any]) -> None:
    section = 0
    listed = {}
    for line in catalogue(document).splitlines():
        if line.startswith("## "):
            section = int(line.split()[1])
        elif line.startswith("| `"):
            listed[line.split("`")[1]] = section

    assert listed == {kind.code: kind.status for kind in all_kinds().values()}


BASE, PUSH = "/v1/telephony-credentials", "/v1/push-credentials"
OPERATIONS = {
    ("post", BASE): ("user", "issueTelephonyCredential"),
    ("get", BASE): ("user", "listDevices"),
    ("delete", BASE): ("user", "revokeAllTelephonyCredentials"),
    ("get", f"{BASE}/{{id}}"): ("user", "getDevice"),
    ("patch", f"{BASE}/{{id}}"): ("user", "updateDevice"),
    ("delete", f"{BASE}/{{id}}"): ("user", "revokeTelephonyCredential"),
    ("post", f"{BASE}/{{id}}/token"): ("user", "refreshTelephonyCredential"),
    ("post", PUSH): ("user", "registerPushCredential"),
    ("get", PUSH): ("user", "listPushCredentials"),
    ("post", f"{PUSH}/lint"): ("user", "validatePushMaterial"),
    ("get", f"{PUSH}/{{id}}"): ("user", "getPushCredential"),
    ("put", f"{PUSH}/{{id}}"): ("user", "replacePushCredential"),
    ("delete", f"{PUSH}/{{id}}"): ("user", "deletePushCredential"),
    ("post", "/v1/grants"): ("user", "mintGrant"),
    ("delete", "/v1/grants/{id}"): ("user", "revokeGrant"),
    ("get", "/.well-known/jwks.json"): ("public", "getGrantKeys"),
    ("post", "/v1/admin/grant-revocations"): ("operator", "revokeGrants"),
    ("post", "/v1/backchannel-logout"): ("identity provider", "receiveBackchannelLogout"),
    ("put", "/v1/admin/connections/{connection_id}/push-credentials"): ("operator", "attachPushCredentials"),
    ("put", "/v1/admin/not-before"): ("operator", "setNotBefore"),
    ("get", "/v1/admin/keys"): ("operator", "listKeySets"),
    ("post", "/v1/admin/keys/refresh"): ("operator", "refreshKeys"),
    ("get", "/v1/admin/leases"): ("operator", "listLeases"),
    ("get", "/v1/admin/leases/{id}"): ("operator", "getLease"),
    ("delete", "/v1/admin/leases/{id}"): ("operator", "revokeLease"),
    ("post", "/v1/admin/revocations"): ("operator", "revokeLeases"),
    ("post", "/v1/admin/erasures"): ("operator", "eraseUser"),
    ("get", "/v1/admin/dialable"): ("operator", "listDialableDevices"),
    ("get", "/v1/admin/policy"): ("operator", "getPolicy"),
    ("get", "/v1/admin/sip-users/{sip_username}"): ("operator", "getLeaseBySipUsername"),
    ("get", "/v1/admin/push-credentials"): ("operator", "listAllPushCredentials"),
    ("get", "/v1/admin/audit"): ("operator", "listAuditEvents"),
    ("get", "/v1/admin/events"): ("operator", "listEvents"),
    ("post", "/v1/admin/events/replays"): ("operator", "replayEvents"),
    ("get", "/v1/admin/activity"): ("operator", "getActivity"),
    ("get", "/v1/admin/state"): ("operator", "getServiceStatus"),
    ("post", "/v1/admin/sweeps"): ("operator", "startSweep"),
    ("get", "/v1/admin/sweeps/{id}"): ("operator", "getSweep"),
    ("get", "/livez"): ("monitoring", "getLiveness"),
    ("get", "/readyz"): ("monitoring", "getReadiness"),
    ("get", "/version"): ("monitoring", "getVersion"),
    ("get", "/metrics"): ("monitoring", "getMetrics"),
}
USER_HALF = ("user", "public")
CALLERS = {call: caller for call, (caller, _) in OPERATIONS.items()}


def test_operation_ids_are_the_listed_ones(document: dict[str, Any]) -> None:
    found = {(method, path): operation["operationId"] for method, path, operation in operations(document)}

    assert found == {call: name for call, (_, name) in OPERATIONS.items()}
    assert len(set(found.values())) == len(found)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)+", name) for name in found.values())


def test_document_says_which_operations_need_a_token(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for method, path, operation in operations(document):
        caller = CALLERS[method, path]
        assert operation["security"] == ([{"bearer": []}] if caller in ("user", "operator") else [])
        assert path.startswith("/v1/admin/") == (caller == "operator")


def test_each_operation_is_in_one_half_of_the_api() -> None:
    halves = {api: sorted((method, path) for method, path, _ in operations(openapi_document(api))) for api in Api}

    assert halves[Api.USER] == sorted(call for call, caller in CALLERS.items() if caller in USER_HALF)
    assert halves[Api.OPERATORS] == sorted(call for call, caller in CALLERS.items() if caller not in USER_HALF)


@EVERY_DOCUMENT
def test_operations_and_tags_are_described(api: Api | None) -> None:
    document = openapi_document(api)
    described = {tag["name"] for tag in document["tags"] if tag["description"]}

    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "/"}]
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert described.issuperset(operation["tags"])
    assert described == {tag for _, _, operation in operations(document) for tag in operation["tags"]}


@EVERY_DOCUMENT
def test_schema_names_are_plain(api: Api | None) -> None:
    for name in openapi_document(api)["components"]["schemas"]:
        assert re.fullmatch("[A-Z][A-Za-z0-9]+", name)


@EVERY_DOCUMENT
def test_every_component_is_used_and_every_reference_resolves(api: Api | None) -> None:
    document = openapi_document(api)
    components = document["components"]
    referenced = set(re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)))
    present = {(section, name) for section, found in components.items() for name in found}
    present.remove(("securitySchemes", "bearer"))

    assert referenced == present


def test_every_error_response_is_a_shared_one_with_an_example_for_each_code(document: dict[str, Any]) -> None:
    components, kinds = document["components"], all_kinds()
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) < 400 or (path, status) == ("/readyz", "503"):
                continue
            assert list(response) == ["$ref"], (method, path, status)
            shared = components["responses"][response["$ref"].rpartition("/")[2]]
            examples = shared["content"]["application/problem+json"]["examples"]
            assert list(examples) == shared["x-problem-codes"]
            for code, reference in examples.items():
                value = components["examples"][reference["$ref"].rpartition("/")[2]]["value"]
                assert (value["code"], value["status"]) == (code, int(status)) == (code, kinds[code].status)


def test_every_response_of_the_api_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if path.startswith("/v1") and int(status) < 400 and "content" in response:
                name = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert schemas[name]["examples"], (method, path, status)


def examples_with_schemas(node: Any, pointer: str = "") -> Iterator[tuple[str, Any, str]]:
    """(where, example, pointer to its schema) of every example: of media types, parameters, headers and schemas."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from examples_with_schemas(item, f"{pointer}/{index}")
    if not isinstance(node, dict):
        return
    if "schema" in node:
        for name, example in node.get("examples", {}).items():
            yield f"{pointer}/examples/{name}", example, f"{pointer}/schema"
        if "example" in node:
            yield f"{pointer}/example", {"value": node["example"]}, f"{pointer}/schema"
    elif isinstance(node.get("examples"), list):
        for index, example in enumerate(node["examples"]):
            yield f"{pointer}/examples/{index}", {"value": example}, pointer
    for name, value in node.items():
        if name not in ("example", "examples"):
            yield from examples_with_schemas(value, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")


@EVERY_DOCUMENT
def test_every_example_is_valid(api: Api | None) -> None:
    document = openapi_document(api)
    registry: Registry[Any] = Registry().with_resource(DOCUMENT_URI, DRAFT202012.create_resource(document))
    checked = 0
    for where, example, pointer in examples_with_schemas(document):
        found = example
        if "$ref" in example:
            found = document["components"]["examples"][example["$ref"].rpartition("/")[2]]
        validator = jsonschema.Draft202012Validator(
            {"$ref": f"{DOCUMENT_URI}#{pointer}"},
            registry=registry,
            format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
        )
        faults = [fault.message for fault in validator.iter_errors(found["value"])]
        assert faults == [], where
        checked += 1
    assert checked > 50


@pytest.mark.parametrize("method_and_path", CALLERS, ids=lambda call: f"{call[0]} {call[1]}")
async def test_operation_is_closed_to_other_callers(service: Service, method_and_path: tuple[str, str]) -> None:
    method, path = method_and_path
    caller, here = CALLERS[method_and_path], re.sub(r"\{[a-z_]+\}", "0" * 20, path)
    user = {"Authorization": f"Bearer {token()}"}

    stranger = await service.client.request(method, here)
    known = await service.client.request(method, here, headers=user)

    if caller in ("user", "operator"):
        assert (stranger.status_code, stranger.json()["code"]) == (401, "missing_token")
    assert (known.status_code == 403) == (caller == "operator")


async def test_docs_are_served_from_the_package(service: Service) -> None:
    page = await service.client.get("/docs")
    script = await service.client.get("/docs/swagger-ui-bundle.js")

    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert script.status_code == 200
    assert len(script.content) > 500_000
    assert (await service.client.get("/openapi.json")).json()["components"]["securitySchemes"]
    assert (await service.client.get("/docs/..%2fcore.py")).status_code == 404


async def test_each_half_of_the_document_is_served(service: Service) -> None:
    for api in Api:
        assert (await service.client.get(f"/openapi/{api}.json")).json() == openapi_document(api)
    assert (await service.client.get("/openapi/other.json")).json()["code"] == "not_found"


async def test_docs_can_be_switched_off(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, docs=False) as service:
        for path in ("/docs", "/openapi.json", "/openapi/user.json", "/docs/swagger-ui.css"):
            assert (await service.client.get(path)).status_code == 404


def test_document_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> None:
    monkeypatch.setenv("DIALTONE_CONFIG", "/nonexistent.toml")
    monkeypatch.setenv("DIALTONE_DATABASE_URL", "nonsense")

    assert openapi_document() == document
