"""One request of each device, which wrk cannot send, as it may omit some; and the Telnyx calls that requests cause."""

import asyncio
import urllib.request
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from benchmarks.load import CONNECTIONS, Request
from benchmarks.processes import Server

MAX_ATTEMPTS = 50


def warm(server: Server, requests: Sequence[Request], connections: int = CONNECTIONS) -> None:
    """Send each request until it succeeds. Raises RuntimeError if one fails too often."""
    left = list(requests)
    for _ in range(MAX_ATTEMPTS):
        left = send_each(server.url, left, connections)
        if not left:
            return
    raise RuntimeError(f"{server.name} rejected {len(left)} requests again and again")


def send_each(url: str, requests: Sequence[Request], connections: int = CONNECTIONS) -> list[Request]:
    """Send each request once, in order, with a given concurrency. Returns those that failed."""
    return asyncio.run(_send_each(url, iter(requests), connections))


async def _send_each(url: str, requests: Iterator[Request], connections: int) -> list[Request]:
    address = urlsplit(url)
    failed: list[Request] = []

    async def one_after_the_other() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for request in requests:
            writer.write(request.to_bytes())
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_content_length(head))
            if int(head[9:12]) >= 400:
                failed.append(request)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one_after_the_other())
    return failed


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def telnyx_calls(stub: Server) -> int:
    """Number of calls that the Telnyx stub has answered."""
    with urllib.request.urlopen(f"{stub.url}/calls", timeout=10) as answer:
        return int(answer.read())
