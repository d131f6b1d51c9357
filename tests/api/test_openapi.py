"""The OpenAPI document: committed, complete, and what `/docs` shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.api.openapi import all_kinds
from app.api.problem_catalogue import catalogue
from app.main import openapi_document
from tests.stage import Service, Telnyx, service_in_front_of, token

ROOT = Path(__file__).parent.parent.parent
COMMITTED, CATALOGUE = ROOT / "openapi.json", ROOT / "docs" / "errors.md"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation) for path, found in document["paths"].items() for method, operation in found.items()
    ]


def test_the_committed_document_is_what_the_code_says(document: dict[str, Any]) -> None:
    assert json.loads(COMMITTED.read_text()) == document, "the API changed: run `make openapi`, and read the difference"


def test_the_committed_catalogue_is_what_the_code_says(document: dict[str, Any]) -> None:
    assert CATALOGUE.read_text() == catalogue(document), "problem codes changed: run `make errors`"


def test_every_code_is_in_the_catalogue_with_its_status(document: dict[str, Any]) -> None:
    section = 0
    listed = {}
    for line in catalogue(document).splitlines():
        if line.startswith("## "):
            section = int(line.split()[1])
        elif line.startswith("| `"):
            listed[line.split("`")[1]] = section

    assert listed == {kind.code: kind.status for kind in all_kinds().values()}


BASE, PUSH = "/v1/telephony-credentials", "/v1/push-credentials"
WHO_MAY = {
    ("post", BASE): "user",
    ("get", BASE): "user",
    ("delete", BASE): "user",
    ("get", f"{BASE}/{{id}}"): "user",
    ("patch", f"{BASE}/{{id}}"): "user",
    ("delete", f"{BASE}/{{id}}"): "user",
    ("post", f"{BASE}/{{id}}/token"): "user",
    ("post", PUSH): "user",
    ("get", PUSH): "user",
    ("post", f"{PUSH}/lint"): "user",
    ("get", f"{PUSH}/{{id}}"): "user",
    ("put", f"{PUSH}/{{id}}"): "user",
    ("delete", f"{PUSH}/{{id}}"): "user",
    ("post", "/v1/backchannel-logout"): "identity provider",
    ("put", "/v1/admin/connections/{connection_id}/push-credentials"): "operator",
    ("put", "/v1/admin/not-before"): "operator",
    ("get", "/v1/admin/keys"): "operator",
    ("post", "/v1/admin/keys/refresh"): "operator",
    ("get", "/v1/admin/leases"): "operator",
    ("get", "/v1/admin/leases/{id}"): "operator",
    ("delete", "/v1/admin/leases/{id}"): "operator",
    ("post", "/v1/admin/revocations"): "operator",
    ("get", "/v1/admin/dialable"): "operator",
    ("get", "/v1/admin/sip-users/{sip_username}"): "operator",
    ("get", "/v1/admin/audit"): "operator",
    ("get", "/v1/admin/activity"): "operator",
    ("get", "/v1/admin/state"): "operator",
    ("post", "/v1/admin/sweeps"): "operator",
    ("get", "/v1/admin/sweeps/{id}"): "operator",
    ("get", "/livez"): "anybody",
    ("get", "/readyz"): "anybody",
    ("get", "/version"): "anybody",
    ("get", "/metrics"): "anybody",
}


def test_every_call_is_in_the_table_of_who_may(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {(method, path) for method, path, _ in operations(document)} == set(WHO_MAY)


def test_whoever_may_shows_in_the_document(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for method, path, operation in operations(document):
        who = WHO_MAY[method, path]
        assert operation.get("security") == ([{"bearer": []}] if who in ("user", "operator") else None)
        assert path.startswith("/v1/admin/") == (who == "operator")


def test_every_error_has_an_example_that_is_a_problem(document: dict[str, Any]) -> None:
    codes = all_kinds()
    for method, path, operation in operations(document):
        if not path.startswith("/v1"):
            continue
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            examples = answer["content"]["application/problem+json"]["examples"]
            assert examples, (method, path, status)
            for code, example in examples.items():
                assert example["value"]["status"] == int(status) == codes[code].status


def test_every_success_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            is_empty = status == "204" or WHO_MAY[method, path] == "identity provider"
            if not path.startswith("/v1") or int(status) >= 400 or is_empty:
                continue
            content = answer["content"]["application/json"]
            assert "examples" in content or "example" in content, (method, path, status)


def test_no_reference_leads_nowhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    text = json.dumps(document)

    for piece in text.split('"#/components/schemas/')[1:]:
        assert piece.split('"', 1)[0] in schemas


@pytest.mark.parametrize("method_and_path", WHO_MAY, ids=lambda call: f"{call[0]} {call[1]}")
async def test_nobody_opens_more_than_the_table_says(service: Service, method_and_path: tuple[str, str]) -> None:
    method, path = method_and_path
    who, here = WHO_MAY[method_and_path], re.sub(r"\{[a-z_]+\}", "0" * 20, path)
    user = {"Authorization": f"Bearer {token()}"}

    stranger = await service.client.request(method, here)
    known = await service.client.request(method, here, headers=user)

    if who in ("user", "operator"):
        assert (stranger.status_code, stranger.json()["code"]) == (401, "missing_token")
    assert (known.status_code == 403) == (who == "operator")


async def test_docs_are_served_from_this_machine_with_authorize(service: Service) -> None:
    page = await service.client.get("/docs")
    script = await service.client.get("/docs/swagger-ui-bundle.js")

    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert script.status_code == 200
    assert len(script.content) > 500_000
    assert (await service.client.get("/openapi.json")).json()["components"]["securitySchemes"]
    assert (await service.client.get("/docs/..%2fcore.py")).status_code == 404


async def test_docs_can_be_switched_off(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, docs=False) as service:
        for path in ("/docs", "/openapi.json", "/docs/swagger-ui.css"):
            assert (await service.client.get(path)).status_code == 404
