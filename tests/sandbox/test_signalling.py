"""The sandbox's signalling WebSocket, frame by frame: what the browser SDK sends, and the responses it needs."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect

from app.sandbox.account import DEMO_CONNECTION
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.signalling import Frame, SignallingClient, open_page
from tests.support.waiting import DAY, HOUR, eventually


def new_credential(telnyx: Telnyx, **fields: Any) -> Frame:
    return telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION, **fields})


def token_of(telnyx: Telnyx, credential: Frame) -> str:
    return telnyx.sandbox.account.mint_token(credential["id"])


async def registered(telnyx: Telnyx, open_page: SignallingClient) -> str:
    credential = new_credential(telnyx)
    await open_page.ask("login", login_token=token_of(telnyx, credential))
    name: str = credential["sip_username"]
    return name


async def test_valid_login_token_registers(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with open_page(telnyx) as alice:
        answer = await alice.ask("login", login_token=token_of(telnyx, credential))
        state = await alice.ask("telnyx_rtc.gatewayState")

        assert answer["result"]["message"] == "logged in"
        assert answer["voice_sdk_id"].startswith("VSDK")
        assert state["result"]["params"]["state"] == "REGED"
        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]
    await eventually(lambda: telnyx.sandbox.exchange.registrations() == [])


async def test_username_and_password_register_and_a_wrong_password_is_rejected(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with open_page(telnyx) as desk:
        wrong = await desk.ask("login", login=credential["sip_username"], passwd="wrong")
        right = await desk.ask("login", login=credential["sip_username"], passwd=credential["sip_password"])

    assert wrong["error"] == {"code": -32001, "message": "Login Incorrect"}
    assert right["result"]["message"] == "logged in"


@pytest.mark.parametrize("why", ["malformed", "forged", "expired", "deleted", "empty"])
async def test_invalid_token_is_error_minus_32001(telnyx: Telnyx, why: str) -> None:
    credential = new_credential(telnyx)
    token = token_of(telnyx, credential)
    match why:
        case "malformed":
            token = "not.a.token"
        case "forged":
            token = token[:-8] + "AAAAAAAA"
        case "expired":
            telnyx.clock.advance(2 * DAY)
        case "deleted":
            telnyx.sandbox.account.delete_credential(credential["id"])
        case "empty":
            token = ""
    async with open_page(telnyx) as alice:
        answer = await alice.ask("login", login_token=token)

    assert answer["error"] == {"code": -32001, "message": "JWT token authentication failed"}


async def test_new_credential_is_rejected_until_it_has_propagated() -> None:
    async with telnyx_sandbox(propagation=HOUR) as telnyx:
        token = token_of(telnyx, new_credential(telnyx))
        async with open_page(telnyx) as alice:
            early = await alice.ask("login", login_token=token)
            telnyx.clock.advance(HOUR)
            later = await alice.ask("login", login_token=token)

    assert early["error"]["code"] == -32001
    assert later["result"]["message"] == "logged in"


async def test_request_before_login_is_error_minus_32000_and_pings_are_answered(telnyx: Telnyx) -> None:
    async with open_page(telnyx) as alice:
        early = await alice.ask("telnyx_rtc.invite", sdp="v=0")
        ping = await alice.ask("telnyx_rtc.ping")

    assert early["error"] == {"code": -32000, "message": "Authentication Required"}
    assert "result" in ping


async def test_newest_registration_replaces_the_older_one(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with open_page(telnyx) as older, open_page(telnyx) as newer:
        await older.ask("login", login_token=token_of(telnyx, credential))
        await newer.ask("login", login_token=token_of(telnyx, credential))

        assert (await older.receive("telnyx_rtc.punt"))["reason"] == "registered elsewhere"
        assert await older.is_closed()
        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]


async def test_login_on_an_open_socket_keeps_the_registration(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with open_page(telnyx) as alice:
        await alice.ask("login", login_token=token_of(telnyx, credential))
        again = await alice.ask("login", login_token=token_of(telnyx, credential), reconnection=True)

        assert again["result"]["message"] == "logged in"
        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_deleted_credential_ends_its_registration(telnyx: Telnyx, how: str) -> None:
    credential = new_credential(telnyx, expires_at=(telnyx.clock() + timedelta(hours=1)).isoformat())
    async with open_page(telnyx) as alice:
        await alice.ask("login", login_token=token_of(telnyx, credential))
        if how == "deleted":
            telnyx.sandbox.account.delete_credential(credential["id"])
        else:
            telnyx.clock.advance(timedelta(hours=2))

        assert await alice.is_closed()
    await eventually(lambda: telnyx.sandbox.exchange.registrations() == [])


async def test_sandbox_can_keep_the_registration_of_a_deleted_credential() -> None:
    async with telnyx_sandbox(drops_deleted=False) as telnyx, open_page(telnyx) as alice:
        credential = new_credential(telnyx)
        await alice.ask("login", login_token=token_of(telnyx, credential))
        telnyx.sandbox.account.delete_credential(credential["id"])
        await asyncio.sleep(1)

        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]


@pytest.mark.parametrize("uri", ["{}", "sip:{}@sip.telnyx.com"])
async def test_call_is_relayed_between_two_pages(telnyx: Telnyx, uri: str) -> None:
    async with open_page(telnyx) as alice, open_page(telnyx) as bob:
        alices, bobs = await registered(telnyx, alice), await registered(telnyx, bob)

        created = await alice.ask(
            "telnyx_rtc.invite",
            sdp="OFFER",
            dialogParams={"callID": "a1", "destination_number": uri.format(bobs)},
        )
        ringing = await alice.receive("telnyx_rtc.ringing")
        invite = await bob.receive("telnyx_rtc.invite")
        answered = await bob.ask("telnyx_rtc.answer", sdp="ANSWER", dialogParams={"callID": invite["callID"]})
        answer = await alice.receive("telnyx_rtc.answer")
        held = await alice.ask("telnyx_rtc.modify", action="hold", dialogParams={"callID": "a1"})
        await alice.ask("telnyx_rtc.info", dtmf="5", dialogParams={"callID": "a1"})
        tone = await bob.receive("telnyx_rtc.info")
        await bob.ask("telnyx_rtc.bye", cause="USER_BUSY", causeCode=17, dialogParams={"callID": invite["callID"]})
        bye = await alice.receive("telnyx_rtc.bye")

    assert created["result"]["message"] == "CALL CREATED"
    assert ringing["callID"] == "a1"
    assert (invite["sdp"], invite["caller_id_number"]) == ("OFFER", alices)
    assert invite["callID"] != "a1"
    assert answered["result"]["message"] == "CALL ANSWERED"
    assert (answer["callID"], answer["sdp"]) == ("a1", "ANSWER")
    assert held["result"]["holdState"] == "held"
    assert (tone["dtmf"], tone["callID"]) == ("5", invite["callID"])
    assert (bye["callID"], bye["cause"], bye["causeCode"]) == ("a1", "USER_BUSY", 17)


async def test_unknown_callee_is_rejected_as_telnyx_does(telnyx: Telnyx) -> None:
    async with open_page(telnyx) as alice:
        await registered(telnyx, alice)
        await alice.ask(
            "telnyx_rtc.invite", sdp="OFFER", dialogParams={"callID": "a1", "destination_number": "unknown"}
        )
        bye = await alice.receive("telnyx_rtc.bye")

    assert (bye["cause"], bye["causeCode"], bye["sipCode"]) == ("UNALLOCATED_NUMBER", 1, 404)


async def test_closed_socket_ends_its_calls(telnyx: Telnyx) -> None:
    async with open_page(telnyx) as bob:
        bobs = await registered(telnyx, bob)
        async with open_page(telnyx) as alice:
            await registered(telnyx, alice)
            await alice.ask("telnyx_rtc.invite", sdp="OFFER", dialogParams={"callID": "a1", "destination_number": bobs})
            invite = await bob.receive("telnyx_rtc.invite")
        bye = await bob.receive("telnyx_rtc.bye")

    assert bye["callID"] == invite["callID"]


@pytest.mark.parametrize("text", ["", "not json", "[]", "5", '{"id": 1}', '{"method": 5}', '{"method": "login"}'])
async def test_malformed_frames_do_not_end_a_session(telnyx: Telnyx, text: str) -> None:
    async with connect(telnyx.url.replace("http", "ws").removesuffix("/v2"), proxy=None) as socket:
        await socket.send(text)
        assert "result" in await SignallingClient(socket).ask("telnyx_rtc.ping")
