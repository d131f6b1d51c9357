"""The signalling server of the sandbox: a WebSocket on which the real browser SDK logs in and calls another page.

It only forwards SDP; media flows directly between the pages. The frames follow the SDK (@telnyx/webrtc 2.27) and
Telnyx's documentation of a session: JSON-RPC in both directions, and the SDK acknowledges every request of the server.

Two responses are critical. The error of a rejected login must not be -32000, because the SDK would then retry the login
without end. The SDK's pings must be answered, or it treats the connection as lost.
"""

import asyncio
import itertools
import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.sandbox.account import Account, Clock, StoredCredential

PING_SECONDS = 15.0
"""Approximately the interval of Telnyx's servers. After 20 s without traffic, the SDK sends a ping itself."""

CHECK_SECONDS = 0.5
"""Interval at which registrations are compared with the account."""

Frame = dict[str, Any]


class LoginRejected(Exception):
    """A JSON-RPC error for a login: code and message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.error = {"code": -32001, "message": message}


@dataclass(eq=False)
class SignallingSession:
    """One socket, and the credential that logged in on it."""

    socket: WebSocket
    voice_sdk_id: str = field(default_factory=lambda: f"VSDK{uuid.uuid4().hex[:22]}")
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    credential_id: str | None = None
    sip_username: str | None = None
    registered_at: datetime | None = None
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def reply(self, frame: Frame, result: Frame) -> None:
        await self._send({"id": frame.get("id"), "result": result})

    async def refuse(self, frame: Frame, error: Frame) -> None:
        await self._send({"id": frame.get("id"), "error": error})

    async def request(self, method: str, **params: Any) -> None:
        await self._send({"id": next(self._numbers), "method": method, "params": params})

    async def close(self) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await self.socket.close(1000)

    async def _send(self, content: Frame) -> None:
        if self.socket.application_state is WebSocketState.CONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect):
                await self.socket.send_text(
                    json.dumps({"jsonrpc": "2.0", **content, "voice_sdk_id": self.voice_sdk_id})
                )


@dataclass(eq=False)
class Leg:
    """One end of a call, with the call id that its page uses."""

    session: SignallingSession
    call_id: str
    other: "Leg | None" = None


class SignallingServer:
    """The registrations and the calls between them."""

    def __init__(self, account: Account, clock: Clock, *, propagation: timedelta, drops_deleted: bool = True) -> None:
        self._account = account
        self._clock = clock
        self._propagation = propagation
        self._drops_deleted = drops_deleted
        self._registered: dict[str, SignallingSession] = {}
        self._legs: dict[str, Leg] = {}
        self.logins = 0
        """Number of accepted logins, on new and on open sockets."""
        self.rejected_logins = 0

    def registrations(self) -> list[str]:
        """SIP usernames that are registered now."""
        return list(self._registered)

    def registration(self, sip_username: str) -> SignallingSession | None:
        """The connection that is registered under this name now."""
        return self._registered.get(sip_username)

    async def cut(self, sip_username: str) -> None:
        """Close the connection that is registered under this name, as a network failure would."""
        session = self._registered.pop(sip_username, None)
        if session is not None:
            await session.close()

    async def serve(self, socket: WebSocket) -> None:
        """Serve one page's socket until it closes."""
        await socket.accept()
        session = SignallingSession(socket)
        keeper = asyncio.create_task(self._keep(session))
        try:
            while True:
                with suppress(ValueError):
                    frame = json.loads(await socket.receive_text())
                    if isinstance(frame, dict) and "method" in frame:
                        await self._handle(session, frame)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            keeper.cancel()
            await self._leave(session)

    async def _keep(self, session: SignallingSession) -> None:
        """Send pings, and end a registration whose credential was deleted or has expired."""
        pause = 0.0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            pause += CHECK_SECONDS
            if session.credential_id is not None and self._drops_deleted:
                credential = self._account.credentials.get(session.credential_id)
                if credential is None or credential.is_expired(self._clock()):
                    # Telnyx does not document whether it does this, so a service must not promise it.
                    await session.close()
                    return
            if pause >= PING_SECONDS:
                pause = 0.0
                await session.request("telnyx_rtc.ping")

    async def _handle(self, session: SignallingSession, frame: Frame) -> None:
        method = frame["method"]
        params = frame["params"] if isinstance(frame.get("params"), dict) else {}
        if method == "login":
            await self._login(session, frame, params)
            return
        if method == "telnyx_rtc.ping":
            await session.reply(frame, {"message": "pong"})
            return
        if session.sip_username is None:
            await session.refuse(frame, {"code": -32000, "message": "Authentication Required"})
            return
        match method:
            case "telnyx_rtc.gatewayState":
                await session.reply(frame, {"params": {"state": "REGED"}, "sessid": session.id})
            case "telnyx_rtc.invite":
                await self._invite(session, frame, params)
            case "telnyx_rtc.answer":
                await self._answer(session, frame, params)
            case "telnyx_rtc.bye":
                await self._bye(session, frame, params)
            case "telnyx_rtc.modify":
                await self._modify(session, frame, params)
            case "telnyx_rtc.info" | "telnyx_rtc.candidate" | "telnyx_rtc.endOfCandidates":
                await self._forward(session, frame, params)
            case _:
                await session.reply(frame, {"message": "OK"})

    # -- logging in ---------------------------------------------------------------------------------------------

    async def _login(self, session: SignallingSession, frame: Frame, params: Frame) -> None:
        try:
            credential = self._credential(params)
        except LoginRejected as refusal:
            self.rejected_logins += 1
            await session.refuse(frame, refusal.error)
            return
        session.credential_id, session.sip_username = credential.id, credential.sip_username
        session.registered_at = self._clock()
        older = self._registered.get(credential.sip_username)
        self._registered[credential.sip_username] = session
        if older is not None and older is not session:
            await older.request("telnyx_rtc.punt", reason="registered elsewhere")
            await older.close()
        self.logins += 1
        await session.reply(frame, {"message": "logged in", "sessid": session.id})
        # The SDK ends every call that a clientReady does not name. On an open socket all calls continue.
        calls = [leg.call_id for leg in self._legs.values() if leg.session is session]
        await session.request("telnyx_rtc.clientReady", reattached_sessions=calls)

    def _credential(self, params: Frame) -> StoredCredential:
        """The credential of a login. As at Telnyx, one error means unknown, deleted, expired or too new."""
        token, username, password = params.get("login_token"), params.get("login"), params.get("passwd")
        if isinstance(token, str):
            credential = self._account.credential_of_token(token)
            refusal = LoginRejected("JWT token authentication failed")
        else:
            credential = self._account.credential_of_login(str(username), str(password))
            refusal = LoginRejected("Login Incorrect")
        now = self._clock()
        if credential is None or credential.is_expired(now) or now < credential.created_at + self._propagation:
            raise refusal
        return credential

    # -- calling ------------------------------------------------------------------------------------------------

    async def _invite(self, session: SignallingSession, frame: Frame, params: Frame) -> None:
        dialog = params.get("dialogParams") or {}
        call_id = str(dialog.get("callID", ""))
        await session.reply(frame, {"message": "CALL CREATED", "callID": call_id, "sessid": session.id})
        callee = _username(str(dialog.get("destination_number", "")))
        other = self._registered.get(callee)
        if other is None:
            await session.request(
                "telnyx_rtc.bye",
                callID=call_id,
                cause="UNALLOCATED_NUMBER",
                causeCode=1,
                sipCode=404,
                sipReason="Not Found",
            )
            return
        ours = Leg(session, call_id)
        theirs = Leg(other, str(uuid.uuid4()), ours)
        ours.other = theirs
        self._legs |= {ours.call_id: ours, theirs.call_id: theirs}
        names = {
            "caller_id_name": session.sip_username,
            "caller_id_number": session.sip_username,
            "callee_id_name": callee,
            "callee_id_number": callee,
            "telnyx_session_id": str(uuid.uuid4()),
            "telnyx_leg_id": str(uuid.uuid4()),
        }
        await session.request(
            "telnyx_rtc.ringing",
            callID=call_id,
            display_direction="outbound",
            dialogParams={"custom_headers": []},
            **names,
        )
        await other.request(
            "telnyx_rtc.invite",
            callID=theirs.call_id,
            sdp=params.get("sdp"),
            dialogParams={"custom_headers": dialog.get("custom_headers") or []},
            **names,
        )

    async def _answer(self, session: SignallingSession, frame: Frame, params: Frame) -> None:
        leg = self._leg(params)
        await session.reply(
            frame, {"message": "CALL ANSWERED", "callID": leg.call_id if leg else "", "sessid": session.id}
        )
        if leg is not None and leg.other is not None:
            await leg.other.session.request("telnyx_rtc.answer", callID=leg.other.call_id, sdp=params.get("sdp"))

    async def _bye(self, session: SignallingSession, frame: Frame, params: Frame) -> None:
        leg = self._leg(params)
        await session.reply(frame, {"message": "CALL ENDED", "sessid": session.id})
        if leg is not None:
            await self._hang_up(leg, str(params.get("cause", "NORMAL_CLEARING")), params.get("causeCode", 16))

    async def _modify(self, session: SignallingSession, frame: Frame, params: Frame) -> None:
        leg = self._leg(params)
        action = params.get("action")
        state = {"hold": "held", "unhold": "active"}.get(str(action), "active")
        await session.reply(
            frame,
            {"action": action, "callID": leg.call_id if leg else "", "holdState": state, "sessid": session.id},
        )

    async def _forward(self, session: SignallingSession, frame: Frame, params: Frame) -> None:
        """Forward DTMF and trickled candidates to the other page, with the call id that it uses."""
        leg = self._leg(params)
        await session.reply(frame, {"message": "SENT", "sessid": session.id})
        if leg is not None and leg.other is not None:
            others = {"dialogParams": {"callID": leg.other.call_id}, "callID": leg.other.call_id}
            await leg.other.session.request(frame["method"], **(params | others))

    async def _hang_up(self, leg: Leg, cause: str = "NORMAL_CLEARING", code: Any = 16) -> None:
        self._legs.pop(leg.call_id, None)
        other, leg.other = leg.other, None
        if other is not None:
            self._legs.pop(other.call_id, None)
            other.other = None
            await other.session.request("telnyx_rtc.bye", callID=other.call_id, cause=cause, causeCode=code)

    async def _leave(self, session: SignallingSession) -> None:
        """End the registration and calls of a closed socket. Telnyx keeps calls for some time, for a reconnect."""
        if session.sip_username and self._registered.get(session.sip_username) is session:
            del self._registered[session.sip_username]
        for leg in [leg for leg in self._legs.values() if leg.session is session]:
            await self._hang_up(leg)

    def _leg(self, params: Frame) -> Leg | None:
        dialog = params.get("dialogParams") or {}
        return self._legs.get(str(dialog.get("callID") or params.get("callID") or ""))


def _username(destination: str) -> str:
    """`gencred...`, from itself or from `sip:gencred...@sip.telnyx.com`."""
    return destination.strip().removeprefix("sip:").split("@", 1)[0]
