"""A server that answers every connection with the same bytes, with or without TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.support.certificates import CertificateAuthority


def http_response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def raw_server(
    answer: bytes | None, authority: CertificateAuthority | None = None, arrived: asyncio.Event | None = None
) -> AsyncIterator[int]:
    """Yields the port on the loopback interface.

    `answer`: None means that the server never responds. `arrived` is set when a request has been received.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if arrived is not None:
                arrived.set()
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    ssl = None if authority is None else authority.server
    server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=ssl)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
