"""A client of the sandbox's signalling WebSocket, which sends what the browser SDK sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.sandbox import Telnyx

Frame = dict[str, Any]


class SignallingClient:
    """Sends what the browser SDK sends on its socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    async def ask(self, method: str, **params: Any) -> Frame:
        """Send a request and return its response."""
        self._number += 1
        await self._socket.send(
            json.dumps({"jsonrpc": "2.0", "id": f"c{self._number}", "method": method, "params": params})
        )
        while True:
            frame = await self._next()
            if frame.get("id") == f"c{self._number}":
                return frame

    async def receive(self, method: str) -> Frame:
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
        frame: Frame = json.loads(await asyncio.wait_for(self._socket.recv(), 30))
        return frame


@asynccontextmanager
async def open_page(telnyx: Telnyx) -> AsyncIterator[SignallingClient]:
    async with connect(telnyx.url.replace("http", "ws").removesuffix("/v2"), proxy=None) as socket:
        yield SignallingClient(socket)
