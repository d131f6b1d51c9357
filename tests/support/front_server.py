"""An ASGI app behind the front, on a loopback socket, and raw connections to it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from starlette.types import ASGIApp

from app.serving.admission import ConnectionLimiter
from app.serving.responses import Rejections
from app.serving.uvicorn_protocol import FrontedApp
from tests.support.http_server import KEEP_ALIVE_SECONDS, serve


def connection_limiter(in_flight: Callable[[], int] = lambda: 0, **limits: Any) -> ConnectionLimiter:
    return ConnectionLimiter(in_flight, Rejections(lambda _: b"", lambda *_: None), **limits)


@asynccontextmanager
async def front_server(
    app: ASGIApp, limiter: ConnectionLimiter | None = None, keep_alive_seconds: int = KEEP_ALIVE_SECONDS
) -> AsyncIterator[int]:
    """Serve the app; yields the port."""
    async with serve(FrontedApp(app), limiter or connection_limiter(), keep_alive_seconds) as url:
        yield int(url.rsplit(":", 1)[1])


class Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int, local_address: str = "127.0.0.1") -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(local_address, 0)))

    async def answer(self, seconds: float = 20) -> tuple[bytes, bytes]:
        """Head and body of the next response."""
        async with asyncio.timeout(seconds):
            head = await self.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?mi)^content-length: (\d+)", head)
            return head, await self.reader.readexactly(int(found[1]) if found else 0)

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        self.writer.write(request)
        return await self.answer()

    async def is_over(self, seconds: float = 20) -> bool:
        """Whether the server has ended the connection, without sending anything more."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True
