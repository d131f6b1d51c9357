"""A login at Telnyx's signalling server, as the WebRTC SDK logs in. Only `dialtone doctor --probe` uses it.

The frames follow the SDK (@telnyx/webrtc 2.27): JSON-RPC over a WebSocket in both directions. As the SDK does, the
client answers every request of the server.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from app.adapters.addresses import is_loopback

DEFAULT_HOST = "wss://rtc.telnyx.com"
CONNECT_SECONDS = 5.0
"""Deadline of the connection, with TLS and the WebSocket handshake."""

ANSWER_SECONDS = 5.0
"""Deadline of each response, and of the registration after a login."""

GATEWAY_SECONDS = 1.0
"""Interval at which the state of the registration is requested."""

MAX_FRAME_BYTES = 64 * 1024
"""Limits the memory of an unexpected response."""

REGISTERED = frozenset({"REGED", "REGISTER"})
"""States of the gateway in which the device can make and receive calls."""

LOGIN_REJECTED = (-32001, -32000)
"""Error codes of a rejected login."""

Frame = dict[str, Any]


class SignallingFailed(Exception):
    """The signalling server is unreachable, or its response is unexpected. The message contains no secret."""


def signalling_url(rtc_host: str | None, rtc_region: str | None) -> str:
    """The URL that the SDK opens with these options. It adds the region to the address of another host too."""
    host = DEFAULT_HOST if rtc_host is None else rtc_host
    return host if rtc_region is None else host.replace("rtc", f"{rtc_region}.rtc", 1)


class SignallingConnection:
    """One open WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Frame]] = {}

    async def login(self, login_token: str) -> bool:
        """Whether the server accepts the token and registers the device. Raises SignallingFailed."""
        answer = await self._ask("login", login_token=login_token, userVariables={}, loginParams={})
        error = answer.get("error")
        if isinstance(error, dict):
            if error.get("code") in LOGIN_REJECTED:
                return False
            raise SignallingFailed("the signalling server answers the login with an unknown error")
        for _ in range(int(ANSWER_SECONDS / GATEWAY_SECONDS)):
            result = (await self._ask("telnyx_rtc.gatewayState")).get("result")
            params = result.get("params") if isinstance(result, dict) else None
            if isinstance(params, dict) and params.get("state") in REGISTERED:
                return True
            await asyncio.sleep(GATEWAY_SECONDS)
        raise SignallingFailed(f"the device was not registered within {ANSWER_SECONDS:.0f} seconds after its login")

    async def read(self) -> None:
        """Read until the connection closes: resolve answers, and answer the server's requests."""
        async for message in self._socket:
            try:
                frame = json.loads(message.data)
            except (ValueError, TypeError, RecursionError):
                continue
            if not isinstance(frame, dict):
                continue
            if "method" in frame:
                await self._send({"id": frame.get("id"), "result": {"method": str(frame["method"])}})
            elif (future := self._answers.pop(str(frame.get("id")), None)) is not None and not future.done():
                future.set_result(frame)

    async def _ask(self, method: str, **params: Any) -> Frame:
        number = f"probe-{next(self._numbers)}"
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        await self._send({"id": number, "method": method, "params": params})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError:
            raise SignallingFailed("the signalling server does not answer") from None

    async def _send(self, content: Frame) -> None:
        try:
            await self._socket.send_json({"jsonrpc": "2.0", **content})
        except (aiohttp.ClientError, ConnectionError):
            raise SignallingFailed("the signalling server closed the connection") from None


@asynccontextmanager
async def open_signalling(url: str, proxy_url: str | None) -> AsyncIterator[SignallingConnection]:
    """Connect to the signalling server, and close the connection at the end. Raises SignallingFailed."""
    parts = urlsplit(url)
    is_local = is_loopback(parts.hostname or "")
    if parts.scheme != "wss" and not is_local:
        raise SignallingFailed("DIALTONE_RTC_HOST is not wss, so the login would be sent in plain text")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                socket = await session.ws_connect(
                    url, proxy=None if is_local else proxy_url, max_msg_size=MAX_FRAME_BYTES
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise SignallingFailed(f"the signalling server is unreachable ({type(error).__name__})") from None
        connection = SignallingConnection(socket)
        reader = asyncio.create_task(connection.read())
        try:
            yield connection
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await socket.close()
