"""uvicorn's HTTP protocol behind the front, unchanged: it gets bytes and a transport as from an event loop."""

import asyncio
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

FRONT = "dialtone.front"
"""Key of the connection's front in the scope's `state`."""


class AppFront(Protocol):
    """The part of FrontProtocol that uvicorn's protocol sees, as a transport, and the app's wrapper."""

    transport: asyncio.Transport | None
    peer_name: tuple[str, int] | None

    @property
    def is_closing(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def app_closed(self) -> None:
        """uvicorn has closed the connection: after the last response, or because the server stops."""

    def app_reads(self, *, is_reading: bool) -> None:
        """Whether the app takes more of the body."""

    def response_complete(self) -> None:
        """The app has sent the whole response. The request's body may still be arriving."""


class UvicornProtocol:
    """One HttpToolsProtocol with its transport."""

    __slots__ = ("_protocol", "_transport")

    def __init__(
        self, front: AppFront, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._transport = FrontTransport(front)
        self._protocol = HttpToolsProtocol(config, server_state, {**app_state, FRONT: front})
        self._protocol.connection_made(self._transport)

    def receive(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def disconnect(self) -> None:
        """End the connection for the app. Later writes of the app are dropped."""
        self._transport.detach()
        self._protocol.connection_lost(None)  # with an exception, uvicorn would not cancel its timer


class FrontTransport(asyncio.Transport):
    """The transport that uvicorn's protocol writes to."""

    def __init__(self, front: AppFront) -> None:
        super().__init__()
        self._front: AppFront | None = front
        self._is_closed = False

    def detach(self) -> None:
        self._front = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername` and `sockname` have two items, as uvicorn expects them.

        The socket is not given out: it does not know its peer once the client has reset the connection, and the app
        would get a request without a client address.
        """
        front = self._front
        if front is None or front.transport is None or name == "socket":
            return default
        if name == "peername":
            return front.peer_name
        value = front.transport.get_extra_info(name, default)
        return value[:2] if name == "sockname" and isinstance(value, tuple) else value

    def is_closing(self) -> bool:
        return self._is_closed or self._front is None or self._front.is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._front is not None:
            self._front.write(bytes(data))

    def close(self) -> None:
        if self._front is not None and not self._is_closed:
            self._front.app_closed()
            self._is_closed = self._front is None or self._front.is_closing

    def pause_reading(self) -> None:
        if self._front is not None:
            self._front.app_reads(is_reading=False)

    def resume_reading(self) -> None:
        if self._front is not None:
            self._front.app_reads(is_reading=True)


class FrontedApp:
    """The outermost ASGI app: tells the front when a response is complete."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        front: AppFront | None = scope.get("state", {}).pop(FRONT, None)
        if front is None:
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                front.response_complete()

        await self._app(scope, receive, sending)
