"""A wire between the service and PostgreSQL that can be cut, or go silent, and be mended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.adapters.ledger.engines import database_url


class Wire:
    """A TCP port in front of a PostgreSQL server's Unix socket."""

    def __init__(self, database: str) -> None:
        self._url = database_url(database)
        self._socket = f"{self._url.query['host']}/.s.PGSQL.5432"
        self._server: asyncio.Server | None = None
        self._port = 0
        self._pairs: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        there = self._url.set(host="127.0.0.1", port=self._port, query={})
        return there.set(drivername="postgresql").render_as_string(hide_password=False)

    async def mend(self) -> None:
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nobody listens any more, and every connection breaks."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._pairs):
            writer.transport.abort()

    def silence(self) -> None:
        """Connections stay and are taken, but not a byte passes."""
        self._flows.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._socket)
            self._pairs |= {writer, far_writer}
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            self._pairs -= {writer, far_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def wire_to(database: str) -> AsyncIterator[Wire]:
    wire = Wire(database)
    await wire.mend()
    try:
        yield wire
    finally:
        wire._flows.set()
        await wire.cut()
