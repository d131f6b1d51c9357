"""The shortcut answers exactly as the route would, only sooner; whatever is not plain goes the route's way."""

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api import telephony
from app.api.at_hand import AtHand
from app.api.layers import PRINCIPAL, REQUEST_ID
from app.api.presenting import Presenter
from tests.stage import Service, Telnyx, principal, service_in_front_of, token

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
    """The shortcut alone, on the service's own issuer; what it leaves to the route is noted with its body."""

    def __init__(self, service: Service) -> None:
        self.left: list[bytes] = []
        presenter = Presenter("sip.telnyx.com", None, None)
        self._shortcut = AtHand(self._route, telephony.ISSUE, service.parts.issuer, presenter, service.clock)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.left.append((await receive())["body"])

    async def ask(self, body: bytes, user: str = "alice", method: str = "POST", path: str = "") -> int | None:
        """The status it answered with; None: it stepped aside."""
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": f"/v1/telephony-credentials{path}"}
        await self._shortcut({**scope, PRINCIPAL: principal(user), REQUEST_ID: "r"}, receive, send)
        status: int | None = sent[0]["status"] if sent else None
        return status


async def test_what_is_at_hand_is_answered_and_nothing_else(service: Service) -> None:
    shortcut = Beside(service)
    assert await shortcut.ask(PLAIN) is None, "nothing is at hand yet"
    await send(service)

    assert await shortcut.ask(PLAIN) == 200
    assert await shortcut.ask(PLAIN, user="bob") is None, "another user's device of that name"
    assert await shortcut.ask(PLAIN, method="GET") is None
    assert await shortcut.ask(PLAIN, path="/x/token") is None


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
async def test_what_is_not_plain_is_left_to_the_route_untouched(service: Service, body: bytes) -> None:
    await send(service)
    shortcut = Beside(service)

    assert await shortcut.ask(body) is None
    assert shortcut.left == [body]


async def test_it_is_measured_audited_and_limited_like_the_route(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, limit_user="3/hour") as service:
        statuses = [(await send(service)).status_code for _ in range(4)]
        figures = (await service.client.get("/metrics")).text

    assert statuses == [201, 200, 200, 429]
    assert 'http_requests_total{method="POST",route="/v1/telephony-credentials",status="200"} 2.0' in figures
    assert 'dialtone_issue_seconds_count{way="hot"} 2.0' in figures


async def test_once_revoked_nothing_is_at_hand(service: Service) -> None:
    first = (await send(service)).json()
    await service.ask("DELETE", f"/{first['id']}")

    again = await send(service)

    assert await Beside(service).ask(PLAIN) == 200
    assert again.status_code == 201
    assert again.json()["sip_username"] != first["sip_username"]
