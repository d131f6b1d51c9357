"""The OpenAPI document: committed, complete, and what `/docs` shows."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.api.documentation import all_kinds
from app.main import openapi_document
from tests.stage import Service, Telnyx, service_in_front_of

COMMITTED = Path(__file__).parent.parent.parent / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation) for path, found in document["paths"].items() for method, operation in found.items()
    ]


def test_the_committed_document_is_what_the_code_says(document: dict[str, Any]) -> None:
    assert json.loads(COMMITTED.read_text()) == document, "the API changed: run `make openapi`, and read the difference"


def test_it_is_openapi_3_1_and_holds_the_seven_calls(document: dict[str, Any]) -> None:
    base = "/v1/telephony-credentials"

    assert document["openapi"].startswith("3.1")
    assert {(method, path) for method, path, _ in operations(document) if path.startswith("/v1")} == {
        ("post", base),
        ("get", base),
        ("delete", base),
        ("get", f"{base}/{{id}}"),
        ("patch", f"{base}/{{id}}"),
        ("delete", f"{base}/{{id}}"),
        ("post", f"{base}/{{id}}/token"),
    }


def test_every_guarded_call_wants_a_bearer_token_and_no_other_does(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for _, path, operation in operations(document):
        assert operation.get("security") == ([{"bearer": []}] if path.startswith("/v1") else None)


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
            if not path.startswith("/v1") or int(status) >= 400 or status == "204":
                continue
            content = answer["content"]["application/json"]
            assert "examples" in content or "example" in content, (method, path, status)


def test_no_reference_leads_nowhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    text = json.dumps(document)

    for piece in text.split('"#/components/schemas/')[1:]:
        assert piece.split('"', 1)[0] in schemas


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
