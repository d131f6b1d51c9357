"""Listening sockets: addresses, ports that are in use, and many connections that arrive at once."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
import uvloop

from app.serving.server import ACCEPTS_PER_ROUND, BACKLOG, listening_sockets


def listen(stack: ExitStack, host: str, port: int = 0) -> list[socket.socket]:
    return [stack.enter_context(each) for each in listening_sockets(host, port)]


def test_each_descriptor_accepts_connections_of_one_port() -> None:
    with ExitStack() as stack:
        sockets = listen(stack, "127.0.0.1")

        assert len(sockets) == ACCEPTS_PER_ROUND
        assert len({each.getsockname() for each in sockets}) == 1


def test_ipv6_address_listens() -> None:
    with ExitStack() as stack:
        address = listen(stack, "::1")[0].getsockname()
        client = stack.enter_context(socket.create_connection(address[:2]))

        assert client.getpeername()[0] == "::1"


def test_port_in_use_ends_the_process_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        port = listen(stack, "127.0.0.1")[0].getsockname()[1]

        with pytest.raises(SystemExit):
            listening_sockets("127.0.0.1", port)
    output = capsys.readouterr()
    assert "cannot_listen" in output.out + output.err
    assert str(port) in output.out + output.err


def test_unknown_host_ends_the_process_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        listening_sockets("no-such-host.invalid", 0)
    output = capsys.readouterr()
    assert "no-such-host.invalid" in output.out + output.err


def test_many_connections_are_accepted_in_few_iterations() -> None:
    """Although libuv accepts one connection for each descriptor in an iteration of its event loop."""

    async def iterations_until_accepted(count: int) -> int:
        accepted = 0

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                nonlocal accepted
                accepted += 1

        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            sockets = listen(stack, "127.0.0.1")
            servers = [await loop.create_server(Accepting, sock=each, backlog=BACKLOG) for each in sockets]
            for _ in range(count):
                stack.enter_context(socket.create_connection(sockets[0].getsockname()))
            iterations = 0
            while accepted < count:
                iterations += 1
                await asyncio.sleep(0)
            for server in servers:
                server.close()
        return iterations

    assert uvloop.run(iterations_until_accepted(4 * ACCEPTS_PER_ROUND)) < 20
