"""What users see and change of their own devices, and nobody else's."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.stage import HOUR, Service, Telnyx, eventually, service_in_front_of


async def test_a_users_devices_come_in_pages_newest_first(telnyx: Telnyx, database: str) -> None:
    async with service_in_front_of(telnyx, database) as service:
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


async def test_a_list_and_a_look_hold_nothing_to_log_in_with(service: Service) -> None:
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
async def test_another_users_id_answers_exactly_as_an_unknown_one(service: Service, call: tuple[str, str]) -> None:
    method, tail = call
    made = (await service.issue("laptop", user="bob")).json()
    content = {"json": {"label": "mine now"}} if method == "PATCH" else {}

    foreign = await service.ask(method, f"/{made['id']}{tail}", user="alice", **content)
    unknown = await service.ask(method, f"/{'0' * 32}{tail}", user="alice", **content)

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert (await service.ask("GET", f"/{made['id']}", user="bob")).json()["state"] == "active"


async def test_another_users_cursor_opens_nobody_elses_page(service: Service) -> None:
    for number in range(3):
        await service.issue(f"tab-{number}", user="bob")
    cursor = (await service.ask("GET", user="bob", params={"limit": "1"})).json()["next_cursor"]

    assert (await service.ask("GET", user="alice", params={"cursor": cursor})).json()["data"] == []


async def test_a_label_can_be_changed_and_removed(service: Service) -> None:
    made = (await service.issue("laptop", label="old")).json()

    changed = (await service.ask("PATCH", f"/{made['id']}", json={"label": "Büro ☎"})).json()
    untouched = (await service.ask("PATCH", f"/{made['id']}", json={})).json()
    removed = (await service.ask("PATCH", f"/{made['id']}", json={"label": None})).json()

    assert [item["label"] for item in (changed, untouched, removed)] == ["Büro ☎", "Büro ☎", None]


async def test_a_shorter_lifetime_is_set_at_telnyx_and_ends_the_old_answer(service: Service) -> None:
    made = (await service.issue("laptop")).json()

    changed = (await service.ask("PATCH", f"/{made['id']}", json={"ttl_seconds": 3600})).json()
    again = (await service.issue("laptop")).json()

    (credential,) = service.telnyx.sandbox.account.credentials.values()
    for body in (changed, again):
        assert datetime.fromisoformat(body["expires_at"]) <= credential.expires_at
    assert credential.expires_at - service.clock() <= HOUR


async def test_a_lifetime_that_telnyx_did_not_take_is_never_promised_longer(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    service.telnyx.fail("status", method="PATCH", status=503)

    refused = await service.ask("PATCH", f"/{made['id']}", json={"ttl_seconds": 3600})
    again = (await service.issue("laptop")).json()

    (credential,) = service.telnyx.sandbox.account.credentials.values()
    assert (refused.status_code, refused.json()["code"]) == (503, "telnyx_unavailable")
    assert datetime.fromisoformat(again["expires_at"]) <= credential.expires_at
    assert datetime.fromisoformat(again["expires_at"]) - service.clock() <= HOUR


async def test_a_device_that_has_ended_cannot_be_changed(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    await service.ask("DELETE", f"/{made['id']}")

    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", "", {"json": {"ttl_seconds": 600}}),
        ("POST", "/token", {}),
    ]
    for method, tail, content in calls:
        answer = await service.ask(method, f"/{made['id']}{tail}", **content)
        assert (answer.status_code, answer.json()["code"]) == (410, "credential_ended")


async def test_an_expired_device_says_so(service: Service) -> None:
    made = (await service.issue("laptop", ttl_seconds=60)).json()
    service.clock.advance(timedelta(minutes=2))

    assert (await service.ask("GET", f"/{made['id']}")).json()["state"] == "expired"


# -- logging out ------------------------------------------------------------------------------------------------


async def test_logging_out_deletes_the_credential_at_telnyx(service: Service) -> None:
    made = (await service.issue("laptop")).json()

    answer = await service.ask("DELETE", f"/{made['id']}")
    again = await service.ask("DELETE", f"/{made['id']}")

    assert (answer.status_code, again.status_code) == (204, 204)
    assert service.telnyx.live() == []
    assert (await service.ask("GET", f"/{made['id']}")).json()["state"] == "revoked"


async def test_a_logged_out_device_gets_a_new_identity_when_it_comes_back(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    await service.ask("DELETE", f"/{made['id']}")

    back = await service.issue("laptop")

    assert back.status_code == 201
    assert back.json()["sip_username"] != made["sip_username"]


async def test_logging_out_everywhere_leaves_other_users_alone(service: Service) -> None:
    for device in ("laptop", "phone", "desk"):
        await service.issue(device)
    bobs = (await service.issue("laptop", user="bob")).json()

    answer = await service.ask("DELETE")

    assert answer.status_code == 204
    assert (await service.ask("GET")).json()["data"] == []
    assert (await service.ask("GET", f"/{bobs['id']}", user="bob")).json()["state"] == "active"
    assert len(service.telnyx.live()) == 1


async def test_a_logout_that_telnyx_does_not_confirm_is_accepted_and_seen_through_later(service: Service) -> None:
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


async def test_a_credential_that_is_gone_already_counts_as_logged_out(service: Service) -> None:
    made = (await service.issue("laptop")).json()
    service.telnyx.sandbox.account.credentials.clear()

    assert (await service.ask("DELETE", f"/{made['id']}")).status_code == 204


async def test_a_login_that_is_being_made_while_its_device_logs_out_leaves_no_credential(service: Service) -> None:
    service.telnyx.fail("delay", method="POST", path="telephony_credentials$", seconds=0.4, after_commit=True)
    asking = asyncio.create_task(service.issue("laptop"))
    await eventually(lambda: service.telnyx.created() == 1)
    (pending,) = (await service.ask("GET")).json()["data"]

    early = await service.ask("PATCH", f"/{pending['id']}", json={"label": "too early"})
    first = await service.ask("DELETE", f"/{pending['id']}")
    answer = await asking

    # The request that was under way starts afresh, after the logout: it gets a new credential, and the old one is gone.
    assert pending["state"] == "pending"
    assert (early.status_code, early.json()["code"]) == (503, "issue_in_progress")
    assert first.status_code in (202, 204)
    assert answer.status_code == 201
    assert answer.json()["id"] != pending["id"]
    assert len(service.telnyx.live()) == 1


async def test_a_logout_on_one_replica_reaches_the_memory_of_the_other_within_two_seconds(
    telnyx: Telnyx, database: str
) -> None:
    async with service_in_front_of(telnyx, database) as here, service_in_front_of(telnyx, database) as there:
        made = (await here.issue("laptop")).json()
        assert (await there.issue("laptop")).json()["id"] == made["id"]
        await here.ask("DELETE", f"/{made['id']}")

        await asyncio.sleep(2)

        assert (await there.issue("laptop")).json()["id"] != made["id"]
