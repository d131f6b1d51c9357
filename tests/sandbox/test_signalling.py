"""The signalling half, frame by frame: what the browser SDK sends, and what it must hear."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.sandbox.account import DEMO_CONNECTION
from tests.stage import DAY, Telnyx, telnyx_sandbox

Frame = dict[str, Any]


class Page:
    """What a page's SDK does on its socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    async def ask(self, method: str, **params: Any) -> Frame:
        """Send a request; its answer."""
        self._number += 1
        await self._socket.send(
            json.dumps({"jsonrpc": "2.0", "id": f"c{self._number}", "method": method, "params": params})
        )
        while True:
            frame = await self._next()
            if frame.get("id") == f"c{self._number}":
                return frame

    async def hear(self, method: str) -> Frame:
        """The parameters of the server's next request of that kind."""
        while True:
            frame = await self._next()
            if frame.get("method") == method:
                params: Frame = frame["params"]
                return params

    async def is_closed(self) -> bool:
        try:
            while True:
                await self._next()
        except ConnectionClosed:
            return True
        except TimeoutError:
            return False

    async def _next(self) -> Frame:
        frame: Frame = json.loads(await asyncio.wait_for(self._socket.recv(), 3))
        return frame


@asynccontextmanager
async def page(telnyx: Telnyx) -> AsyncIterator[Page]:
    async with connect(telnyx.url.replace("http", "ws").removesuffix("/v2"), proxy=None) as socket:
        yield Page(socket)


def new_credential(telnyx: Telnyx, **fields: Any) -> Frame:
    return telnyx.sandbox.account.create_credential({"connection_id": DEMO_CONNECTION, **fields})


def token_of(telnyx: Telnyx, credential: Frame) -> str:
    return telnyx.sandbox.account.mint_token(credential["id"])


async def registered(telnyx: Telnyx, page: Page) -> str:
    credential = new_credential(telnyx)
    await page.ask("login", login_token=token_of(telnyx, credential))
    name: str = credential["sip_username"]
    return name


async def test_a_good_token_registers(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with page(telnyx) as alice:
        answer = await alice.ask("login", login_token=token_of(telnyx, credential))
        state = await alice.ask("telnyx_rtc.gatewayState")

        assert answer["result"]["message"] == "logged in"
        assert answer["voice_sdk_id"].startswith("VSDK")
        assert state["result"]["params"]["state"] == "REGED"
        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]
    await asyncio.sleep(0.05)
    assert telnyx.sandbox.exchange.registrations() == []


async def test_a_username_and_password_register_and_a_wrong_one_is_refused(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with page(telnyx) as desk:
        wrong = await desk.ask("login", login=credential["sip_username"], passwd="wrong")
        right = await desk.ask("login", login=credential["sip_username"], passwd=credential["sip_password"])

    assert wrong["error"] == {"code": -32001, "message": "Login Incorrect"}
    assert right["result"]["message"] == "logged in"


@pytest.mark.parametrize("why", ["malformed", "forged", "expired", "deleted", "empty"])
async def test_a_bad_token_is_minus_32001_and_never_minus_32000(telnyx: Telnyx, why: str) -> None:
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
    async with page(telnyx) as alice:
        answer = await alice.ask("login", login_token=token)

    assert answer["error"] == {"code": -32001, "message": "JWT token authentication failed"}


async def test_a_brand_new_credential_is_refused_until_it_has_spread() -> None:
    async with telnyx_sandbox(propagation=timedelta(seconds=5)) as telnyx:
        token = token_of(telnyx, new_credential(telnyx))
        async with page(telnyx) as alice:
            early = await alice.ask("login", login_token=token)
            telnyx.clock.advance(timedelta(seconds=5))
            later = await alice.ask("login", login_token=token)

    assert early["error"]["code"] == -32001
    assert later["result"]["message"] == "logged in"


async def test_a_request_before_the_login_is_minus_32000_and_pings_are_always_answered(telnyx: Telnyx) -> None:
    async with page(telnyx) as alice:
        early = await alice.ask("telnyx_rtc.invite", sdp="v=0")
        ping = await alice.ask("telnyx_rtc.ping")

    assert early["error"] == {"code": -32000, "message": "Authentication Required"}
    assert "result" in ping


async def test_the_newest_registration_wins_and_the_older_is_told(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with page(telnyx) as older, page(telnyx) as newer:
        await older.ask("login", login_token=token_of(telnyx, credential))
        await newer.ask("login", login_token=token_of(telnyx, credential))

        assert (await older.hear("telnyx_rtc.punt"))["reason"] == "registered elsewhere"
        assert await older.is_closed()
        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]


async def test_a_login_on_a_live_socket_keeps_the_registration(telnyx: Telnyx) -> None:
    credential = new_credential(telnyx)
    async with page(telnyx) as alice:
        await alice.ask("login", login_token=token_of(telnyx, credential))
        again = await alice.ask("login", login_token=token_of(telnyx, credential), reconnection=True)

        assert again["result"]["message"] == "logged in"
        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_a_credential_that_ends_takes_its_registration_along(telnyx: Telnyx, how: str) -> None:
    credential = new_credential(telnyx, expires_at=(telnyx.clock() + timedelta(hours=1)).isoformat())
    async with page(telnyx) as alice:
        await alice.ask("login", login_token=token_of(telnyx, credential))
        if how == "deleted":
            telnyx.sandbox.account.delete_credential(credential["id"])
        else:
            telnyx.clock.advance(timedelta(hours=2))

        assert await alice.is_closed()
    await asyncio.sleep(0.05)
    assert telnyx.sandbox.exchange.registrations() == []


async def test_a_sandbox_may_leave_a_page_registered_when_its_credential_is_deleted() -> None:
    async with telnyx_sandbox(drops_deleted=False) as telnyx, page(telnyx) as alice:
        credential = new_credential(telnyx)
        await alice.ask("login", login_token=token_of(telnyx, credential))
        telnyx.sandbox.account.delete_credential(credential["id"])
        await asyncio.sleep(1)

        assert telnyx.sandbox.exchange.registrations() == [credential["sip_username"]]


@pytest.mark.parametrize("uri", ["{}", "sip:{}@sip.telnyx.com"])
async def test_a_call_goes_from_page_to_page_and_back(telnyx: Telnyx, uri: str) -> None:
    async with page(telnyx) as alice, page(telnyx) as bob:
        alices, bobs = await registered(telnyx, alice), await registered(telnyx, bob)

        created = await alice.ask(
            "telnyx_rtc.invite",
            sdp="OFFER",
            dialogParams={"callID": "a1", "destination_number": uri.format(bobs)},
        )
        ringing = await alice.hear("telnyx_rtc.ringing")
        invite = await bob.hear("telnyx_rtc.invite")
        answered = await bob.ask("telnyx_rtc.answer", sdp="ANSWER", dialogParams={"callID": invite["callID"]})
        answer = await alice.hear("telnyx_rtc.answer")
        held = await alice.ask("telnyx_rtc.modify", action="hold", dialogParams={"callID": "a1"})
        await alice.ask("telnyx_rtc.info", dtmf="5", dialogParams={"callID": "a1"})
        tone = await bob.hear("telnyx_rtc.info")
        await bob.ask("telnyx_rtc.bye", cause="USER_BUSY", causeCode=17, dialogParams={"callID": invite["callID"]})
        bye = await alice.hear("telnyx_rtc.bye")

    assert created["result"]["message"] == "CALL CREATED"
    assert ringing["callID"] == "a1"
    assert (invite["sdp"], invite["caller_id_number"]) == ("OFFER", alices)
    assert invite["callID"] != "a1"
    assert answered["result"]["message"] == "CALL ANSWERED"
    assert (answer["callID"], answer["sdp"]) == ("a1", "ANSWER")
    assert held["result"]["holdState"] == "held"
    assert (tone["dtmf"], tone["callID"]) == ("5", invite["callID"])
    assert (bye["callID"], bye["cause"], bye["causeCode"]) == ("a1", "USER_BUSY", 17)


async def test_an_unknown_callee_is_refused_as_the_real_one_does(telnyx: Telnyx) -> None:
    async with page(telnyx) as alice:
        await registered(telnyx, alice)
        await alice.ask("telnyx_rtc.invite", sdp="OFFER", dialogParams={"callID": "a1", "destination_number": "nobody"})
        bye = await alice.hear("telnyx_rtc.bye")

    assert (bye["cause"], bye["causeCode"], bye["sipCode"]) == ("UNALLOCATED_NUMBER", 1, 404)


async def test_a_page_that_vanishes_ends_its_calls(telnyx: Telnyx) -> None:
    async with page(telnyx) as bob:
        bobs = await registered(telnyx, bob)
        async with page(telnyx) as alice:
            await registered(telnyx, alice)
            await alice.ask("telnyx_rtc.invite", sdp="OFFER", dialogParams={"callID": "a1", "destination_number": bobs})
            invite = await bob.hear("telnyx_rtc.invite")
        bye = await bob.hear("telnyx_rtc.bye")

    assert bye["callID"] == invite["callID"]


@pytest.mark.parametrize("text", ["", "not json", "[]", "5", '{"id": 1}', '{"method": 5}', '{"method": "login"}'])
async def test_odd_frames_do_not_end_a_session(telnyx: Telnyx, text: str) -> None:
    async with connect(telnyx.url.replace("http", "ws").removesuffix("/v2"), proxy=None) as socket:
        await socket.send(text)
        assert "result" in await Page(socket).ask("telnyx_rtc.ping")
