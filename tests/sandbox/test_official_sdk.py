"""The sandbox with Telnyx's official Python SDK: every operation, paging, and each class of error."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import telnyx as sdk

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from tests.support.http_server import http_client
from tests.support.sandbox import Telnyx
from tests.support.signalling import open_page

Call = Callable[[sdk.Telnyx], Any]


async def by_sdk(telnyx: Telnyx, call: Call, *, key: str = DEMO_KEY) -> Any:
    """Run a call of the synchronous SDK in a thread."""

    def run() -> Any:
        with sdk.Telnyx(api_key=key, base_url=telnyx.url, max_retries=0, timeout=30) as client:
            return call(client)

    return await asyncio.to_thread(run)


async def test_credential_can_be_created_updated_and_deleted(telnyx: Telnyx) -> None:
    def life(client: sdk.Telnyx) -> None:
        made = client.telephony_credentials.create(
            connection_id=DEMO_CONNECTION, name="desk", tag="alice", expires_at="2099-09-18T00:00:00"
        ).data
        assert made is not None
        assert made.id is not None
        assert made.sip_username is not None
        assert made.sip_username.startswith("gencred")
        assert made.resource_id == f"connection:{DEMO_CONNECTION}"
        assert made.expires_at == "2099-09-18T00:00:00"

        token = client.telephony_credentials.create_token(made.id)
        assert token.count(".") == 2

        changed = client.telephony_credentials.update(made.id, name="desk 2", expires_at="2098-01-01T00:00:00Z").data
        assert changed is not None
        assert (changed.name, changed.sip_username) == ("desk 2", made.sip_username)

        shown = client.telephony_credentials.retrieve(made.id).data
        removed = client.telephony_credentials.delete(made.id).data
        assert shown is not None
        assert removed is not None
        assert shown.id == removed.id == made.id
        with pytest.raises(sdk.NotFoundError):
            client.telephony_credentials.retrieve(made.id)

    await by_sdk(telnyx, life)


async def test_list_returns_all_pages_and_applies_every_filter(telnyx: Telnyx) -> None:
    def lists(client: sdk.Telnyx) -> None:
        create = client.telephony_credentials.create
        made = [create(connection_id=DEMO_CONNECTION, name=f"n{n}", tag=f"t{n % 2}").data for n in range(120)]
        everything = list(client.telephony_credentials.list())
        first = client.telephony_credentials.list()

        assert len(everything) == len({item.id for item in everything}) == 120
        assert first.meta is not None
        shown = first.meta.model_dump()
        assert (shown["page_size"], shown["total_pages"], shown["total_results"]) == (50, 3, 120)
        one = made[7]
        assert one is not None
        filters: list[tuple[Any, int]] = [
            ({"name": "n7"}, 1),
            ({"tag": "t1"}, 60),
            ({"sip_username": one.sip_username}, 1),
            ({"resource_id": f"connection:{DEMO_CONNECTION}"}, 120),
            ({"status": "active"}, 120),
            ({"status": "expired"}, 0),
        ]
        for wanted, count in filters:
            assert len(list(client.telephony_credentials.list(filter=wanted))) == count

    await by_sdk(telnyx, lists)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda c: c.telephony_credentials.retrieve("nope"), sdk.NotFoundError, id="unknown id"),
        pytest.param(lambda c: c.telephony_credentials.create_token("nope"), sdk.NotFoundError, id="token of none"),
        pytest.param(
            lambda c: c.telephony_credentials.create(connection_id="1"),
            sdk.UnprocessableEntityError,
            id="no connection",
        ),
        pytest.param(
            lambda c: c.telephony_credentials.create(connection_id=DEMO_CONNECTION, expires_at="soon"),
            sdk.UnprocessableEntityError,
            id="bad time",
        ),
        pytest.param(lambda c: c.telephony_credentials.list(page_size=251), sdk.BadRequestError, id="page too large"),
    ],
)
async def test_invalid_request_raises_the_sdk_error_class(telnyx: Telnyx, call: Call, error: type[Exception]) -> None:
    with pytest.raises(error):
        await by_sdk(telnyx, call)


async def test_wrong_key_is_401_and_too_many_requests_are_429(telnyx: Telnyx) -> None:
    with pytest.raises(sdk.AuthenticationError):
        await by_sdk(telnyx, lambda c: c.telephony_credentials.list(), key="KEY_WRONG")
    telnyx.fail("status", status=429, body='{"errors":[{"code":"10011","title":"Too many requests"}]}')
    with pytest.raises(sdk.RateLimitError):
        await by_sdk(telnyx, lambda c: c.telephony_credentials.list())
    telnyx.fail("status", status=503)
    with pytest.raises(sdk.InternalServerError):
        await by_sdk(telnyx, lambda c: c.telephony_credentials.list())
    telnyx.fail("drop")
    with pytest.raises(sdk.APIConnectionError):
        await by_sdk(telnyx, lambda c: c.telephony_credentials.list())
    telnyx.fail("status", status=403)
    with pytest.raises(sdk.PermissionDeniedError):
        await by_sdk(telnyx, lambda c: c.telephony_credentials.list())


async def test_expired_credential_can_only_be_deleted(telnyx: Telnyx) -> None:
    def expired(client: sdk.Telnyx) -> None:
        from datetime import timedelta

        made = client.telephony_credentials.create(connection_id=DEMO_CONNECTION).data
        assert made is not None
        assert made.id is not None
        telnyx.clock.advance(timedelta(days=365 * 21))
        with pytest.raises(sdk.UnprocessableEntityError) as refusal:
            client.telephony_credentials.update(made.id, expires_at="2099-01-01T00:00:00")
        assert refusal.value.response.json() == {"errors": {"status": "can't update credentials in expired status"}}
        shown = client.telephony_credentials.retrieve(made.id).data
        assert shown is not None
        assert shown.expired is True
        client.telephony_credentials.delete(made.id)

    await by_sdk(telnyx, expired)


async def test_tag_is_limited_to_a_thousand_credentials(telnyx: Telnyx) -> None:
    for _ in range(1000):
        telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION, "tag": "full"})

    with pytest.raises(sdk.UnprocessableEntityError):
        await by_sdk(telnyx, lambda c: c.telephony_credentials.create(connection_id=DEMO_CONNECTION, tag="full"))


async def test_push_credentials_can_be_created_listed_and_deleted(telnyx: Telnyx) -> None:
    def push(client: sdk.Telnyx) -> None:
        ios = client.mobile_push_credentials.create(
            create_mobile_push_credential_request={
                "type": "ios",
                "alias": "app",
                "certificate": "CERTIFICATE",
                "private_key": "PRIVATE KEY",
            }
        ).data
        android = client.mobile_push_credentials.create(
            create_mobile_push_credential_request={
                "type": "android",
                "alias": "droid",
                "project_account_json_file": {"private_key": "K"},
            }
        ).data
        assert ios is not None
        assert android is not None
        assert ios.private_key == "PRIVATE KEY"
        assert [item.id for item in client.mobile_push_credentials.list(filter={"type": "ios"})] == [ios.id]
        assert [item.id for item in client.mobile_push_credentials.list(filter={"alias": "droid"})] == [android.id]
        with pytest.raises(sdk.UnprocessableEntityError, match="already been taken"):
            client.mobile_push_credentials.create(
                create_mobile_push_credential_request={
                    "type": "ios",
                    "alias": "app",
                    "certificate": "C",
                    "private_key": "K",
                }
            )
        client.mobile_push_credentials.delete(ios.id)
        with pytest.raises(sdk.NotFoundError):
            client.mobile_push_credentials.retrieve(ios.id)

    await by_sdk(telnyx, push)
    assert "PRIVATE KEY" not in str(telnyx.sandbox.journal.as_json())


async def test_connections_accept_push_credentials_and_ignore_unknown_fields(telnyx: Telnyx) -> None:
    def connections(client: sdk.Telnyx) -> None:
        made = client.credential_connections.create(
            connection_name="mine", user_name="user1234", password="password1234"
        ).data
        assert made is not None
        assert made.id is not None
        push = client.mobile_push_credentials.create(
            create_mobile_push_credential_request={
                "type": "ios",
                "alias": "a",
                "certificate": "C",
                "private_key": "K",
            }
        ).data
        assert push is not None
        changed = client.credential_connections.update(
            made.id, ios_push_credential_id=push.id, extra_body={"webrtc_enabled": True}
        ).data
        assert changed is not None
        assert changed.ios_push_credential_id == push.id
        assert changed.password == "********"
        assert "webrtc_enabled" not in changed.model_dump()
        assert len(list(client.credential_connections.list())) == 2
        status = client.credential_connections.actions.check_registration_status(made.id).data
        assert status is not None
        assert status.status == "Not Registered"
        client.credential_connections.delete(made.id)
        with pytest.raises(sdk.NotFoundError):
            client.credential_connections.retrieve(made.id)

    await by_sdk(telnyx, connections)


async def test_login_token_payload_is_readable_with_plain_base64(telnyx: Telnyx) -> None:
    """The browser SDK decodes it with `atob`, which does not accept `-` and `_`."""
    made = telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION})

    payloads = [telnyx.sandbox.account.mint_token(made["id"]).split(".")[1] for _ in range(50)]

    assert not any(set(payload) & {"-", "_"} for payload in payloads)


async def test_every_response_has_rate_limit_headers(telnyx: Telnyx) -> None:
    headers = (await by_sdk(telnyx, lambda c: c.telephony_credentials.with_raw_response.list(page_size=1))).headers

    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(headers)


async def test_registration_status_follows_the_signalling_connection(telnyx: Telnyx) -> None:
    credential = telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION})

    def status(client: sdk.Telnyx) -> Any:
        return client.sip_registration_status.list(
            credential_type="telephony_credential", username=credential["sip_username"]
        )

    before = await by_sdk(telnyx, status)
    async with open_page(telnyx) as page:
        await page.ask("login", login_token=telnyx.sandbox.account.mint_token(credential["id"]))
        during = await by_sdk(telnyx, status)

    assert (before.registered, before.sip_registration_status) == (False, "unknown")
    assert (during.registered, during.sip_registration_status) == (True, "registered")
    assert during.sip_registration_details.expires == 3600


async def test_registration_status_of_an_unknown_username_is_not_found(telnyx: Telnyx) -> None:
    def status(client: sdk.Telnyx) -> Any:
        return client.sip_registration_status.list(credential_type="telephony_credential", username="gencredunknown")

    with pytest.raises(sdk.NotFoundError):
        await by_sdk(telnyx, status)


async def test_outbound_voice_profile_of_a_connection_is_readable(telnyx: Telnyx) -> None:
    telnyx.limit_outbound(daily_spend_limit="25.00", daily_spend_limit_enabled=True)

    def read(client: sdk.Telnyx) -> Any:
        connection = client.credential_connections.retrieve(DEMO_CONNECTION).data
        assert connection is not None
        assert connection.outbound is not None
        return client.outbound_voice_profiles.retrieve(str(connection.outbound.outbound_voice_profile_id)).data

    profile = await by_sdk(telnyx, read)

    assert (profile.enabled, profile.daily_spend_limit, profile.concurrent_call_limit) == (True, "25.00", None)
    assert profile.whitelisted_destinations == ["US", "CA"]


async def test_control_sets_and_removes_the_outbound_voice_profile(telnyx: Telnyx) -> None:
    path = f"/sandbox/connections/{DEMO_CONNECTION}/outbound"
    async with http_client(telnyx.url.removesuffix("/v2")) as client:
        given = (await client.put(path, json={"daily_spend_limit": "9"})).json()["outbound_voice_profile_id"]
        removed = (await client.put(path, content="null")).json()["outbound_voice_profile_id"]
        unknown = await client.put("/sandbox/connections/1/outbound", json={})
        empty = await client.put(path)
        no_clock = await client.post("/sandbox/clock", content="3600")

    assert [answer.status_code for answer in (empty, no_clock)] == [422, 422]
    assert telnyx.sandbox.billing.outbound_profile(given)["daily_spend_limit"] == "9"
    assert (removed, unknown.status_code) == (None, 422)
