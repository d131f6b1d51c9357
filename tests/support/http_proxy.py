"""An HTTP proxy that records what it was asked for: `CONNECT` for https, absolute URLs for http."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class HttpProxy:
    """`credentials` are `user:password`; requests without them get 407."""

    credentials: str | None = None
    targets: list[str] = field(default_factory=list)
    resolves: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where the hosts that the client names really are."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.credentials + '@' if self.credentials else ''}127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.targets.append(f"{method} {target}")
            if self.credentials is not None:
                expected = b"Basic " + base64.b64encode(self.credentials.encode())
                if b"proxy-authorization: " + expected not in head.replace(b"Proxy-A", b"proxy-a"):
                    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                    writer.close()
                    return
            host = target.removeprefix("http://").split("/", 1)[0]
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.resolves[host])
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.removeprefix("http://").split("/", 1)[1]
                upstream_writer.write(head.replace(target.encode(), path.encode(), 1))
            await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def http_proxy(credentials: str | None = None) -> AsyncIterator[HttpProxy]:
    proxy = HttpProxy(credentials)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
