"""The fast path over the wire: which requests it answers, and that everything that may have changed is checked."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from app.observability import logging as logs
from app.serving.framing import parse_head
from app.serving.front_host import Request
from app.vending.models import Principal
from app.vending.policy import Policy, Rule
from tests.support.front_server import Connection
from tests.support.login_requests import BODY, PATH, request_bytes
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, token

VARYING_FIELDS = re.compile(
    rb'(?mi)^(date|x-request-id|ratelimit-remaining|ratelimit-reset): [^\r]*|"(?:server_time|request_id)":"[^"]*"'
)


def comparable(answer: tuple[bytes, bytes]) -> list[bytes]:
    """The lines of a response without the parts that vary."""
    return sorted(VARYING_FIELDS.sub(rb"\1", b"".join(answer)).split(b"\r\n"))


@pytest.fixture
async def connection(service: Service) -> Connection:
    """A connection of a device that has a cached login."""
    connection = await Connection.to(service.port)
    assert (await connection.ask(request_bytes()))[0].startswith(b"HTTP/1.1 201 ")
    service.app.requests = 0
    return connection


async def by_the_app(service: Service, connection: Connection, request: bytes) -> tuple[bytes, bytes]:
    """The response of the middleware and the route, without the fast path."""
    fast_path, service.limiter.fast_path = service.limiter.fast_path, None
    try:
        return await connection.ask(request)
    finally:
        service.limiter.fast_path = fast_path


REQUESTS = {
    "minimal": request_bytes(),
    "fresh token": request_bytes(bearer=token("alice")),
    "allowed origin": request_bytes("Origin: https://app.example.com"),
    "other origin": request_bytes("Origin: https://elsewhere.example.com"),
    "request id": request_bytes("X-Request-ID: abc-1"),
    "invalid request id": request_bytes("X-Request-ID: a b"),
    "traceparent": request_bytes("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "keep-alive": request_bytes("Connection: keep-alive"),
    "empty header": request_bytes("X-Empty:"),
    "media type with a parameter": request_bytes().replace(b"/json", b"/json; charset=utf-8"),
    "spaces in the body": request_bytes(body=b' {"device_id" :"laptop" }\n'),
    "platform": request_bytes(body=b'{"device_id": "laptop", "platform": "browser"}'),
    "invalid token": request_bytes(bearer="a.b.c"),
    "token of an unknown issuer": request_bytes(bearer=token("alice", iss="https://elsewhere.example.com")),
    "expired token": request_bytes(bearer=token("alice", exp=1)),
    "invalid token, origin": request_bytes("Origin: https://app.example.com", bearer="garbage"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_response_equals_the_apps(service: Service, connection: Connection, request_: bytes) -> None:
    expected = await by_the_app(service, connection, request_)
    service.app.requests = 0

    response = await connection.ask(request_)

    assert service.app.requests == 0
    assert comparable(response) == comparable(expected)


LEFT_TO_THE_APP = {
    "GET": request_bytes(method="GET", body=b""),
    "GET with a body": request_bytes(method="GET"),
    "trailing slash": request_bytes(target=f"{PATH}/"),
    "query": request_bytes(target=f"{PATH}?a=b"),
    "escaped path": request_bytes(target=PATH.replace("v1", "%761")),
    "HTTP/1.0": request_bytes(version="1.0"),
    "close": request_bytes("Connection: close"),
    "token twice": request_bytes("Authorization: Bearer x"),
    "no token": re.sub(rb"Authorization: [^\r]*\r\n", b"", request_bytes()),
    "basic authentication": re.sub(rb"Bearer [^\r]*", b"Basic YTpi", request_bytes()),
    "another media type": request_bytes().replace(b"/json", b"/xml"),
    "101 headers": request_bytes(*(f"X-{number}: a" for number in range(101))),
    "repeated header": request_bytes("X-A: 1", "X-A: 2"),
    "chunked": request_bytes(body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"17\r\n%b\r\n0\r\n\r\n" % BODY,
    "unknown field": request_bytes(body=b'{"device_id": "laptop", "nonsense": 1}'),
    "invalid device id": request_bytes(body=b'{"device_id": "lap top"}'),
    "a number": request_bytes(body=b'{"device_id": 7}'),
    "not an object": request_bytes(body=b'["laptop"]'),
    "deeply nested": request_bytes(body=b"[" * 500),
    "not JSON": request_bytes(body=b'{"device_id": "laptop"'),
    "not UTF-8": request_bytes(body=b"\xff"),
    "white space that is not JSON's": request_bytes(body=b'\x0c{"device_id": "laptop"}'),
    "field twice": request_bytes(body=b'{"device_id": "laptop", "device_id": "laptop"}'),
    "empty": request_bytes(body=b""),
    "long": request_bytes(body=BODY + b" " * 1_000),
    "another grant": request_bytes(body=b'{"device_id": "laptop", "grant": "sip_password"}'),
    "another platform": request_bytes(body=b'{"device_id": "laptop", "platform": "ios"}'),
    "another label": request_bytes(body=b'{"device_id": "laptop", "label": "Mine"}'),
    "another device": request_bytes(body=b'{"device_id": "other"}'),
    "another user": request_bytes(user="bob"),
}


@pytest.mark.parametrize("request_", LEFT_TO_THE_APP.values(), ids=LEFT_TO_THE_APP)
async def test_other_requests_are_left_to_the_app(service: Service, connection: Connection, request_: bytes) -> None:
    await connection.ask(request_)

    assert service.app.requests == 1


async def test_expect_100_continue_is_left_to_the_app(service: Service, connection: Connection) -> None:
    connection.writer.write(request_bytes("Expect: 100-continue").removesuffix(BODY))

    assert (await connection.answer())[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await connection.ask(BODY))[0].startswith(b"HTTP/1.1 200 ")
    assert service.app.requests == 1


async def test_each_response_has_its_own_or_the_callers_request_id(connection: Connection) -> None:
    ids = [re.findall(rb"x-request-id: (\S+)", (await connection.ask(request_bytes()))[0]) for _ in range(3)]

    assert len({tuple(one) for one in ids}) == 3
    for own in ("first", "second"):
        head, _ = await connection.ask(request_bytes(f"X-Request-ID: {own}"))
        assert f"x-request-id: {own}\r\n".encode() in head


async def test_request_in_several_segments_is_answered_by_the_fast_path(
    service: Service, connection: Connection
) -> None:
    whole = request_bytes()
    for at in (1, 30, len(whole) - len(BODY), len(whole) - 3):
        connection.writer.write(whole[:at])
        await asyncio.sleep(0.02)
        head, body = await connection.ask(whole[at:])
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body)["device_id"] == "laptop"

    assert service.app.requests == 0


async def test_pipelined_requests_are_answered_in_order(service: Service, connection: Connection) -> None:
    new = request_bytes("X-Request-ID: 0", body=b'{"device_id": "other"}')
    cached = [request_bytes(f"X-Request-ID: {number}") for number in range(1, 20)]
    connection.writer.write(new + b"".join(cached))

    heads = [(await connection.answer())[0] for _ in range(20)]

    assert [int(re.findall(rb"x-request-id: (\d+)", head)[0]) for head in heads] == list(range(20))


async def test_two_users_on_one_connection_get_their_own_logins(service: Service, connection: Connection) -> None:
    """A proxy sends the requests of many users over one connection."""
    devices = [("alice", b"laptop"), ("bob", b"laptop"), ("alice", b"phone"), ("bob", b"phone")]
    requests = [request_bytes(user=user, body=b'{"device_id": "%b"}' % device) for user, device in devices]
    first = [json.loads((await connection.ask(request))[1])["login_token"] for request in requests]

    connection.writer.write(b"".join(requests * 5))
    again = [json.loads((await connection.answer())[1])["login_token"] for _ in range(20)]

    assert again == first * 5
    assert len(set(first)) == 4


async def test_invalid_bytes_after_a_cached_request_close_the_connection(connection: Connection) -> None:
    connection.writer.write(request_bytes() + b"nonsense\r\n\r\n")

    assert (await connection.answer())[0].startswith(b"HTTP/1.1 200")
    assert (await connection.answer())[0].startswith(b"HTTP/1.1 400")
    assert await connection.is_over()


async def test_rejection_of_a_body_can_be_read_by_an_allowed_page(connection: Connection) -> None:
    chunked = request_bytes("Origin: https://app.example.com", body=b"").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    head, _ = await connection.ask(chunked + b"0\r\nX-Trailer: a\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"access-control-allow-origin: https://app.example.com\r\n" in head


async def test_response_is_logged_like_the_apps(
    service: Service, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", as_json=True)
    capsys.readouterr()

    await by_the_app(service, connection, request_bytes("X-Request-ID: mine"))
    await connection.ask(request_bytes("X-Request-ID: its"))

    logged = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    by_app, by_fast_path = (one for one in logged if one["event"] == "request")
    assert by_fast_path["request_id"] == "its"
    for one in (by_app, by_fast_path):
        for own in ("timestamp", "request_id", "milliseconds"):
            del one[own]
    assert by_fast_path == by_app


async def test_address_behind_a_trusted_proxy_is_the_clients(telnyx: Telnyx, sqlite: str) -> None:
    """The audit and the limit on rejected tokens see the address that the middleware sees."""
    async with running_service(telnyx, sqlite, limit_failures="3/minute") as service:
        connection = await Connection.to(service.port)
        bad = request_bytes("X-Forwarded-For: 203.0.113.7", bearer="bad.token.x")
        statuses = [(await connection.ask(bad))[0][9:12] for _ in range(5)]
        other, _ = await connection.ask(request_bytes("X-Forwarded-For: 203.0.113.8"))
        await service.components.audit.close()
        events = await service.client.get("/v1/admin/audit", headers=operator(), params={"action": "denied"})

    assert statuses == [b"401"] * 4 + [b"429"]
    assert other.startswith(b"HTTP/1.1 201 ")
    assert {event["client_address"] for event in events.json()["data"]} == {"203.0.113.7"}


async def test_untrusted_peer_cannot_choose_its_address(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_failures="3/minute") as service:
        connection = await Connection.to(service.port, local_address="127.0.0.2")
        statuses = []
        for number in range(5):
            bad = request_bytes(f"X-Forwarded-For: 203.0.113.{number}", bearer="bad.token.x")
            statuses.append((await connection.ask(bad))[0][9:12])

    assert statuses == [b"401"] * 4 + [b"429"]


def operator() -> dict[str, str]:
    return {"Authorization": f"Bearer {token('root', scope='dialtone:admin')}"}


async def status_of(connection: Connection) -> int:
    return int((await connection.ask(request_bytes()))[0][9:12])


async def test_expired_token_is_rejected(service: Service, connection: Connection) -> None:
    assert await status_of(connection) == 200
    service.clock.advance(timedelta(hours=2))

    assert await status_of(connection) == 401


async def test_revoked_token_is_rejected(service: Service, connection: Connection) -> None:
    assert await status_of(connection) == 200
    service.clock.advance(timedelta(seconds=2))

    target = {"issuer": ISSUER, "subject": "alice", "refuse_tokens": True}
    await service.client.post("/v1/admin/revocations", headers=operator(), json=target)

    assert await status_of(connection) == 401


async def test_changed_policy_applies(service: Service, connection: Connection) -> None:
    assert await status_of(connection) == 200
    policy = service.components.identity.policy

    policy.policy = replace(policy.policy, required_scopes={ISSUER: frozenset({"gold"})})

    assert await status_of(connection) == 403


async def test_revoked_login_is_not_returned(service: Service, connection: Connection) -> None:
    first = (await service.ask("GET")).json()["data"][0]

    await service.ask("DELETE", f"/{first['id']}")

    assert await status_of(connection) == 201
    again = (await service.ask("GET")).json()["data"][0]
    assert again["sip_username"] != first["sip_username"]


async def test_login_is_renewed_when_it_is_due(service: Service, connection: Connection) -> None:
    service.clock.advance(timedelta(hours=20))

    now = int(service.clock().timestamp())
    _, body = await connection.ask(request_bytes(bearer=token("alice", iat=now, exp=now + 3600)))

    assert service.app.requests == 1
    assert json.loads(body)["device_id"] == "laptop"


async def test_responses_are_measured_and_rate_limited(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_user="3/hour") as service:
        connection = await Connection.to(service.port)
        answers = [await connection.ask(request_bytes()) for _ in range(5)]
        metrics = (await service.client.get("/metrics")).text

    assert [answer[0][9:12] for answer in answers] == [b"201", b"200", b"200", b"429", b"429"]
    assert b"retry-after: " in answers[3][0]
    assert b"ratelimit-remaining: 0" in answers[3][0]
    assert service.app.requests == 2, "the first login and the metrics"
    assert 'http_requests_total{method="POST",route="/v1/telephony-credentials",status="200"} 2.0' in metrics
    assert 'http_requests_total{method="POST",route="/v1/telephony-credentials",status="429"} 2.0' in metrics
    assert 'dialtone_issue_seconds_count{source="cached"} 2.0' in metrics
    assert "dialtone_login_cache_hits_total 4.0" in metrics
    assert "dialtone_login_cache_misses_total 1.0" in metrics
    assert "dialtone_login_cache_devices 1.0" in metrics


class FailsForBob(Rule):
    def why_not(self, principal: Principal) -> str | None:
        if principal.subject == "bob":
            raise ValueError
        return None


async def test_failing_request_does_not_affect_the_others_of_its_batch(
    service: Service, connection: Connection
) -> None:
    """Otherwise the app would serve all of them again, and count them twice."""
    await connection.ask(request_bytes(user="bob"))
    policy = service.components.identity.policy
    policy.policy = Policy(policy.policy.default, (FailsForBob("all", policy.policy.default),))
    assert service.limiter.fast_path is not None

    requests = [parsed(request_bytes(user=user)) for user in ("alice", "bob", "alice")]
    answers = service.limiter.fast_path.answer(requests)

    assert [answer and answer[0] for answer in answers] == [200, None, 200]


def parsed(raw: bytes) -> Request:
    head, _, body = raw.partition(b"\r\n\r\n")
    return Request("127.0.0.1", parse_head(head + b"\r\n\r\n"), body)


async def test_fast_path_is_off_with_a_required_audit(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, audit_required=True) as service:
        connection = await Connection.to(service.port)
        statuses = [await status_of(connection) for _ in range(3)]

    assert statuses == [201, 200, 200]
    assert service.app.requests == 3


async def test_fast_path_is_on_with_shared_rate_limits(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, redis_url="redis://127.0.0.1:1/0") as service:
        connection = await Connection.to(service.port)
        statuses = [await status_of(connection) for _ in range(3)]

    assert statuses == [201, 200, 200]
    assert service.app.requests == 1
