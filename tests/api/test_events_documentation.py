"""The receiver in docs/events.md accepts Dialtone's requests once, and rejects all others."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.adapters.webhooks import WebhookSender
from app.sandbox.account import Clock
from app.vending.events.models import EventType
from tests.support.webhooks import EVENT, SECRET, ReceivedEvent, encoded, webhook_receiver

PAGE = (Path(__file__).parent.parent.parent / "docs" / "events.md").read_text()
LEASE = {"lease_id": "1", "version": 2, "sip_address": "sip:gencred1@sip.example.com"}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The names that the page's program defines."""
    monkeypatch.setenv("VOICE_WEBHOOK_SECRET", encoded(SECRET))
    monkeypatch.setenv("EVENTS_DATABASE", str(tmp_path / "events.db"))
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, "docs/events.md", "exec"), names)  # noqa: S102 - the program of the page
    return names


async def signed_request() -> ReceivedEvent:
    sender = WebhookSender("dialtone/test", "/dialtone/test", Clock())
    async with webhook_receiver() as recorded:
        await sender.send(recorded.endpoint(), EVENT)
    await sender.close()
    return recorded.received[0]


async def post(receiver: dict[str, Any], headers: dict[str, str], body: bytes) -> int:
    transport = httpx.ASGITransport(receiver["app"])
    async with httpx.AsyncClient(transport=transport, base_url="https://receiver.example.com") as client:
        return (await client.post("/hooks/dialtone", headers=headers, content=body)).status_code


def devices(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return database.execute("SELECT * FROM devices").fetchall()


async def test_repeated_event_has_its_effect_once(receiver: dict[str, Any]) -> None:
    sent = await signed_request()
    applied: list[str] = []
    receiver["apply"] = lambda event_type, _: applied.append(event_type)

    statuses = [await post(receiver, sent.headers, sent.body) for _ in range(2)]

    assert statuses == [204, 204]
    assert applied == [EventType.LEASE_ISSUED]


async def test_failure_of_the_effect_leaves_the_event_to_the_next_attempt(receiver: dict[str, Any]) -> None:
    sent = await signed_request()
    receiver["apply"] = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await post(receiver, sent.headers, sent.body)
    applied: list[str] = []
    receiver["apply"] = lambda event_type, _: applied.append(event_type)

    assert await post(receiver, sent.headers, sent.body) == 204
    assert applied


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "rubbish"},
        {"webhook-id": "another"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": "9999999999"},
    ],
)
async def test_forged_request_is_rejected(receiver: dict[str, Any], changes: dict[str, str]) -> None:
    sent = await signed_request()

    assert await post(receiver, {**sent.headers, **changes}, sent.body) == 400


async def test_changed_body_is_rejected(receiver: dict[str, Any]) -> None:
    sent = await signed_request()

    assert await post(receiver, sent.headers, sent.body.replace(b"laptop", b"tablet")) == 400


def test_receiver_keeps_the_addresses_of_live_devices(receiver: dict[str, Any]) -> None:
    receiver["apply"](EventType.LEASE_ISSUED, LEASE)
    assert devices(receiver["database"]) == [("1", 2, "sip:gencred1@sip.example.com")]

    receiver["apply"](EventType.LEASE_REVOKED, {**LEASE, "version": 3})
    assert devices(receiver["database"]) == [("1", 3, None)]

    receiver["apply"](EventType.LEASE_ISSUED, LEASE)  # replayed
    assert devices(receiver["database"]) == [("1", 3, None)]


def test_page_lists_all_types() -> None:
    assert set(re.findall(r"`(dialtone\.[a-z_]+\.[a-z]+)`", PAGE)) == {event_type.value for event_type in EventType}
