"""A TCP proxy between the service and PostgreSQL that can be disconnected, paused and restored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.adapters.ledger.engines import database_url


class TcpProxy:
    """A TCP port in front of a PostgreSQL server's Unix socket."""

    def __init__(self, database: str) -> None:
        self._url = database_url(database)
        self._socket = f"{self._url.query['host']}/.s.PGSQL.5432"
        self._server: asyncio.Server | None = None
        self._port = 0
        self._pairs: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.connections = 0
        """The number of connections that were accepted."""

    @property
    def url(self) -> str:
        there = self._url.set(host="127.0.0.1", port=self._port, query={})
        return there.set(drivername="postgresql").render_as_string(hide_password=False)

    async def restore(self) -> None:
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def disconnect(self) -> None:
        """Close the listener and abort every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._pairs):
            writer.transport.abort()

    async def close(self) -> None:
        self._flows.set()
        await self.disconnect()

    def pause(self) -> None:
        """Keep and accept connections, but forward no data."""
        self._flows.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
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
async def tcp_proxy(database: str) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(database)
    await proxy.restore()
    try:
        yield proxy
    finally:
        await proxy.close()
