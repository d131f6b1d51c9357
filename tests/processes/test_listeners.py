"""The listeners of a real process: Unix sockets, the admin listener, floods, reload and graceful stop."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.serving.admission import REQUEST_SECONDS
from app.vending.policy import ADMIN_SCOPE
from tests.support.front_server import Connection
from tests.support.http_server import free_port, http_client
from tests.support.outages import readiness
from tests.support.replicas import STOP_SECONDS, Replica, command, replica, replica_environment
from tests.support.sandbox import Telnyx
from tests.support.tokens import token
from tests.support.waiting import eventually, promptly

PATH = "/v1/telephony-credentials"
USER = {"Authorization": f"Bearer {token()}"}
OPERATOR = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
LOGIN = b'{"device_id": "laptop"}'


@asynccontextmanager
async def unix_client(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://a", timeout=30) as client:
        yield client


def login_request(bearer: str) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(LOGIN), LOGIN)


def port_of(running: Replica) -> int:
    return running.client.base_url.port or 0


# Unix sockets


async def test_client_behind_a_proxy_on_a_unix_socket_has_its_own_address(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    path = tmp_path / "dialtone.sock"
    settings = {"DIALTONE_HOST": f"127.0.0.1 unix:{path}"}
    async with replica(telnyx.url, sqlite, tmp_path, settings) as running, unix_client(path) as client:
        for device, headers in (("new", USER | {"X-Forwarded-For": "203.0.113.9"}), ("other", USER)):
            for expected in (201, 200):  # the app, and the fast path
                answer = await client.post(PATH, headers=headers, json={"device_id": device})
                assert answer.status_code == expected
        addresses: set[str] = set()

        def are_logged() -> bool:
            addresses.update(re.findall(r'"client_address": ?"([^"]*)"', running.log.read_text()))
            return len(addresses) >= 2

        await eventually(are_logged)

    are_logged()
    assert addresses == {"203.0.113.9", "unix"}


async def test_peer_on_a_unix_socket_is_not_believed_unless_it_is_trusted(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    path = tmp_path / "dialtone.sock"
    settings = {"DIALTONE_HOST": f"127.0.0.1 unix:{path}", "DIALTONE_TRUSTED_PROXIES": "127.0.0.1"}
    async with replica(telnyx.url, sqlite, tmp_path, settings) as running, unix_client(path) as client:
        headers = USER | {"X-Forwarded-For": "203.0.113.9"}
        assert (await client.post(PATH, headers=headers, json={"device_id": "laptop"})).status_code == 201
        await eventually(lambda: '"audit"' in running.log.read_text())

        assert "203.0.113.9" not in running.log.read_text()


async def test_socket_file_is_removed_at_the_stop(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    path = tmp_path / "dialtone.sock"
    async with replica(telnyx.url, sqlite, tmp_path, {"DIALTONE_HOST": f"127.0.0.1 unix:{path}"}) as running:
        assert path.is_socket()
        running.process.terminate()
        await asyncio.to_thread(running.process.wait, STOP_SECONDS)

        assert not os.path.lexists(path)


async def test_service_starts_after_a_kill_left_its_socket_file(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    path = tmp_path / "dialtone.sock"
    settings = {"DIALTONE_HOST": f"127.0.0.1 unix:{path}"}
    async with replica(telnyx.url, sqlite, tmp_path, settings) as killed:
        killed.kill()
    assert path.is_socket()

    async with replica(telnyx.url, sqlite, tmp_path, settings), unix_client(path) as client:
        assert (await client.get("/livez")).status_code == 200


# Errors


def failed_start(settings: dict[str, str], folder: Path) -> str:
    """Start a service that cannot listen; returns its log."""
    environment = replica_environment("http://127.0.0.1:1/v2", f"sqlite:///{folder}/ledger.db") | settings
    ended = subprocess.run(
        command("serve"), env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("name", ["DIALTONE_HOST", "DIALTONE_ADMIN_HOST"])
def test_missing_folder_of_a_socket_ends_the_process_with_the_setting(tmp_path: Path, name: str) -> None:
    text = failed_start({"DIALTONE_PORT": "0", name: f"unix:{tmp_path}/missing/dialtone.sock"}, tmp_path)

    (line,) = [json.loads(line) for line in text.splitlines() if "cannot_listen" in line]
    assert line["setting"] == name
    assert line["address"] == f"{tmp_path}/missing/dialtone.sock"
    assert line["reason"] == "No such file or directory"


def test_admin_port_in_use_ends_the_process_with_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = failed_start({"DIALTONE_PORT": "0", "DIALTONE_ADMIN_PORT": str(port)}, tmp_path)

    (line,) = [json.loads(line) for line in text.splitlines() if "cannot_listen" in line]
    assert (line["setting"], line["port"], line["reason"]) == ("DIALTONE_ADMIN_HOST", port, "Address already in use")


# The admin listener


@asynccontextmanager
async def two_listeners(
    telnyx: Telnyx, database: str, folder: Path, files: int = 4096, **settings: str
) -> AsyncIterator[tuple[Replica, httpx.AsyncClient]]:
    """A replica with an admin listener, and a client of that. `files`: the limit of open files."""
    port = free_port()

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    wanted = {"DIALTONE_ADMIN_PORT": str(port)} | settings
    async with (
        replica(telnyx.url, database, folder, wanted, before_start=limit_files) as running,
        http_client(f"http://127.0.0.1:{port}", timeout=30) as admin,
    ):
        yield running, admin


async def test_each_path_is_on_its_listener(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with two_listeners(telnyx, sqlite, tmp_path) as (running, admin):
        for path in ("/livez", "/readyz", "/version"):
            assert (await running.client.get(path)).status_code == (await admin.get(path)).status_code == 200
        for path in ("/metrics", "/ops", "/docs", "/openapi.json", "/v1/admin/state"):
            assert (await running.client.get(path, headers=OPERATOR)).status_code == 404
            assert (await admin.get(path, headers=OPERATOR)).status_code == 200


async def test_flood_on_the_public_listener_does_not_block_operators(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    async with two_listeners(telnyx, sqlite, tmp_path, files=600) as (running, admin):
        assert (await admin.get("/livez")).status_code == 200  # a connection that stays open
        silent: list[Connection] = []

        async def flood(number: int) -> None:
            for _ in range(20):
                connection = await Connection.to(port_of(running), f"127.0.0.{number + 2}")
                if number % 2:
                    connection.writer.write(login_request("garbage") * 50)
                silent.append(connection)

        flooding = asyncio.gather(*map(flood, range(40)))
        statuses = []
        for _ in range(5):
            async with asyncio.timeout(REQUEST_SECONDS - 2):  # before the service ends silent connections
                statuses.append((await admin.get("/v1/admin/state", headers=OPERATOR)).status_code)
            async with http_client(str(admin.base_url), timeout=30) as fresh, asyncio.timeout(REQUEST_SECONDS - 2):
                statuses.append((await fresh.get("/metrics")).status_code)
            await asyncio.sleep(0.1)
        await flooding
        # The public listener is full. The kernel accepts connections before the process does.
        await eventually(lambda: len(os.listdir(f"/proc/{running.process.pid}/fd")) > 300)
        for connection in silent:
            connection.writer.close()

    assert set(statuses) == {200}


async def test_connections_of_the_admin_listener_are_limited(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with two_listeners(telnyx, sqlite, tmp_path) as (running, admin):
        opened = [await Connection.to(admin.base_url.port or 0) for _ in range(300)]
        # Silent connections get a response before the service ends them; those above the limit get none.
        await eventually(lambda: sum(map(is_open, opened)) <= 256, seconds=REQUEST_SECONDS)
        status = (await running.client.get("/livez")).status_code
        for connection in opened:
            connection.writer.close()

    assert status == 200


def is_open(connection: Connection) -> bool:
    """Whether the service has not closed the connection, or has sent something before."""
    return not (connection.reader.at_eof() or connection.reader.exception())


async def test_reload_happens_once_for_both_listeners(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with two_listeners(telnyx, sqlite, tmp_path) as (running, admin):
        running.process.send_signal(signal.SIGHUP)
        await eventually(lambda: '"reloaded"' in running.log.read_text())

        assert running.log.read_text().count('"reloaded"') == 1
        assert (await admin.get("/readyz")).status_code == 200


# Graceful stop


async def test_both_listeners_report_the_drain_and_then_stop(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with two_listeners(telnyx, sqlite, tmp_path, DIALTONE_DRAIN_SECONDS="60") as (running, admin):
        running.process.terminate()
        for client in (running.client, admin):
            await readiness(client, 503, STOP_SECONDS)
        live = [(await client.get("/livez")).status_code for client in (running.client, admin)]
        running.process.terminate()  # a second signal ends the drain
        assert await asyncio.to_thread(running.process.wait, STOP_SECONDS) == -signal.SIGTERM

    assert live == [200, 200]
    for port in (port_of(running), admin.base_url.port or 0):
        with pytest.raises(ConnectionRefusedError):
            await Connection.to(port)


async def test_requests_in_flight_at_both_listeners_are_answered(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with two_listeners(telnyx, sqlite, tmp_path) as (running, admin):
        telnyx.fail("delay", path="telephony_credentials", seconds=2, times=2)
        asked = [
            asyncio.create_task(client.post(PATH, headers=USER, json={"device_id": device}))
            for client, device in ((running.client, "laptop"), (admin, "phone"))
        ]
        await eventually(lambda: len(telnyx.calls("POST")) == 2)
        running.process.terminate()

        assert [(await one).status_code for one in asked] == [201, 201]


@pytest.mark.parametrize("is_cached", [False, True], ids=["app", "fast path"])
async def test_responses_during_the_drain_close_their_connection(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, is_cached: bool
) -> None:
    """Clients then connect to another replica, before this one closes idle connections."""
    async with replica(telnyx.url, sqlite, tmp_path, {"DIALTONE_DRAIN_SECONDS": "60"}) as running:
        connection = await Connection.to(port_of(running))
        request = login_request(token()) if is_cached else b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
        for _ in range(2):
            head, _ = await connection.ask(request)
            assert b"connection: close" not in head
        running.process.terminate()
        await readiness(running.client, 503, STOP_SECONDS)

        async def is_announced() -> bool:
            return bool((await running.client.get("/livez")).headers.get("connection") == "close")

        await promptly(is_announced, 10)
        head, _ = await connection.ask(request)

        assert head.startswith(b"HTTP/1.1 200" if is_cached else b"HTTP/1.1 503")
        assert head.count(b"connection: close\r\n") == 1
        assert await connection.is_over(30)
