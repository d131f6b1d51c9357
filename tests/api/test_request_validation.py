"""Request validation: every malformed body, header and id gets a 4xx problem without input values, never a 500."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app.api.middleware.body import DISCARDED_SECONDS, BodyLimitsMiddleware
from app.api.request_scope import REQUEST_ID
from tests.support.front_server import Connection
from tests.support.problems import assert_problem
from tests.support.service import Service
from tests.support.tokens import token
from tests.support.waiting import LoopClock

PATH = "/v1/telephony-credentials"

ECHO = "ec4o-canary"

BAD_BODIES: list[tuple[str, int, str]] = [
    ("", 422, "invalid_request"),
    ("{", 422, "invalid_request"),
    ("null", 422, "invalid_request"),
    ("[]", 422, "invalid_request"),
    ('"text"', 422, "invalid_request"),
    ("{}", 422, "invalid_request"),
    ('{"device_id": null}', 422, "invalid_request"),
    ('{"device_id": 5}', 422, "invalid_request"),
    ('{"device_id": ""}', 422, "invalid_request"),
    ('{"device_id": "%s !"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a\\n"}', 422, "invalid_request"),
    ('{"device_id": "%s"}' % ("x" * 65), 422, "invalid_request"),
    ('{"device_id": "a", "%s": 1}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "platform": "%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "grant": "%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": "%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": "600"}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": 59}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": 600.5}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": true}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": NaN}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": Infinity}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": 1e400}', 422, "invalid_request"),
    ('{"device_id": "a", "ttl_seconds": %s}' % ("9" * 5000), 422, "invalid_request"),
    ('{"device_id": "\\ud800"}', 422, "invalid_request"),
    ('{"device_id": "a", "label": "\\ud800%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "label": "\\u0000%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "label": "\\u001b[31m%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "label": "\\u202e%s"}' % ECHO, 422, "invalid_request"),
    ('{"device_id": "a", "label": "%s"}' % (ECHO * 10), 422, "invalid_request"),
    ('{"device_id": "a", "label": {"%s": 1}}' % ECHO, 422, "invalid_request"),
    ("[" * 60_000, 422, "invalid_request"),
    ('{"device_id": "a", "label": ' + "[" * 30_000 + "]" * 30_000 + "}", 422, "invalid_request"),
    ('{"device_id": "%s"}' % ("x" * 70_000), 413, "body_too_large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES, ids=lambda value: str(value)[:40])
async def test_malformed_body_gets_a_problem_without_input_values(
    service: Service, body: str, status: int, code: str
) -> None:
    answer = await service.ask("POST", content=body.encode(), headers={"Content-Type": "application/json"})

    assert answer.status_code in (status, 400)
    assert_problem(answer, answer.status_code, answer.json()["code"])
    assert answer.json()["code"] in (code, "malformed_request")
    assert ECHO not in answer.text
    assert service.telnyx.calls() == []


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'{"device_id": "\xff"}', b"\x00"], ids=repr)
async def test_bytes_that_are_not_utf8_are_rejected(service: Service, raw: bytes) -> None:
    answer = await service.ask("POST", content=raw, headers={"Content-Type": "application/json"})

    assert 400 <= answer.status_code < 500


async def test_body_with_too_large_a_length_is_rejected_before_the_client_sends_it(service: Service) -> None:
    connection = await Connection.to(service.port)
    lines = (
        f"POST {PATH} HTTP/1.1",
        "Host: dialtone",
        f"Authorization: Bearer {token('alice')}",
        "Content-Type: application/json",
        "Content-Length: 999999",
        "Expect: 100-continue",
    )

    head, body = await connection.ask("\r\n".join((*lines, "", "")).encode())

    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["code"] == "body_too_large"
    assert await connection.is_over()


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_other_content_types_are_rejected(service: Service, media_type: str) -> None:
    async with LoopClock() as clock:
        answer = await service.ask("POST", content=b'{"device_id": "a"}', headers={"Content-Type": media_type})

    assert_problem(answer, 415, "unsupported_media_type")
    assert clock.seconds < DISCARDED_SECONDS / 2, "the body is complete, so there is nothing to wait for"


async def test_content_type_with_a_charset_is_accepted(service: Service) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}

    assert (await service.ask("POST", content=b'{"device_id": "a"}', headers=headers)).status_code == 201


async def test_invalid_field_is_named_with_its_error(service: Service) -> None:
    errors = (await service.ask("POST", json={"device_id": "a b", "surprise": ECHO})).json()["errors"]

    assert errors == [
        {
            "loc": ["body", "device_id"],
            "type": "string_pattern_mismatch",
            "message": "device_id must have 1 to 64 characters: letters, digits, and any of . _ : -.",
        },
        {"loc": ["body", "surprise"], "type": "extra_forbidden", "message": "Unknown field: surprise."},
    ]


@pytest.mark.parametrize(
    "identifier", ["x" * 65, "%00", "..%2f..%2fetc", "a'b", "a%20b", "%ff", "*", "a;b", "%F0%9F%98%80"]
)
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_malformed_id_is_4xx(service: Service, method: str, identifier: str) -> None:
    content: dict[str, Any] = {"json": {}} if method == "PATCH" else {}

    answer = await service.ask(method, f"/{identifier}", **content)

    assert 400 <= answer.status_code < 500
    assert_problem(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "many"},
        {"limit": "1e1"},
        {"cursor": "x"},
        {"cursor": "W10="},
        {"cursor": "W251bGwsIG51bGxd"},
        {"cursor": "WyIyMDI2LTAxLTAxIiwgImEiXQ=="},
        {"cursor": "\u00e4"},
        {"cursor": "x" * 300},
    ],
    ids=str,
)
async def test_invalid_query_is_422(service: Service, query: dict[str, str]) -> None:
    answer = await service.ask("GET", params=query)

    assert_problem(answer, 422, answer.json()["code"])


ALLOWED = {
    PATH: "DELETE, GET, POST",
    f"{PATH}/abc": "DELETE, GET, PATCH",
    f"{PATH}/abc/token": "POST",
    "/v1/push-credentials": "GET, POST",
    "/v1/push-credentials/abc": "DELETE, GET, PUT",
    "/v1/push-credentials/lint": "POST",
    "/v1/backchannel-logout": "POST",
    "/v1/admin/leases/abc": "DELETE, GET",
    "/v1/admin/revocations": "POST",
    "/livez": "GET, HEAD",
    "/metrics": "GET, HEAD",
    "/docs": "GET",
    "/ops": "GET",
}


@pytest.mark.parametrize("path", ALLOWED)
async def test_wrong_method_is_405_and_allow_lists_the_methods_of_the_path(service: Service, path: str) -> None:
    answer = await service.client.request("TRACE", path, headers={"Authorization": f"Bearer {token()}"})

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == ALLOWED[path]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/version"])
async def test_head_of_a_health_check_is_its_get_without_a_body(service: Service, path: str) -> None:
    head, get = await service.client.head(path), await service.client.get(path)

    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_endless_body_is_cut_at_the_size_limit(service: Service) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000
            await asyncio.sleep(0)

    answer = await service.ask("POST", content=endless(), headers={"Content-Type": "application/json"})

    assert_problem(answer, 413, "body_too_large")


async def test_slow_body_times_out() -> None:
    sent: list[Message] = []

    async def never_called(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("a body that did not arrive must not be acted on")

    async def slow_body() -> Message:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def keep(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1", "headers": [], REQUEST_ID: "id"}
    await BodyLimitsMiddleware(never_called, seconds=0.1)(scope, slow_body, keep)

    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["code"] == "request_timeout"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
FIELDS = st.sampled_from(["device_id", "platform", "grant", "ttl_seconds", "label", "other"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(st.dictionaries(FIELDS, JSON | st.sampled_from(["a", "ios", "login_token", 600]), max_size=6))
async def test_no_json_body_causes_a_500(service: Service, body: Any) -> None:
    answer = await service.ask("POST", content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})

    assert answer.status_code in (200, 201, 403, 422)
