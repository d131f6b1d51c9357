"""The shortcut answers exactly as the route would, only sooner; whatever is not plain goes the route's way."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.middleware.body import followed_by
from app.api.routes import telephony_credentials as telephony
from app.api.schemas.client_settings import ClientSettings
from app.api.scope import ASKED
from app.serving.login_response_cache import KNOWN, LONGEST_OWN_BYTES, Asked, AtHand
from tests.stage import ISSUER, Service, Telnyx, service_in_front_of, token

Headers = Sequence[tuple[bytes, bytes]]
PLAIN = b'{"device_id": "laptop"}'


async def send(service: Service, body: bytes = PLAIN, user: str = "alice") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user)}", "Content-Type": "application/json"}
    return await service.client.post("/v1/telephony-credentials", headers=headers, content=body)


def without_time(answer: httpx.Response) -> str:
    return answer.text.replace(answer.json()["server_time"], "")


async def test_the_first_answer_by_the_route_and_the_second_by_the_shortcut_are_the_same(service: Service) -> None:
    by_the_route, by_the_shortcut = await send(service), await send(service)

    assert (by_the_route.status_code, by_the_shortcut.status_code) == (201, 200)
    assert without_time(by_the_route) == without_time(by_the_shortcut)
    assert set(by_the_route.headers) == set(by_the_shortcut.headers)
    assert by_the_route.headers["content-type"] == by_the_shortcut.headers["content-type"]


class Beside:
    """The shortcut in front of the service once more; what it leaves to the layers is noted with its body."""

    def __init__(self, service: Service, most: int = KNOWN) -> None:
        self.left: list[bytes] = []
        self._app = service.app
        self._shortcut = AtHand(
            self._layers,
            telephony.ISSUE.path,
            verifier=service.components.identity.verifier,
            limiter=service.components.rate_limiter,
            issuer=service.components.telephony.issuer,
            client_settings=ClientSettings("sip.telnyx.com"),
            tell=lambda *_: None,
            clock=service.clock,
            most=most,
        )
        self.headers = [(b"authorization", b"Bearer " + token().encode()), (b"content-type", b"application/json")]

    async def _layers(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.left.append(message["body"])
        await self._app(scope, followed_by(message, receive), send)

    async def become_known(self) -> None:
        """As a device that asked twice, and from then on in the same words."""
        assert [await self.ask() for _ in range(3)] == [201, 200, 200]
        assert self.left == [PLAIN, PLAIN], "new, then at hand for the first time, then known"
        self.left.clear()

    async def ask(
        self, body: bytes = PLAIN, *, method: str = "POST", path: str = "", query: bytes = b"", more: Headers = ()
    ) -> int:
        """The status of the answer, by whoever gave it."""
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        path = f"/v1/telephony-credentials{path}"
        target = path.encode() + (b"?" + query if query else b"")
        headers = [*self.headers, *more]
        asked = Asked("127.0.0.1", method.encode(), target, headers, body)
        if self._shortcut.answer(asked) is not None:
            return 200
        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}
        await self._shortcut({**scope, ASKED: asked}, receive, send)
        status: int = sent[0]["status"]
        return status


async def test_who_asks_again_in_the_same_words_is_answered_before_all_layers(service: Service) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()

    assert [await shortcut.ask() for _ in range(3)] == [200, 200, 200]

    assert shortcut.left == []


DIFFERENT: dict[str, dict[str, Any]] = {
    "another method": {"method": "GET"},
    "another address": {"path": "/x/token"},
    "a query": {"query": b"a=b"},
    "one header more": {"more": [(b"origin", b"https://app.example.com")]},
    "the token twice": {"more": [(b"authorization", b"Bearer " + b"x")]},
    "a length that is none": {"more": [(b"content-length", b"x")]},
}


@pytest.mark.parametrize("difference", DIFFERENT.values(), ids=DIFFERENT)
async def test_in_other_words_it_is_judged_by_all_layers(service: Service, difference: dict[str, Any]) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()

    await shortcut.ask(**difference)

    assert len(shortcut.left) == 1


async def test_what_is_another_each_time_makes_no_difference(service: Service) -> None:
    shortcut = Beside(service)
    for number in range(4):
        assert await shortcut.ask(more=[(b"x-request-id", b"%d" % number), (b"traceparent", b"%d" % number)]) < 300

    assert len(shortcut.left) == 2


async def test_what_is_another_each_time_is_short_or_judged_by_all_layers(service: Service) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()

    assert await shortcut.ask(more=[(b"x-request-id", b"a" * LONGEST_OWN_BYTES)]) == 200
    assert shortcut.left == []
    assert await shortcut.ask(more=[(b"x-request-id", b"a" * 40_000)]) == 431
    assert await shortcut.ask(more=[(b"traceparent", b"a")] * 101) == 431


async def test_two_devices_of_a_user_are_both_known(service: Service) -> None:
    """A page and a phone with the same token differ in their bodies only."""
    shortcut = Beside(service)
    other = b'{"device_id": "tablet"}'
    for _ in range(2):
        await shortcut.ask(PLAIN)
        await shortcut.ask(other)
    shortcut.left.clear()

    await shortcut.ask(PLAIN)
    await shortcut.ask(other)

    assert shortcut.left == []


async def test_an_ended_token_is_no_longer_known(service: Service) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()

    service.clock.advance(timedelta(hours=2))

    assert await shortcut.ask() == 401
    assert len(shortcut.left) == 1


async def test_a_token_that_a_mark_ended_is_no_longer_known(service: Service) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()
    service.clock.advance(timedelta(seconds=2))

    everybody = {"issuer": ISSUER, "subject": "alice", "refuse_tokens": True}
    operator = {"Authorization": f"Bearer {token('root', scope='dialtone:admin')}"}
    await service.client.post("/v1/admin/revocations", headers=operator, json=everybody)

    assert await shortcut.ask() == 401


async def test_a_policy_that_changed_is_asked_anew(service: Service) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()
    policy = service.components.identity.policy

    policy.policy = replace(policy.policy, required_scopes={ISSUER: frozenset({"gold"})})

    assert await shortcut.ask() == 403


async def test_known_requests_are_bounded(service: Service) -> None:
    shortcut = Beside(service, most=2)
    await shortcut.become_known()
    for number in range(4):
        await shortcut.ask(more=[(b"x-a", b"%d" % number)])
    shortcut.left.clear()

    await shortcut.ask(more=[(b"x-a", b"3")])
    assert shortcut.left == []
    await shortcut.ask(more=[(b"x-a", b"0")])
    assert shortcut.left == [PLAIN]


ODD = {
    "another grant": b'{"device_id": "laptop", "grant": "sip_password"}',
    "another platform": b'{"device_id": "laptop", "platform": "ios"}',
    "another label": b'{"device_id": "laptop", "label": "Mine"}',
    "an unknown field": b'{"device_id": "laptop", "nonsense": 1}',
    "another device": b'{"device_id": "other"}',
    "a number": b'{"device_id": 7}',
    "nothing but brackets": b"[" * 60_000,
    "no text": b"\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_what_is_not_plain_is_left_to_the_layers_untouched(service: Service, body: bytes) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()

    await shortcut.ask(body)

    assert shortcut.left == [body]


async def test_it_is_measured_audited_and_limited_like_the_route(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_user="3/hour") as service:
        statuses = [(await send(service)).status_code for _ in range(4)]
        figures = (await service.client.get("/metrics")).text

    assert statuses == [201, 200, 200, 429]
    assert 'http_requests_total{method="POST",route="/v1/telephony-credentials",status="200"} 2.0' in figures
    assert 'dialtone_issue_seconds_count{source="cached"} 2.0' in figures


async def test_once_revoked_nothing_is_at_hand(service: Service) -> None:
    shortcut = Beside(service)
    await shortcut.become_known()
    first = (await service.ask("GET")).json()["data"][0]

    await service.ask("DELETE", f"/{first['id']}")

    assert await shortcut.ask() == 201
    again = (await service.ask("GET")).json()["data"][0]
    assert again["sip_username"] != first["sip_username"]
