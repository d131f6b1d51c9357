"""The `errors` of a 422: each fault names the caller's field in a sentence of Dialtone, without a value."""

import json
from typing import Any

import httpx
import pytest

from app.api.schemas.fields import FORMATS
from app.main import openapi_document
from app.vending.policy import ADMIN_SCOPE
from tests.support.problems import assert_problem
from tests.support.push_material import android, same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, token

LOGIN, PUSH, LINT = "/v1/telephony-credentials", "/v1/push-credentials", "/v1/push-credentials/lint"
REVOCATIONS, NOT_BEFORE, AUDIT = "/v1/admin/revocations", "/v1/admin/not-before", "/v1/admin/audit"
CONNECTION = "/v1/admin/connections/{}/push-credentials"

IOS = {"type": "ios", "alias": "x", "certificate": "x", "private_key": "x"}
TIME = "must be a time with a zone, such as 2026-11-23T09:30:00Z."

FAULTS: list[tuple[str, str, Any, list[str], str, str]] = [
    ("POST", LOGIN, {}, ["body", "device_id"], "missing", "device_id is required."),
    ("POST", LOGIN, None, ["body"], "model_attributes_type", "The body must be a JSON object."),
    ("POST", LOGIN, [], ["body"], "model_attributes_type", "The body must be a JSON object."),
    ("POST", LOGIN, "text", ["body"], "model_attributes_type", "The body must be a JSON object."),
    ("POST", LOGIN, 5, ["body"], "model_attributes_type", "The body must be a JSON object."),
    ("POST", LOGIN, {"device_id": 5}, ["body", "device_id"], "string_type", "device_id must be a string."),
    ("POST", LOGIN, {"device_id": None}, ["body", "device_id"], "string_type", "device_id must be a string."),
    (
        "POST",
        LOGIN,
        {"device_id": "\ud800"},
        ["body", "device_id"],
        "string_unicode",
        "device_id must be valid Unicode.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "platfrom": "ios"},
        ["body", "platfrom"],
        "extra_forbidden",
        "Unknown field: platfrom.",
    ),
    ("POST", LOGIN, {"device_id": "x", "a-b": 1}, ["body", "[unknown]"], "extra_forbidden", "Unknown field."),
    ("POST", LOGIN, {"device_id": "x", "9a": 1}, ["body", "[unknown]"], "extra_forbidden", "Unknown field."),
    ("POST", LOGIN, {"device_id": "x", "": 1}, ["body", "[unknown]"], "extra_forbidden", "Unknown field."),
    ("POST", LOGIN, {"device_id": "x", "x" * 33: 1}, ["body", "[unknown]"], "extra_forbidden", "Unknown field."),
    ("POST", LOGIN, {"device_id": "x", "a\n": 1}, ["body", "[unknown]"], "extra_forbidden", "Unknown field."),
    ("POST", LOGIN, {"device_id": "x", "é": 1}, ["body", "[unknown]"], "extra_forbidden", "Unknown field."),
    ("POST", LOGIN, {"device_id": "x", "\ud800": 1}, ["body"], "string_unicode", "The body must be valid Unicode."),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "platform": "windows"},
        ["body", "platform"],
        "enum",
        "platform must be browser, ios or android.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "ttl_seconds": "60"},
        ["body", "ttl_seconds"],
        "int_type",
        "ttl_seconds must be an integer.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "ttl_seconds": 1.5},
        ["body", "ttl_seconds"],
        "int_type",
        "ttl_seconds must be an integer.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "ttl_seconds": 59},
        ["body", "ttl_seconds"],
        "greater_than_equal",
        "ttl_seconds must be at least 60.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "ttl_seconds": 10**30},
        ["body", "ttl_seconds"],
        "less_than_equal",
        "ttl_seconds must be at most 7776000.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "label": ""},
        ["body", "label"],
        "string_too_short",
        "label is too short. The minimum length is 1.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "label": "x" * 65},
        ["body", "label"],
        "string_too_long",
        "label is too long. The maximum length is 64.",
    ),
    (
        "POST",
        LOGIN,
        {"device_id": "x", "label": "\x00"},
        ["body", "label"],
        "string_pattern_mismatch",
        "label must not contain control characters or marks of text direction.",
    ),
    ("POST", PUSH, {}, ["body", "type"], "missing", "type is required: ios or android."),
    ("POST", PUSH, {"type": "windows"}, ["body", "type"], "enum", "type must be ios or android."),
    ("POST", PUSH, {"type": None}, ["body", "type"], "enum", "type must be ios or android."),
    ("POST", PUSH, {"type": ["ios"]}, ["body", "type"], "enum", "type must be ios or android."),
    ("POST", PUSH, [], ["body"], "model_attributes_type", "The body must be a JSON object."),
    ("POST", PUSH, None, ["body"], "model_attributes_type", "The body must be a JSON object."),
    ("POST", PUSH, {**IOS, "alias": 5}, ["body", "alias"], "string_type", "alias must be a string."),
    ("POST", PUSH, {**IOS, "ios": 5}, ["body", "ios"], "extra_forbidden", "Unknown field: ios."),
    ("POST", LINT, {}, ["body", "type"], "missing", "type is required: ios or android."),
    ("POST", LINT, {**IOS, "alias": 5}, ["body", "alias"], "string_type", "alias must be a string."),
    ("PUT", f"{PUSH}/0", {}, ["body", "type"], "missing", "type is required: ios or android."),
    ("PATCH", f"{LOGIN}/0", {"labl": "x"}, ["body", "labl"], "extra_forbidden", "Unknown field: labl."),
    (
        "POST",
        REVOCATIONS,
        {"everything": "true"},
        ["body", "everything"],
        "bool_type",
        "everything must be true or false.",
    ),
    (
        "POST",
        REVOCATIONS,
        {"issuer": ISSUER},
        ["body"],
        "value_error",
        "issuer and subject must be given together.",
    ),
    ("PUT", NOT_BEFORE, {"issuer": ISSUER, "not_before": 5}, ["body", "not_before"], "datetime_type", ""),
    ("PUT", NOT_BEFORE, {"issuer": ISSUER, "not_before": "2026-11-23"}, ["body", "not_before"], "datetime_type", ""),
    (
        "PUT",
        NOT_BEFORE,
        {"issuer": ISSUER, "not_before": "2026-11-23T09:30:00"},
        ["body", "not_before"],
        "timezone_aware",
        "",
    ),
    (
        "PUT",
        NOT_BEFORE,
        {"issuer": ISSUER, "not_before": "2026-11-23T09:99:00Z"},
        ["body", "not_before"],
        "datetime_from_date_parsing",
        "",
    ),
    (
        "PUT",
        NOT_BEFORE,
        {"issuer": ISSUER, "not_before": "0001-01-01T00:00:00+14:00"},
        ["body", "not_before"],
        "datetime_out_of_range",
        "not_before must be in the years 1 to 9999 in UTC.",
    ),
    (
        "PUT",
        CONNECTION.format("x"),
        {},
        ["path", "connection_id"],
        "string_pattern_mismatch",
        "connection_id must have 1 to 20 digits.",
    ),
    ("GET", f"{LOGIN}?limit=0", None, ["query", "limit"], "greater_than_equal", "limit must be at least 1."),
    ("GET", f"{LOGIN}?limit=101", None, ["query", "limit"], "less_than_equal", "limit must be at most 100."),
    ("GET", f"{LOGIN}?limit=many", None, ["query", "limit"], "int_parsing", "limit must be an integer."),
    (
        "GET",
        f"{LOGIN}/a'b",
        None,
        ["path", "id"],
        "string_pattern_mismatch",
        "id must have 1 to 64 characters: letters and digits.",
    ),
    ("GET", f"{AUDIT}?sinse=1", None, ["query", "sinse"], "extra_forbidden", "Unknown field: sinse."),
    (
        "GET",
        f"{AUDIT}?outcome=x",
        None,
        ["query", "outcome"],
        "enum",
        "outcome must be done, unconfirmed, denied or failed.",
    ),
]


async def send(service: Service, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(scope=ADMIN_SCOPE)}", **headers}
    if method == "GET":
        return await service.client.get(path, headers=headers)
    headers["Content-Type"] = "application/json"
    return await service.client.request(method, path, headers=headers, content=json.dumps(body))


@pytest.mark.parametrize(
    ("method", "path", "body", "loc", "kind", "message"), FAULTS, ids=[f"{row[1]} {row[2]}"[:60] for row in FAULTS]
)
async def test_fault_names_the_field_in_a_sentence(
    service: Service, method: str, path: str, body: Any, loc: list[str], kind: str, message: str
) -> None:
    answer = await send(service, method, path, body)

    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0] == {"loc": loc, "type": kind, "message": message or f"{loc[-1]} {TIME}"}


async def test_each_missing_field_of_a_platform_is_named(service: Service) -> None:
    answer = await send(service, "POST", PUSH, {"type": "ios"})

    assert [error["message"] for error in answer.json()["errors"]] == [
        "alias is required.",
        "certificate is required.",
        "private_key is required.",
    ]
    assert [error["loc"][:-1] for error in answer.json()["errors"]] == [["body"]] * 3


async def test_missing_body_is_named(service: Service) -> None:
    for method, path in (("POST", LOGIN), ("POST", PUSH), ("POST", LINT), ("PUT", NOT_BEFORE)):
        headers = {"Authorization": f"Bearer {token(scope=ADMIN_SCOPE)}"}
        answer = await service.client.request(method, path, headers=headers)

        assert answer.json()["errors"] == [{"loc": ["body"], "type": "missing", "message": "The body is required."}]


def test_every_pattern_of_a_request_is_described_in_words() -> None:
    spec = openapi_document()
    patterns = {found["pattern"] for found in schemas_in(spec["paths"]) if "pattern" in found}
    patterns |= {
        found["pattern"]
        for name, schema in spec["components"]["schemas"].items()
        if name.endswith(("Request", "Material", "Change"))
        for found in schemas_in(schema)
        if "pattern" in found
    }

    assert len(patterns) >= 5
    assert patterns <= FORMATS.keys()


def schemas_in(node: Any) -> list[dict[str, Any]]:
    items = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = [item for child in items for item in schemas_in(child)]
    return [*found, node] if isinstance(node, dict) and isinstance(node.get("pattern", ""), str) else found


@pytest.mark.parametrize("wanted", [same_ios(), android()], ids=["ios", "android"])
async def test_registration_and_lint_take_the_same_body(service: Service, wanted: dict[str, Any]) -> None:
    linted = await send(service, "POST", LINT, wanted)
    without_alias = await send(service, "POST", LINT, {name: wanted[name] for name in wanted if name != "alias"})

    assert linted.json()["ok"] is True
    assert without_alias.json() == linted.json()
    assert (await send(service, "POST", PUSH, wanted)).status_code == 201


@pytest.mark.parametrize("note", ["\ud800", {"\ud800": 1}, ["\udfff"]], ids=["value", "name", "nested"])
async def test_service_account_with_a_lone_surrogate_is_rejected(service: Service, note: Any) -> None:
    wanted = android()
    wanted["project_account_json_file"]["note"] = note

    for path in (LINT, PUSH):
        answer = await send(service, "POST", path, wanted)

        assert_problem(answer, 422, "invalid_request")
        assert answer.json()["errors"] == [
            {
                "loc": ["body", "project_account_json_file"],
                "type": "string_unicode",
                "message": "project_account_json_file must be valid Unicode.",
            }
        ]


SECRET = "hunter2_pass"
"""A plain identifier: the caller sees it as a field's name, and the log does not."""
CANARY = "eyJhbGciOiJSUzI1NiJ9.c4nary.c2ln"


async def test_secrets_in_names_and_values_are_not_in_responses_or_logs(
    telnyx: Telnyx, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = "-----BEGIN PRIVATE KEY-----c4nary"
    bodies = [
        {CANARY: CANARY},
        {pem: pem, "device_id": CANARY, "type": CANARY},
        {"type": "ios", "alias": {CANARY: pem}, "certificate": [pem], "private_key": {pem: 1}, CANARY: 1},
        {"type": "android", "alias": "a", "project_account_json_file": {"private_key": pem, CANARY: pem}},
        {"type": {CANARY: pem}},
        {"device_id": "a", "platform": CANARY, "grant": pem, "label": f"\x00{CANARY}", "ttl_seconds": CANARY},
        {"issuer": f"\x00{CANARY}", "subject": pem * 20, "everything": CANARY, "not_before": CANARY, "session": pem},
        {"ios": CANARY, "android": pem},
    ]
    texts = [json.dumps(body) for body in bodies]
    texts += ['{"%s": {"%s": 1, "%s": 2}}' % (CANARY, CANARY, CANARY), '{"%s": NaN}' % CANARY, '{"%s' % CANARY]
    headers = {"Authorization": f"Bearer {token(scope=ADMIN_SCOPE)}", "Content-Type": "application/json"}
    answers = []
    async with running_service(telnyx, sqlite, log_level="debug") as service:
        for method, path in [
            ("POST", LOGIN),
            ("PATCH", f"{LOGIN}/0"),
            ("POST", PUSH),
            ("PUT", f"{PUSH}/0"),
            ("POST", REVOCATIONS),
            ("PUT", NOT_BEFORE),
            ("POST", "/v1/admin/sweeps"),
            ("POST", "/v1/admin/keys/refresh"),
            ("PUT", CONNECTION.format(1)),
        ]:
            answers += [await service.client.request(method, path, headers=headers, content=text) for text in texts]
        for path in (LOGIN, AUDIT, "/v1/admin/leases", "/v1/admin/dialable"):
            queries = [{CANARY: CANARY}, {"cursor": CANARY, "since": CANARY, "limit": CANARY}, {SECRET: SECRET}]
            answers += [await service.client.get(path, headers=headers, params=query) for query in queries]
        named = await service.client.post(LOGIN, headers=headers, content='{"%s": "%s"}' % (SECRET, SECRET))

    log = capsys.readouterr().err
    assert {answer.status_code for answer in answers} <= {200, 422}
    assert sum(answer.status_code == 422 for answer in answers) > 90
    assert "c4nary" not in "".join(answer.text + str(answer.headers) for answer in answers)
    assert "c4nary" not in log
    assert ["body", SECRET] in [error["loc"] for error in named.json()["errors"]]
    assert SECRET not in log
    assert log.count('"event":"request"') > 90
