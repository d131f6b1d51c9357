"""The login response cache answers as the route would; all other requests reach the app unchanged."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.middleware.body import followed_by
from app.api.request_scope import RAW_REQUEST
from app.api.routes import telephony_credentials as telephony
from app.api.schemas.client_settings import ClientSettings
from app.serving.login_response_cache import (
    MAX_KNOWN_REQUESTS,
    MAX_PER_REQUEST_HEADER_BYTES,
    LoginResponseCache,
    RawRequest,
)
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, token

Headers = Sequence[tuple[bytes, bytes]]
BODY = b'{"device_id": "laptop"}'


async def send(service: Service, body: bytes = BODY, user: str = "alice") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user)}", "Content-Type": "application/json"}
    return await service.client.post("/v1/telephony-credentials", headers=headers, content=body)


def without_time(answer: httpx.Response) -> str:
    return answer.text.replace(answer.json()["server_time"], "")


async def test_cached_response_equals_the_first_response(service: Service) -> None:
    by_the_app, by_the_cache = await send(service), await send(service)

    assert (by_the_app.status_code, by_the_cache.status_code) == (201, 200)
    assert without_time(by_the_app) == without_time(by_the_cache)
    assert set(by_the_app.headers) == set(by_the_cache.headers)
    assert by_the_app.headers["content-type"] == by_the_cache.headers["content-type"]


class CacheInFront:
    """A second cache in front of the service; `forwarded` holds the bodies of requests that reach the app."""

    def __init__(self, service: Service, most: int = MAX_KNOWN_REQUESTS) -> None:
        self.forwarded: list[bytes] = []
        self._app = service.app
        self._shortcut = LoginResponseCache(
            self._app_behind,
            telephony.ISSUE.path,
            verifier=service.components.identity.verifier,
            limiter=service.components.rate_limiter,
            issuer=service.components.telephony.issuer,
            client_settings=ClientSettings("sip.telnyx.com"),
            access_log=lambda *_: None,
            clock=service.clock,
            most=most,
        )
        self.headers = [(b"authorization", b"Bearer " + token().encode()), (b"content-type", b"application/json")]

    async def _app_behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.forwarded.append(message["body"])
        await self._app(scope, followed_by(message, receive), send)

    async def fill(self) -> None:
        """Send the same request until its response is cached."""
        assert [await self.ask() for _ in range(3)] == [201, 200, 200]
        assert self.forwarded == [BODY, BODY], "two requests reach the app, the third is cached"
        self.forwarded.clear()

    async def ask(
        self, body: bytes = BODY, *, method: str = "POST", path: str = "", query: bytes = b"", more: Headers = ()
    ) -> int:
        """The status of the response, from the cache or the app."""
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        path = f"/v1/telephony-credentials{path}"
        target = path.encode() + (b"?" + query if query else b"")
        headers = [*self.headers, *more]
        asked = RawRequest("127.0.0.1", method.encode(), target, headers, body)
        if self._shortcut.answer(asked) is not None:
            return 200
        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}
        await self._shortcut({**scope, RAW_REQUEST: asked}, receive, send)
        status: int = sent[0]["status"]
        return status


async def test_identical_request_is_answered_from_the_cache(service: Service) -> None:
    cache = CacheInFront(service)
    await cache.fill()

    assert [await cache.ask() for _ in range(3)] == [200, 200, 200]

    assert cache.forwarded == []


DIFFERENT_REQUESTS: dict[str, dict[str, Any]] = {
    "another method": {"method": "GET"},
    "another path": {"path": "/x/token"},
    "a query": {"query": b"a=b"},
    "an additional header": {"more": [(b"origin", b"https://app.example.com")]},
    "the token twice": {"more": [(b"authorization", b"Bearer " + b"x")]},
    "an invalid length": {"more": [(b"content-length", b"x")]},
}


@pytest.mark.parametrize("difference", DIFFERENT_REQUESTS.values(), ids=DIFFERENT_REQUESTS)
async def test_different_request_reaches_the_app(service: Service, difference: dict[str, Any]) -> None:
    cache = CacheInFront(service)
    await cache.fill()

    await cache.ask(**difference)

    assert len(cache.forwarded) == 1


async def test_request_id_and_trace_headers_do_not_affect_the_cache(service: Service) -> None:
    cache = CacheInFront(service)
    for number in range(4):
        assert await cache.ask(more=[(b"x-request-id", b"%d" % number), (b"traceparent", b"%d" % number)]) < 300

    assert len(cache.forwarded) == 2


async def test_oversized_request_id_or_trace_headers_reach_the_app(service: Service) -> None:
    cache = CacheInFront(service)
    await cache.fill()

    assert await cache.ask(more=[(b"x-request-id", b"a" * MAX_PER_REQUEST_HEADER_BYTES)]) == 200
    assert cache.forwarded == []
    assert await cache.ask(more=[(b"x-request-id", b"a" * 40_000)]) == 431
    assert await cache.ask(more=[(b"traceparent", b"a")] * 101) == 431


async def test_two_devices_of_a_user_are_both_cached(service: Service) -> None:
    """Two devices with the same token differ in their bodies only."""
    cache = CacheInFront(service)
    other = b'{"device_id": "tablet"}'
    for _ in range(2):
        await cache.ask(BODY)
        await cache.ask(other)
    cache.forwarded.clear()

    await cache.ask(BODY)
    await cache.ask(other)

    assert cache.forwarded == []


async def test_expired_token_is_not_served_from_the_cache(service: Service) -> None:
    cache = CacheInFront(service)
    await cache.fill()

    service.clock.advance(timedelta(hours=2))

    assert await cache.ask() == 401
    assert len(cache.forwarded) == 1


async def test_revoked_token_is_not_served_from_the_cache(service: Service) -> None:
    cache = CacheInFront(service)
    await cache.fill()
    service.clock.advance(timedelta(seconds=2))

    everybody = {"issuer": ISSUER, "subject": "alice", "refuse_tokens": True}
    operator = {"Authorization": f"Bearer {token('root', scope='dialtone:admin')}"}
    await service.client.post("/v1/admin/revocations", headers=operator, json=everybody)

    assert await cache.ask() == 401


async def test_changed_policy_is_applied_to_cached_requests(service: Service) -> None:
    cache = CacheInFront(service)
    await cache.fill()
    policy = service.components.identity.policy

    policy.policy = replace(policy.policy, required_scopes={ISSUER: frozenset({"gold"})})

    assert await cache.ask() == 403


async def test_number_of_cached_requests_is_bounded(service: Service) -> None:
    cache = CacheInFront(service, most=2)
    await cache.fill()
    for number in range(4):
        await cache.ask(more=[(b"x-a", b"%d" % number)])
    cache.forwarded.clear()

    await cache.ask(more=[(b"x-a", b"3")])
    assert cache.forwarded == []
    await cache.ask(more=[(b"x-a", b"0")])
    assert cache.forwarded == [BODY]


UNUSUAL_BODIES = {
    "another grant": b'{"device_id": "laptop", "grant": "sip_password"}',
    "another platform": b'{"device_id": "laptop", "platform": "ios"}',
    "another label": b'{"device_id": "laptop", "label": "Mine"}',
    "an unknown field": b'{"device_id": "laptop", "nonsense": 1}',
    "another device": b'{"device_id": "other"}',
    "a number": b'{"device_id": 7}',
    "deeply nested": b"[" * 60_000,
    "not UTF-8": b"\xff",
    "empty": b"",
}


@pytest.mark.parametrize("body", UNUSUAL_BODIES.values(), ids=UNUSUAL_BODIES)
async def test_unusual_body_reaches_the_app_unchanged(service: Service, body: bytes) -> None:
    cache = CacheInFront(service)
    await cache.fill()

    await cache.ask(body)

    assert cache.forwarded == [body]


async def test_cached_responses_are_measured_and_rate_limited(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, limit_user="3/hour") as service:
        statuses = [(await send(service)).status_code for _ in range(4)]
        figures = (await service.client.get("/metrics")).text

    assert statuses == [201, 200, 200, 429]
    assert 'http_requests_total{method="POST",route="/v1/telephony-credentials",status="200"} 2.0' in figures
    assert 'dialtone_issue_seconds_count{source="cached"} 2.0' in figures


async def test_revoked_login_is_not_served_from_the_cache(service: Service) -> None:
    cache = CacheInFront(service)
    await cache.fill()
    first = (await service.ask("GET")).json()["data"][0]

    await service.ask("DELETE", f"/{first['id']}")

    assert await cache.ask() == 201
    again = (await service.ask("GET")).json()["data"][0]
    assert again["sip_username"] != first["sip_username"]
