"""Behind HAProxy as a trusted proxy: trailers change nothing, and users on shared connections get their own logins."""

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.front_server import Connection
from tests.support.http_server import free_port, http_client
from tests.support.proxied_load import DIALTONE_IDLE_SECONDS, distant, post_around_timeouts
from tests.support.proxies import PROXIED, client_from, running_proxy
from tests.support.replicas import ROOT, Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token, token_of_length
from tests.support.waiting import eventually

SHIPPED = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
PATH = "/v1/telephony-credentials"
FORGED = "203.0.113.9"
ORIGIN = "https://app.example.com"

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None and not os.environ.get("REQUIRE_ALL"), reason="HAProxy is not installed"
)


@contextmanager
def haproxy(folder: Path, upstream: str, *, under_prefix: bool = False, purge_seconds: float = 5) -> Iterator[int]:
    """Run HAProxy with the shipped file, the addresses of this machine, and without TLS. Yields its port."""
    port = free_port()
    text = SHIPPED.read_text()
    for shipped, here in (
        (
            "bind :443 ssl crt /etc/haproxy/tls/phones.example.com.pem ssl-min-ver TLSv1.2 alpn h2,http/1.1",
            f"bind :{port}",
        ),
        ("maxconn 20000", "maxconn 500"),
        ("pool-purge-delay 5s", f"pool-purge-delay {purge_seconds * 1000:.0f}ms"),
        ("server one 127.0.0.1:8010", f"server one {upstream}"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    if under_prefix:
        text = re.sub(r"# (http-request (?:deny|replace-path) .*/phones)", r"\1", text)
    main = folder / "haproxy.cfg"
    main.write_text(text)
    checked = subprocess.run(["haproxy", "-c", "-f", main], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with running_proxy(["haproxy", "-db", "-f", str(main)], port, folder):
        yield port


@dataclass
class Behind:
    """The service behind HAProxy."""

    service: Replica
    port: int

    def addresses(self) -> set[str]:
        """Client addresses in the log."""
        return set(re.findall(r'"client(?:_address)?": ?"([^"]*)"', self.service.log.read_text()))


@pytest.fixture
async def behind(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Behind]:
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED) as service:
        with haproxy(tmp_path, f"127.0.0.1:{service.client.base_url.port}") as port:
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


@pytest.mark.parametrize("bearer", ["", token(), "garbage"], ids=["no token", "valid token", "invalid token"])
async def test_trailers_change_nothing(behind: Behind, bearer: str) -> None:
    headers = [f"Authorization: Bearer {bearer}"] if bearer else []
    clients = {f"127.0.0.{number}": trailer for number, trailer in enumerate(TRAILERS, 10)}
    for address, trailer in clients.items():
        for is_split in (False, True):
            connection = await Connection.to(behind.port, address)
            raw = chunked(*headers, trailer=trailer + "\r\n")
            at = raw.index(b"\r\n0\r\n") if is_split else len(raw)
            connection.writer.write(raw[:at])
            await asyncio.sleep(0.1 if is_split else 0)
            connection.writer.write(raw[at:])

            head, _ = await connection.answer(30)
            connection.writer.close()

            assert head.split()[1] in ((b"400",) if bearer == token() else (b"400", b"401")), trailer
            assert b"access-control-allow-origin" not in head.lower()
            assert b"forged" not in head
    await asyncio.sleep(0.1)
    assert behind.addresses() <= {"127.0.0.1", *clients}


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


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez"])
async def test_metrics_and_health_checks_are_not_public(behind: Behind, path: str) -> None:
    async with client_from("127.0.0.1", behind.port) as here, client_from("127.0.0.7", behind.port) as elsewhere:
        assert (await here.get(path)).status_code == 200
        assert (await elsewhere.get(path)).status_code == 403
        assert (await elsewhere.get("/version")).status_code == 200


async def test_large_body_is_rejected(behind: Behind) -> None:
    async with client_from("127.0.0.7", behind.port) as client:
        assert (await client.post(PATH, content=b"x" * 200_000)).status_code == 413


async def test_links_work_under_a_path_prefix(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED | {"DIALTONE_ROOT_PATH": "/phones"}) as service:
        with haproxy(tmp_path, f"127.0.0.1:{service.client.base_url.port}", under_prefix=True) as port:
            async with client_from("127.0.0.7", port) as client:
                headers = {"Authorization": f"Bearer {token()}"}
                login = await client.post(f"/phones{PATH}", headers=headers, json={"device_id": "laptop"})
                document = await client.get("/phones/openapi.json")
                outside = await client.get("/openapi.json")

    assert login.status_code == 201
    assert document.json()["servers"] == [{"url": "/phones"}]
    assert outside.status_code == 404


async def test_service_on_a_unix_socket_gets_client_addresses(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    path = tmp_path / "dialtone.sock"
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED | {"DIALTONE_HOST": f"127.0.0.1,unix:{path}"}) as service:
        with haproxy(tmp_path, f"unix@{path}") as port:
            async with client_from("127.0.0.7", port) as client:
                headers = {"Authorization": "Bearer garbage", "X-Forwarded-For": FORGED}
                assert (await client.post(PATH, headers=headers, json={"device_id": "laptop"})).status_code == 401
        await eventually(lambda: "127.0.0.7" in Behind(service, port).addresses(), 30)

        assert Behind(service, port).addresses() <= {"127.0.0.1", "127.0.0.7", "unix"}


@pytest.mark.no_cover
async def test_keep_alive_timeouts_cause_no_502(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """With the ratio of the shipped times: 5 to 75 seconds."""
    settings = PROXIED | {"DIALTONE_KEEP_ALIVE_SECONDS": str(DIALTONE_IDLE_SECONDS)}
    async with (
        replica(telnyx.url, sqlite, tmp_path, settings) as service,
        distant(service.client.base_url.port) as upstream,
    ):
        with haproxy(tmp_path, f"127.0.0.1:{upstream}", purge_seconds=DIALTONE_IDLE_SECONDS / 15) as port:
            url = f"http://127.0.0.1:{port}"
            statuses = await post_around_timeouts(lambda _: http_client(url, timeout=60))

    assert set(statuses) <= {200, 201}
    assert statuses.total() == 400
