"""Users list, change and log out their own devices only."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.waiting import HOUR, LoopClock


async def test_devices_are_listed_in_pages_newest_first(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        for number in range(5):
            await service.issue(f"tab-{number}")

        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await service.ask("GET", params={"limit": "2", **cursor})).json()
            seen += [item["device_id"] for item in page["data"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}

        assert seen == [f"tab-{number}" for number in (4, 3, 2, 1, 0)]


async def test_device_list_and_details_contain_no_login_data(service: Service) -> None:
    made = (await service.issue("laptop", label="Work laptop")).json()

    shown = (await service.ask("GET", f"/{made['id']}")).json()
    (listed,) = (await service.ask("GET")).json()["data"]

    assert {name: shown[name] for name in ("label", "platform", "state")} == {
        "label": "Work laptop",
        "platform": "browser",
        "state": "active",
    }
    assert shown.keys() == listed.keys()
    assert not {"login_token", "login", "password", "refresh_after"} & set(shown)


@pytest.mark.parametrize("call", [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/token")])
async def test_device_id_of_another_user_is_unknown(service: Service, call: tuple[str, str]) -> None:
    method, tail = call
    made = (await service.issue("laptop", user="bob")).json()
    content = {"json": {"label": "mine now"}} if method == "PATCH" else {}

    foreign = await service.ask(method, f"/{made['id']}{tail}", user="alice", **content)
    unknown = await service.ask(method, f"/{'0' * 32}{tail}", user="alice", **content)

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert (await service.ask("GET", f"/{made['id']}", user="bob")).json()["state"] == "active"


async def test_cursor_of_another_user_is_rejected(service: Service) -> None:
    for number in range(3):
        await service.issue(f"tab-{number}", user="bob")
    cursor = (await service.ask("GET", user="bob", params={"limit": "1"})).json()["next_cursor"]

    assert (await service.ask("GET", user="alice", params={"cursor": cursor})).json()["data"] == []


async def test_label_can_be_changed_and_removed(service: Service) -> None:
    made = (await service.issue("laptop", label="old")).json()

    changed = (await service.ask("PATCH", f"/{made['id']}", json={"label": "Büro ☎"})).json()
    untouched = (await service.ask("PATCH", f"/{made['id']}", json={})).json()
    removed = (await service.ask("PATCH", f"/{made['id']}", json={"label": None})).json()

    assert [item["label"] for item in (changed, untouched, removed)] == ["Büro ☎", "Büro ☎", None]


async def test_shorter_lifetime_is_set_at_telnyx_and_invalidates_the_cached_login(service: Service) -> None:
    made = (await service.issue("laptop")).json()

    changed = (await service.ask("PATCH", f"/{made['id']}", json={"ttl_seconds": 3600})).json()
    again = (await service.issue("laptop")).json()

    (credential,) = service.telnyx.sandbox.account.credentials.values()
    for body in (changed, again):
        assert datetime.fromisoformat(body["expires_at"]) <= credential.expires_at
    assert credential.expires_at - service.clock() <= HOUR


async def test_failed_lifetime_change_keeps_the_shorter_lifetime(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    service.telnyx.fail("status", method="PATCH", status=503)

    refused = await service.ask("PATCH", f"/{made['id']}", json={"ttl_seconds": 3600})
    again = (await service.issue("laptop")).json()

    (credential,) = service.telnyx.sandbox.account.credentials.values()
    assert (refused.status_code, refused.json()["code"]) == (503, "telnyx_unavailable")
    assert datetime.fromisoformat(again["expires_at"]) <= credential.expires_at
    assert datetime.fromisoformat(again["expires_at"]) - service.clock() <= HOUR


async def test_ended_device_cannot_be_changed(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    await service.ask("DELETE", f"/{made['id']}")

    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", "", {"json": {"ttl_seconds": 600}}),
        ("POST", "/token", {}),
    ]
    for method, tail, content in calls:
        answer = await service.ask(method, f"/{made['id']}{tail}", **content)
        assert (answer.status_code, answer.json()["code"]) == (410, "credential_ended")


async def test_expired_device_is_shown_as_expired(service: Service) -> None:
    made = (await service.issue("laptop", ttl_seconds=60)).json()
    service.clock.advance(timedelta(minutes=2))

    assert (await service.ask("GET", f"/{made['id']}")).json()["state"] == "expired"


# -- logging out ------------------------------------------------------------------------------------------------


async def test_logout_deletes_the_credential_at_telnyx(service: Service) -> None:
    made = (await service.issue("laptop")).json()

    answer = await service.ask("DELETE", f"/{made['id']}")
    again = await service.ask("DELETE", f"/{made['id']}")

    assert (answer.status_code, again.status_code) == (204, 204)
    assert service.telnyx.live() == []
    assert (await service.ask("GET", f"/{made['id']}")).json()["state"] == "revoked"


async def test_logged_out_device_gets_a_new_sip_identity(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    await service.ask("DELETE", f"/{made['id']}")

    back = await service.issue("laptop")

    assert back.status_code == 201
    assert back.json()["sip_username"] != made["sip_username"]


async def test_logout_everywhere_does_not_affect_other_users(service: Service) -> None:
    for device in ("laptop", "phone", "desk"):
        await service.issue(device)
    bobs = (await service.issue("laptop", user="bob")).json()

    answer = await service.ask("DELETE")

    assert answer.status_code == 204
    assert (await service.ask("GET")).json()["data"] == []
    assert (await service.ask("GET", f"/{bobs['id']}", user="bob")).json()["state"] == "active"
    assert len(service.telnyx.live()) == 1


async def test_unconfirmed_logout_is_202_and_retried_later(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    service.telnyx.fail("status", method="DELETE", status=503, times=3)

    answer = await service.ask("DELETE", f"/{made['id']}")
    refused = await service.ask("POST", f"/{made['id']}/token")
    state = (await service.ask("GET", f"/{made['id']}")).json()["state"]
    again = await service.ask("DELETE", f"/{made['id']}")

    assert (answer.status_code, answer.json()) == (202, {"state": "revoking"})
    assert refused.status_code == 410
    assert state == "revoking"
    assert again.status_code == 204
    assert service.telnyx.live() == []


async def test_missing_credential_counts_as_logged_out(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    service.telnyx.sandbox.account.credentials.clear()

    assert (await service.ask("DELETE", f"/{made['id']}")).status_code == 204


async def test_logout_during_a_create_leaves_no_credential(service: Service) -> None:
    async with service.telnyx.held("POST", "telephony_credentials$", after_commit=True) as create:
        asking = asyncio.create_task(service.issue("laptop"))
        await create.arrived.wait()
        (pending,) = (await service.ask("GET")).json()["data"]

        early = await service.ask("PATCH", f"/{pending['id']}", json={"label": "too early"})
        first = await service.ask("DELETE", f"/{pending['id']}")
    answer = await asking

    # The request in flight starts again after the logout: it gets a new credential, and the old one is deleted.
    assert pending["state"] == "pending"
    assert (early.status_code, early.json()["code"]) == (503, "issue_in_progress")
    assert first.status_code in (202, 204)
    assert answer.status_code == 201
    assert answer.json()["id"] != pending["id"]
    assert len(service.telnyx.live()) == 1


async def test_logout_reaches_the_cache_of_another_replica_within_two_seconds(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as here, running_service(telnyx, database) as there:
        made = (await here.issue("laptop")).json()
        assert (await there.issue("laptop")).json()["id"] == made["id"]
        await here.ask("DELETE", f"/{made['id']}")

        async with LoopClock() as clock:
            while (await there.issue("laptop")).json()["id"] == made["id"]:
                assert clock.seconds < 2
                await asyncio.sleep(0.02)
