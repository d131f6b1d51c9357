"""Listening sockets: addresses of both families, Unix sockets, and many connections that arrive at once."""

import asyncio
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from app.serving.listening import ACCEPTS_PER_ROUND, ANY_ADDRESS, BACKLOG, ListeningSockets, ListenOptions

ALL_IPV4 = ANY_ADDRESS[socket.AF_INET]

Listen = Callable[..., ListeningSockets]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listen on hosts; the sockets are closed at the end of the test."""
    with ExitStack() as stack:

        def listen(*hosts: str, port: int = 0, mode: int = 0o660) -> ListeningSockets:
            sockets = ListeningSockets(ListenOptions(hosts, port, mode, "DIALTONE_HOST"))
            stack.callback(sockets.close)
            return sockets

        yield listen


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "dialtone.sock")


def port_of(sockets: ListeningSockets) -> int:
    port: int = sockets.descriptors[0].getsockname()[1]
    return port


def failure(listen: Listen, capsys: pytest.CaptureFixture[str], *hosts: str, port: int = 0) -> str:
    """What is logged when listening fails."""
    with pytest.raises(SystemExit) as ended:
        listen(*hosts, port=port)
    assert ended.value.code == 1
    output = capsys.readouterr()
    text = output.out + output.err
    assert "cannot_listen" in text
    assert "DIALTONE_HOST" in text
    return text


def connect(family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
    """Raises OSError if no process listens."""
    with socket.socket(family) as client:
        client.connect(address)


# IP addresses


def test_each_descriptor_accepts_connections_of_one_port(listen: Listen) -> None:
    sockets = listen("127.0.0.1").descriptors

    assert len(sockets) == ACCEPTS_PER_ROUND
    assert len({each.getsockname() for each in sockets}) == 1


def test_ipv6_address_listens(listen: Listen) -> None:
    connect(socket.AF_INET6, ("::1", port_of(listen("::1"))))


def test_two_colons_listen_on_both_families_with_one_port(listen: Listen) -> None:
    port = port_of(listen("::"))

    connect(socket.AF_INET6, ("::1", port))
    connect(socket.AF_INET, ("127.0.0.1", port))


@pytest.mark.parametrize(
    "hosts",
    [
        (ALL_IPV4, "::"),
        ("::", ALL_IPV4),
        ("::0",),
        ("127.0.0.1", ALL_IPV4, "::"),
        ("::1", "localhost", "::"),
    ],
    ids="+".join,
)
def test_addresses_that_contain_each_other_are_opened_once(listen: Listen, hosts: tuple[str, ...]) -> None:
    sockets = listen(*hosts)

    opened = {one.getsockname()[0] for one in sockets.descriptors}
    assert opened == {ALL_IPV4, "::"}


@pytest.mark.parametrize("hosts", [("127.0.0.1", "localhost"), ("localhost", "127.0.0.1")], ids="+".join)
def test_address_of_two_hosts_is_opened_once(listen: Listen, hosts: tuple[str, ...]) -> None:
    sockets = listen(*hosts)

    opened = [one.getsockname()[0] for one in sockets.descriptors]
    assert opened.count("127.0.0.1") == ACCEPTS_PER_ROUND


def test_ipv4_client_of_two_colons_has_an_ipv4_address(listen: Listen) -> None:
    """`DIALTONE_TRUSTED_PROXIES=127.0.0.1` must match it, and `::ffff:127.0.0.1` does not."""
    sockets = listen("::").descriptors
    families = {each.family for each in sockets}
    (own,) = {each.getsockname()[:2] for each in sockets if each.family == socket.AF_INET}

    assert families == {socket.AF_INET, socket.AF_INET6}
    assert own[0] == "0.0.0.0"  # noqa: S104 - by the setting


def test_free_port_is_free_on_all_hosts(listen: Listen) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        with ExitStack() as stack:
            for _ in range(min(8000, limits[1] // 2)):  # of about 28,000
                stack.enter_context(socket.socket()).bind(("127.0.0.2", 0))
            for _ in range(20):
                sockets = listen("127.0.0.1", "127.0.0.2")
                assert len({each.getsockname()[1] for each in sockets.descriptors}) == 1
                sockets.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_several_hosts_listen_on_one_port(listen: Listen) -> None:
    port = port_of(listen("127.0.0.1", "127.0.0.2", "::1"))

    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
        connect(family, (address, port))


def test_port_in_use_ends_the_process_and_is_named(listen: Listen, capsys: pytest.CaptureFixture[str]) -> None:
    port = port_of(listen("127.0.0.1"))

    text = failure(listen, capsys, "127.0.0.1", port=port)

    assert str(port) in text
    assert "Address already in use" in text


def test_one_host_in_use_ends_the_process_although_another_is_free(
    listen: Listen, capsys: pytest.CaptureFixture[str]
) -> None:
    # On addresses that no other test uses: on 127.0.0.1, a connection of another test may have the port.
    free, used = "127.0.0.8", "127.0.0.9"
    port = port_of(listen(used))

    assert used in failure(listen, capsys, free, used, port=port)
    listen(free, port=port)


def test_address_of_another_machine_ends_the_process(listen: Listen, capsys: pytest.CaptureFixture[str]) -> None:
    assert "192.0.2.1" in failure(listen, capsys, "192.0.2.1")


def test_unknown_host_ends_the_process_and_is_named(listen: Listen, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no-such-host.invalid" in failure(listen, capsys, "no-such-host.invalid")


# Unix sockets


def test_unix_socket_listens_beside_an_address(listen: Listen, path: str) -> None:
    sockets = listen("127.0.0.1", path)

    connect(socket.AF_UNIX, path)
    connect(socket.AF_INET, ("127.0.0.1", port_of(sockets)))


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666], ids=oct)
def test_unix_socket_has_the_permissions_of_the_setting(listen: Listen, path: str, mode: int) -> None:
    before = os.umask(0o077)
    try:
        listen(path, mode=mode)
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_file_is_removed_when_the_socket_is_closed(listen: Listen, path: str) -> None:
    listen(path).close()

    assert not os.path.lexists(path)


def test_stale_file_of_a_killed_process_is_replaced(listen: Listen, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()

    listen(path)

    connect(socket.AF_UNIX, path)


def test_live_socket_of_another_process_is_not_replaced(
    listen: Listen, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listen(path)

    assert "Another process listens" in failure(listen, capsys, path)
    connect(socket.AF_UNIX, path)


def test_live_socket_with_a_full_backlog_is_not_replaced(
    listen: Listen, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(path)

        assert "Another process listens" in failure(listen, capsys, path)
        assert os.path.lexists(path)


def test_file_that_is_not_a_socket_is_not_replaced(
    listen: Listen, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(path).write_text("ledger")

    assert "not a socket" in failure(listen, capsys, path)
    assert Path(path).read_text() == "ledger"


def test_file_of_a_successor_is_kept(listen: Listen, path: str) -> None:
    first = listen(path)
    os.unlink(path)
    listen(path)

    first.close()

    connect(socket.AF_UNIX, path)


def test_missing_folder_ends_the_process_and_is_named(
    listen: Listen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failure(listen, capsys, str(tmp_path / "missing" / "dialtone.sock"))

    assert "missing/dialtone.sock" in text
    assert "No such file or directory" in text


def test_failure_of_the_second_host_removes_the_file_of_the_first(
    listen: Listen, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failure(listen, capsys, path, "no-such-host.invalid")

    assert not os.path.lexists(path)


# Many connections


@pytest.mark.parametrize("is_unix", [False, True], ids=["address", "Unix socket"])
def test_many_connections_are_accepted_in_few_iterations(listen: Listen, path: str, is_unix: bool) -> None:
    """Although libuv accepts one connection for each descriptor in an iteration of its event loop."""

    async def iterations_until_accepted(count: int) -> int:
        accepted = 0

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                nonlocal accepted
                accepted += 1

        loop = asyncio.get_running_loop()
        sockets = listen(path if is_unix else "127.0.0.1").descriptors
        with ExitStack() as stack:
            servers = [await loop.create_server(Accepting, sock=each, backlog=BACKLOG) for each in sockets]
            for _ in range(count):
                client = stack.enter_context(socket.socket(sockets[0].family))
                client.connect(sockets[0].getsockname())
            iterations = 0
            while accepted < count:
                iterations += 1
                await asyncio.sleep(0)
            for server in servers:
                server.close()
        return iterations

    assert uvloop.run(iterations_until_accepted(4 * ACCEPTS_PER_ROUND)) < 20
