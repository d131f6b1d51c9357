"""Behind HAProxy as a trusted proxy: trailers change nothing, and users on shared connections get their own logins."""

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.front_server import Connection
from tests.support.http_server import free_port, http_client
from tests.support.proxied_load import post_around_timeouts
from tests.support.replicas import Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token, token_of_length

CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend clients
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-For %[src]
    default_backend dialtone
backend dialtone
    http-reuse always
    server one 127.0.0.1:{upstream} pool-purge-delay {idle_seconds}s
"""
PATH = "/v1/telephony-credentials"
FORGED = "203.0.113.9"
ORIGIN = "https://app.example.com"

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None and not os.environ.get("REQUIRE_ALL"), reason="HAProxy is not installed"
)


@contextmanager
def haproxy(folder: Path, upstream: int, idle_seconds: int = 5) -> Iterator[int]:
    port = free_port()
    main = folder / "haproxy.cfg"
    main.write_text(CONFIGURATION.format(port=port, upstream=upstream, idle_seconds=idle_seconds))
    checked = subprocess.run(["haproxy", "-c", "-f", main], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(["haproxy", "-db", "-f", main], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        assert process.poll() is None
        yield port
    finally:
        process.terminate()
        process.wait(5)


@dataclass
class Behind:
    """The service behind HAProxy."""

    service: Replica
    port: int

    def addresses(self) -> set[str]:
        """Client addresses in the log."""
        return set(re.findall(r'"client(?:_address)?": ?"([^"]*)"', self.service.log.read_text()))


SETTINGS = {
    "DIALTONE_MAX_TOKEN_BYTES": "12288",
    "DIALTONE_CORS_ORIGINS": ORIGIN,
    "DIALTONE_TRUSTED_PROXIES": "127.0.0.1",
    "DIALTONE_LIMIT_FAILURES": "5/hour",
    "DIALTONE_LOG_FORMAT": "json",
}


@pytest.fixture
async def behind(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Behind]:
    async with replica(telnyx.url, sqlite, tmp_path, SETTINGS) as service:
        with haproxy(tmp_path, service.client.base_url.port or 0) as port:
            yield Behind(service, port)


def chunked(*headers: str, trailer: str = "", body: bytes = b'{"device_id": "laptop"}') -> bytes:
    head = [f"POST {PATH} HTTP/1.1", "Host: a", "Content-Type: application/json", "Transfer-Encoding: chunked"]
    lines = "\r\n".join([*head, *headers, "", ""]).encode()
    return lines + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailer.encode() + b"\r\n"


TRAILERS = [
    f"X-Forwarded-For: {FORGED}",
    f"Authorization: Bearer {token('mallory')}",
    f"Origin: {ORIGIN}",
    "Host: elsewhere",
    "Content-Length: 3",
    "Transfer-Encoding: identity",
    "X-Request-ID: forged",
    "Content-Type: text/plain",
    "Connection: close",
    "X-Other: a",
]


@pytest.mark.parametrize("trailer", TRAILERS, ids=[one.split(":", 1)[0] for one in TRAILERS])
@pytest.mark.parametrize("bearer", ["", token(), "garbage"], ids=["no token", "valid token", "invalid token"])
async def test_trailer_changes_nothing(behind: Behind, trailer: str, bearer: str) -> None:
    headers = [f"Authorization: Bearer {bearer}"] if bearer else []
    for is_split in (False, True):
        connection = await Connection.to(behind.port, "127.0.0.7")
        raw = chunked(*headers, trailer=trailer + "\r\n")
        at = raw.index(b"\r\n0\r\n") if is_split else len(raw)
        connection.writer.write(raw[:at])
        await asyncio.sleep(0.1 if is_split else 0)
        connection.writer.write(raw[at:])

        head, _ = await connection.answer()
        connection.writer.close()

        assert head.split()[1] in ((b"400",) if bearer == token() else (b"400", b"401"))
        assert b"access-control-allow-origin" not in head.lower()
        assert b"forged" not in head
    await asyncio.sleep(0.1)
    assert behind.addresses() <= {"127.0.0.1", "127.0.0.7"}


async def test_trailer_does_not_avoid_the_limit_of_rejected_tokens(behind: Behind) -> None:
    statuses: Counter[bytes] = Counter()
    for number in range(12):
        connection = await Connection.to(behind.port, "127.0.0.7")
        head, _ = await connection.ask(
            chunked("Authorization: Bearer garbage", trailer=f"X-Forwarded-For: 203.0.113.{number}\r\n")
        )
        statuses[head.split()[1]] += 1
        connection.writer.close()
    own = await Connection.to(behind.port, "127.0.0.8")

    assert set(statuses) <= {b"400", b"401", b"429"}
    head, _ = await own.ask(chunked(f"Authorization: Bearer {token('bob')}"))
    assert head.split()[1] == b"201"


@pytest.mark.parametrize(("length", "status"), [(12_288, 201), (12_289, 401)])
async def test_longest_token_passes_the_default_buffers_of_haproxy(behind: Behind, length: int, status: int) -> None:
    async with http_client(f"http://127.0.0.1:{behind.port}") as client:
        headers = {"Authorization": f"Bearer {token_of_length(length)}"}
        answer = await client.post(PATH, headers=headers, json={"device_id": "laptop"})

    assert answer.status_code == status


async def test_users_on_shared_connections_get_their_own_logins(behind: Behind) -> None:
    """HAProxy sends all requests over few connections, and each client pipelines requests of all users."""
    owners: dict[str, str] = {}
    bearers = {f"user-{number}": token(f"user-{number}") for number in range(6)}

    async def client(number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - reproducible load
        users = [chance.choice(list(bearers)) for _ in range(40)]
        connection = await Connection.to(behind.port)
        for at, user in enumerate(users):
            bearer = "garbage" if at % 10 == 9 else bearers[user]
            connection.writer.write(chunked(f"Authorization: Bearer {bearer}", f"X-Request-ID: {number}-{at}"))
        for at, user in enumerate(users):
            head, body = await connection.answer(20)
            assert f"x-request-id: {number}-{at}\r\n".encode() in head
            if at % 10 == 9:
                assert head.split()[1] in (b"401", b"429")
            else:
                assert owners.setdefault(json.loads(body)["sip_username"], user) == user
        connection.writer.close()

    await asyncio.gather(*map(client, range(12)))
    assert len(owners) == len(bearers)


@pytest.mark.no_cover
async def test_keep_alive_timeouts_cause_no_502(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    settings = SETTINGS | {"DIALTONE_KEEP_ALIVE_SECONDS": "3"}
    async with replica(telnyx.url, sqlite, tmp_path, settings) as service:
        with haproxy(tmp_path, service.client.base_url.port or 0, idle_seconds=1) as port:
            url = f"http://127.0.0.1:{port}"
            statuses = await post_around_timeouts(lambda _: http_client(url))

    assert set(statuses) <= {200, 201}
    assert statuses.total() == 400
