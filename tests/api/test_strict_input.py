"""Strict input: duplicate fields, wrong types, compressed bodies and impossible times are rejected without effect."""

import base64
import gzip
import json
from typing import Any

import httpx
import pytest

from app.main import openapi_document
from app.vending.policy import ADMIN_SCOPE
from tests.support.admin_api import admin_request
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, token

BROKEN: list[tuple[str, list[str | int], str]] = [
    ('{"device_id": "a", "device_id": "b"}', ["body", "device_id"], "duplicate_field"),
    ('{"device_id": "a", "device_id": "a"}', ["body", "device_id"], "duplicate_field"),
    ('{"x": [1, {"y": {"z": 1, "z": 2}}]}', ["body", "x", 1, "y", "z"], "duplicate_field"),
    ('{"x-secret": {"z": 1, "z": 2}}', ["body", "[unknown]", "z"], "duplicate_field"),
    ('{"x-secret": 1, "x-secret": 2}', ["body", "[unknown]"], "duplicate_field"),
    ('{"%s": 1, "%s": 2}' % ("x" * 33, "x" * 33), ["body", "[unknown]"], "duplicate_field"),
    ('{"\\ud800": 1, "\\ud800": 2}', ["body", "[unknown]"], "duplicate_field"),
    ('{"x": NaN}', ["body", "x"], "finite_number"),
    ('{"x": [Infinity]}', ["body", "x", 0], "finite_number"),
    ('{"x": -Infinity}', ["body", "x"], "finite_number"),
    ('{"x": 1e400}', ["body", "x"], "finite_number"),
    ('{"x": %s1%s}' % ("[" * 16, "]" * 16), ["body"], "json_too_deep"),
    ("[" * 60_000, ["body"], "json_too_deep"),
    ('{"x": %s}' % ("9" * 5000), ["body"], "json_invalid"),
    ("{", ["body"], "json_invalid"),
    ('{"x": "\\x"}', ["body"], "json_invalid"),
    ('{"x": 01}', ["body"], "json_invalid"),
]


def json_operations() -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, operations in openapi_document()["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


async def send(service: Service, method: str, path: str, body: str | bytes) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(scope=ADMIN_SCOPE)}", "Content-Type": "application/json"}
    return await service.client.request(method, path.format(id="0", connection_id="1"), headers=headers, content=body)


@pytest.mark.parametrize(("body", "loc", "fault"), BROKEN, ids=lambda value: str(value)[:40])
async def test_body_that_is_not_strict_json_is_rejected_on_every_route(
    service: Service, body: str, loc: list[str | int], fault: str
) -> None:
    operations = json_operations()
    assert len(operations) >= 10

    for method, path in operations:
        answer = await send(service, method, path, body)

        assert_problem(answer, 422, "invalid_request")
        assert [(error["loc"], error["type"]) for error in answer.json()["errors"]] == [(loc, fault)], path
    assert service.telnyx.calls() == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "latin-1"])
async def test_body_that_is_not_utf8_is_rejected(service: Service, encoding: str) -> None:
    answer = await send(service, "POST", "/v1/telephony-credentials", '{"device_id": "ä"}'.encode(encoding))

    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0]["type"] == "json_invalid"


async def post_encoded(service: Service, encoding: str, body: bytes) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json", "Content-Encoding": encoding}
    return await service.client.post("/v1/telephony-credentials", headers=headers, content=body)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip", "unknown"])
async def test_compressed_body_is_rejected(service: Service, encoding: str) -> None:
    answer = await post_encoded(service, encoding, gzip.compress(b'{"device_id": "a"}'))

    assert_problem(answer, 415, "unsupported_media_type")
    assert service.telnyx.calls() == []


async def test_cached_login_is_not_returned_for_a_body_in_another_coding(service: Service) -> None:
    assert (await service.issue("a")).status_code == 201

    assert_problem(await post_encoded(service, "gzip", b'{"device_id": "a"}'), 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_body_that_is_named_uncompressed_is_accepted(service: Service, encoding: str) -> None:
    assert (await post_encoded(service, encoding, b'{"device_id": "a"}')).status_code == 201


async def test_byte_order_mark_is_ignored(service: Service) -> None:
    """RFC 8259 section 8.1 permits it, and editors on Windows write one."""
    answer = await send(service, "POST", "/v1/telephony-credentials", '{"device_id": "a"}'.encode("utf-8-sig"))

    assert answer.status_code == 201


async def test_cached_login_is_not_returned_for_a_duplicate_field(service: Service) -> None:
    assert (await service.issue("a")).status_code == 201
    assert (await service.issue("a")).status_code == 200

    answer = await send(service, "POST", "/v1/telephony-credentials", '{"device_id": "b", "device_id": "a"}')

    assert_problem(answer, 422, "invalid_request")


async def test_revocation_of_all_devices_rejects_what_looks_like_a_filter(service: Service) -> None:
    await service.issue("laptop")
    path = "/v1/telephony-credentials"

    by_parameter = await send(service, "DELETE", f"{path}?device_id=other", b"")
    by_body = await send(service, "DELETE", path, '{"device_id": "other"}')

    for answer, place in ((by_parameter, "query"), (by_body, "body")):
        assert_problem(answer, 422, "invalid_request")
        assert answer.json()["errors"] == [
            {"loc": [place, "device_id"], "type": "extra_forbidden", "message": "Unknown field: device_id."}
        ]
    assert len(service.telnyx.live()) == 1


@pytest.mark.parametrize("body", ["{}", "null"])
async def test_revocation_accepts_an_empty_body(service: Service, body: str) -> None:
    await service.issue("laptop")

    assert (await send(service, "DELETE", "/v1/telephony-credentials", body)).status_code == 204


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/telephony-credentials?limit=1&limit=2", "limit"),
        ("/v1/admin/leases?subject=a&subject=b", "subject"),
        ("/v1/admin/audit?since=2026-11-23T09:30:00Z&since=2026-11-23T09:30:00Z", "since"),
        (f"/v1/admin/dialable?issuer={ISSUER}&subject=a&subject=b", "subject"),
        ("/v1/admin/activity?minutes=1&minutes=2", "minutes"),
    ],
)
async def test_repeated_query_parameter_is_rejected(service: Service, path: str, name: str) -> None:
    answer = await send(service, "GET", path, b"")

    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"] == [
        {"loc": ["query", name], "type": "duplicate_field", "message": f"{name} occurs more than once."}
    ]


NOT_TEXT: list[Any] = [5, 1.5, True, ["a"], {"a": 1}]
NOT_BOOLEAN: list[Any] = ["true", "yes", "on", "", 1, 0, 1.0, None, [True]]
LOGIN, REVOCATIONS, SWEEPS = "/v1/telephony-credentials", "/v1/admin/revocations", "/v1/admin/sweeps"
NOT_BEFORE, CONNECTION = "/v1/admin/not-before", "/v1/admin/connections/1/push-credentials"

TYPED_FIELDS: list[tuple[str, str, dict[str, Any], str, list[Any]]] = [
    ("POST", REVOCATIONS, {"confirm": "default"}, "everything", NOT_BOOLEAN),
    ("POST", REVOCATIONS, {"issuer": ISSUER, "subject": "a"}, "refuse_tokens", NOT_BOOLEAN),
    ("POST", REVOCATIONS, {"everything": True}, "confirm", NOT_TEXT),
    ("POST", REVOCATIONS, {"confirm": "default"}, "connection_id", NOT_TEXT),
    ("POST", REVOCATIONS, {"issuer": ISSUER}, "subject", NOT_TEXT),
    ("POST", SWEEPS, {}, "dry_run", NOT_BOOLEAN),
    ("POST", SWEEPS, {}, "force", NOT_BOOLEAN),
    ("PUT", NOT_BEFORE, {}, "issuer", [*NOT_TEXT, None]),
    ("PUT", NOT_BEFORE, {"issuer": ISSUER}, "subject", NOT_TEXT),
    ("PUT", NOT_BEFORE, {"issuer": ISSUER}, "session", NOT_TEXT),
    ("PUT", NOT_BEFORE, {"issuer": ISSUER}, "not_before", [*NOT_TEXT, 0, "0", "1700000000", "1700000000.5", "", "now"]),
    ("POST", "/v1/admin/keys/refresh", {}, "issuer", NOT_TEXT),
    ("PUT", CONNECTION, {}, "ios", NOT_TEXT),
    ("PUT", CONNECTION, {}, "android", NOT_TEXT),
    ("POST", LOGIN, {}, "device_id", [*NOT_TEXT, None]),
    ("POST", LOGIN, {"device_id": "a"}, "platform", [*NOT_TEXT, None, "IOS", " ios"]),
    ("POST", LOGIN, {"device_id": "a"}, "grant", [*NOT_TEXT, None]),
    ("POST", LOGIN, {"device_id": "a"}, "label", NOT_TEXT),
    ("POST", LOGIN, {"device_id": "a"}, "ttl_seconds", ["60", "", 60.0, 60.5, True, [60]]),
    ("PATCH", f"{LOGIN}/0", {}, "ttl_seconds", ["60", 60.0, True]),
    ("PATCH", f"{LOGIN}/0", {}, "label", NOT_TEXT),
]


@pytest.mark.parametrize(
    ("method", "path", "fields", "name", "values"), TYPED_FIELDS, ids=[f"{row[1]} {row[3]}" for row in TYPED_FIELDS]
)
async def test_value_of_another_type_is_rejected(
    service: Service, method: str, path: str, fields: dict[str, Any], name: str, values: list[Any]
) -> None:
    for value in values:
        answer = await send(service, method, path, json.dumps({**fields, name: value}))

        assert_problem(answer, 422, "invalid_request")
        (error,) = answer.json()["errors"]
        assert error["loc"] == ["body", name], value
        assert error["message"].startswith(f"{name} must be "), value
    assert service.telnyx.calls() == []


LISTS = [LOGIN, "/v1/admin/leases", "/v1/admin/audit"]


async def get(service: Service, path: str, **params: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(scope=ADMIN_SCOPE)}"}
    return await service.client.get(path, headers=headers, params=params)


@pytest.mark.parametrize("path", LISTS)
async def test_number_in_a_query_must_have_only_digits(service: Service, path: str) -> None:
    for value in ("1_0", "+10", " 10", "10.0", "1e1", "", "\u0661", "0x1", "true", "9" * 5000):
        answer = await get(service, path, limit=value)

        assert_problem(answer, 422, "invalid_request")
        assert answer.json()["errors"] == [
            {"loc": ["query", "limit"], "type": "int_parsing", "message": "limit must be an integer."}
        ]


OUTSIDE_THE_CALENDAR = [
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59-00:01",
]
NOT_TIMES = [
    *OUTSIDE_THE_CALENDAR,
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "2026-11-23T24:00:00Z",
    "2026-11-23T23:59:60Z",
    "2026-02-30T00:00:00Z",
    "2026-11-23T09:30:00",
    "2026-11-23",
    "1700000000",
    "99999999999999999999",
    "1e400",
    "infinity",
    "2026-11-23T",
    "2026-11-23T09",
    "2026-11-23T09:30:00+25:00",
    "2026-11-23T09:30:00 02:00",
    "2026-11-23T09:30:00Zx",
]


@pytest.mark.parametrize("name", ["since", "until", "not_before"])
async def test_time_that_cannot_be_represented_is_rejected(service: Service, name: str) -> None:
    for moment in NOT_TIMES:
        if name == "not_before":
            answer = await admin_request(service, "PUT", "/not-before", {"issuer": ISSUER, name: moment})
        else:
            answer = await admin_request(service, "GET", "/audit", **{name: moment})

        assert_problem(answer, 422, "invalid_request")
        (error,) = answer.json()["errors"]
        assert error["loc"][1] == name, moment
        assert error["message"].startswith(f"{name} must be "), moment


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "0001-01-01T14:00:00+14:00"])
async def test_first_moment_of_the_calendar_is_accepted(telnyx: Telnyx, database: str, moment: str) -> None:
    async with running_service(telnyx, database) as service:
        since = await admin_request(service, "GET", "/audit", since=moment)
        until = await admin_request(service, "GET", "/audit", until=moment)
        before = await admin_request(service, "PUT", "/not-before", {"issuer": ISSUER, "not_before": moment})

        assert (since.status_code, until.status_code) == (200, 200)
        assert before.json()["not_before"] == "0001-01-01T00:00:00.000Z"
        assert (await service.issue("laptop")).status_code == 201, "the entry rejects no token"


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59.999999Z", "9999-12-31T09:59:59.999999-14:00"])
async def test_last_moment_of_the_calendar_is_accepted(telnyx: Telnyx, database: str, moment: str) -> None:
    async with running_service(telnyx, database) as service:
        since = await admin_request(service, "GET", "/audit", since=moment)
        until = await admin_request(service, "GET", "/audit", until=moment)
        before = await admin_request(service, "PUT", "/not-before", {"issuer": ISSUER, "not_before": moment})

        assert (since.status_code, until.status_code) == (200, 200)
        assert_problem(before, 422, "not_before_in_future")


def cursor(*content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(content)).encode()).decode()


NOT_ISSUED = [
    *[cursor(moment, "0" * 32) for moment in NOT_TIMES],
    cursor("2026-11-23T09:30:00+02:00", "0" * 32),
    cursor("20261123T093000+00:00", "0" * 32),
    cursor("2026-11-23T09:30:00+00:00", "0" * 31),
    cursor("2026-11-23T09:30:00+00:00", "0" * 32, 1),
    cursor("2026-11-23T09:30:00+00:00", 5),
    cursor(True, "0" * 32),
]


@pytest.mark.parametrize("path", LISTS)
async def test_cursor_that_was_not_issued_is_rejected(service: Service, path: str) -> None:
    for value in NOT_ISSUED:
        assert_problem(await get(service, path, cursor=value), 422, "invalid_cursor")


async def test_cursor_at_the_edge_of_the_calendar_is_accepted(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        for moment in ("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"):
            for path in LISTS:
                assert (await get(service, path, cursor=cursor(moment, "0" * 32))).status_code == 200
