"""Behind nginx with the shipped configuration: client addresses, limits, CORS, docs, and rejected requests."""

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.http_server import free_port
from tests.support.proxied_load import DIALTONE_IDLE_SECONDS, PROXY_IDLE_SECONDS, distant, post_around_timeouts
from tests.support.proxies import PROXIED, running_proxy
from tests.support.replicas import Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token, token_of_length
from tests.support.waiting import eventually

SHIPPED = Path(__file__).parent.parent.parent / "deploy" / "nginx"
RUBBISH = {"Authorization": "Bearer rubbish"}
PAGE = {"Origin": "https://app.example.com"}

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None and not os.environ.get("REQUIRE_ALL"), reason="nginx is not installed"
)


def certificate(folder: Path) -> None:
    """Create a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nginx")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


def configured(folder: Path, port: int, upstream: str, *, under_prefix: bool, upstream_idle_seconds: int) -> Path:
    """The shipped files with the paths and ports of this machine."""
    text = (SHIPPED / "dialtone.conf").read_text()
    for shipped, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("phones.example.com.pem", "tls.pem"),
        ("phones.example.com.key", "tls.key"),
        ("/etc/nginx/tls", str(folder)),
        ("server_name phones.example.com", "server_name 127.0.0.1"),
        ("server 127.0.0.1:8010", f"server {upstream}"),
        ("keepalive_timeout 60s", f"keepalive_timeout {upstream_idle_seconds}s"),
        ("/etc/nginx/dialtone-proxy.conf", str(SHIPPED / "dialtone-proxy.conf")),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    if under_prefix:
        text = text.replace("location / {", "location /elsewhere/ {")
        text = re.sub(r"# (location /phones/ \{|    rewrite|    include|\})", r"\1", text)
    main = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root, nginx would serve as another user, who may not open the test's files.
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(
        f"{user} pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off; worker_processes 1;"
        f"events {{ worker_connections 512; }} http {{ access_log off; {temporary}\n{text}\n}}"
    )
    return main


@contextmanager
def nginx(folder: Path, upstream: str, *, under_prefix: bool = False, upstream_idle_seconds: int = 60) -> Iterator[int]:
    certificate(folder)
    port = free_port()
    main = configured(folder, port, upstream, under_prefix=under_prefix, upstream_idle_seconds=upstream_idle_seconds)
    checked = subprocess.run(["nginx", "-t", "-c", main], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with running_proxy(["nginx", "-c", str(main)], port, folder):
        yield port


class NginxSetup:
    """The service behind nginx; requests can come from any loopback address."""

    def __init__(self, service: Replica, port: int, folder: Path) -> None:
        self.service = service
        self.port = port
        self._trust = ssl.create_default_context(cafile=str(folder / "tls.pem"))

    async def ask(
        self, path: str, method: str = "GET", *, address: str = "127.0.0.1", **content: Any
    ) -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(local_address=address, verify=self._trust)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"https://127.0.0.1:{self.port}", timeout=30
        ) as client:
            return await client.request(method, path, **content)

    async def issue(self, prefix: str = "", **headers: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token()}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.ask(
            f"{prefix}/v1/telephony-credentials", "POST", headers=headers, json={"device_id": "laptop"}
        )

    def audited(self) -> list[str]:
        """Client addresses in the audit events of the log."""
        return re.findall(r'"audit".*?"client_address": ?"([^"]*)"', self.service.log.read_text())


@pytest.fixture
async def behind(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[NginxSetup]:
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED) as service:
        upstream = f"{service.client.base_url.host}:{service.client.base_url.port}"
        with nginx(tmp_path, upstream) as port:
            yield NginxSetup(service, port, tmp_path)


async def test_client_address_is_the_clients(behind: NginxSetup) -> None:
    assert (await behind.issue(X_Forwarded_For="203.0.113.9")).status_code == 201
    await behind.ask("/v1/telephony-credentials", address="127.0.0.7", headers=RUBBISH)
    await eventually(lambda: len(behind.audited()) >= 2, 30)

    assert behind.audited() == ["127.0.0.1", "127.0.0.7"]


async def test_failures_are_counted_per_client_address(behind: NginxSetup) -> None:
    statuses = [
        (await behind.ask("/v1/telephony-credentials", address="127.0.0.7", headers=RUBBISH | PAGE)) for _ in range(7)
    ]

    assert [answer.status_code for answer in statuses] == [401] * 6 + [429]
    assert statuses[-1].headers["access-control-allow-origin"] == PAGE["Origin"]
    assert statuses[-1].json()["code"] == "rate_limited"
    assert (await behind.issue()).status_code == 201


async def test_cors_works_for_responses_errors_and_preflights(behind: NginxSetup) -> None:
    preflight = await behind.ask(
        "/v1/telephony-credentials", "OPTIONS", headers=PAGE | {"Access-Control-Request-Method": "POST"}
    )
    refused = await behind.ask("/v1/telephony-credentials", headers=PAGE)

    assert preflight.status_code == 200
    for answer in (preflight, refused):
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
    assert "server" not in {name.lower() for name in refused.headers} or "/" not in refused.headers["server"]


async def test_malformed_requests_are_rejected_by_nginx(behind: NginxSetup) -> None:
    async def raw(text: str) -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", behind.port, ssl=context)
        writer.write(text.encode())
        answer = await reader.readline()
        writer.close()
        return answer

    twice = await raw("GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    smuggled = await raw(
        "POST /v1/telephony-credentials HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    huge = await behind.ask("/v1/push-credentials", "POST", content=b"x" * 200_000)
    before = behind.service.log.read_text()

    assert b" 400 " in twice
    assert b" 400 " in smuggled
    assert huge.status_code == 413
    assert "push-credentials" not in before


async def test_slow_request_is_buffered_by_nginx(behind: NginxSetup) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", behind.port, ssl=context)
    head = f"POST /v1/telephony-credentials HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token()}\r\n"
    body = '{"device_id": "slow"}'
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body[:5]}".encode())
    await asyncio.sleep(1)
    is_outside = '"event":"request"' not in requests_but_probes(behind)
    writer.write(body[5:].encode())

    assert is_outside
    assert b" 201 " in await reader.readline()
    writer.close()


def requests_but_probes(behind: NginxSetup) -> str:
    return "\n".join(line for line in behind.service.log.read_text().splitlines() if "/readyz" not in line)


@pytest.mark.parametrize(("length", "status"), [(12_288, 201), (12_289, 401)])
async def test_longest_token_passes_the_buffers_of_nginx(behind: NginxSetup, length: int, status: int) -> None:
    answer = await behind.issue(Authorization=f"Bearer {token_of_length(length)}", Cookie="c" * 3000)

    assert answer.status_code == status


async def test_metrics_are_not_public(behind: NginxSetup) -> None:
    assert (await behind.ask("/metrics")).status_code == 200
    assert (await behind.ask("/metrics", address="127.0.0.7")).status_code == 403
    assert (await behind.ask("/version", address="127.0.0.7")).status_code == 200


async def test_links_work_under_a_path_prefix(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    settings = PROXIED | {"DIALTONE_ROOT_PATH": "/phones"}
    async with replica(telnyx.url, sqlite, tmp_path, settings, is_ready=True) as service:
        upstream = f"{service.client.base_url.host}:{service.client.base_url.port}"
        with nginx(tmp_path, upstream, under_prefix=True) as port:
            behind = NginxSetup(service, port, tmp_path)

            login = await behind.issue("/phones")
            docs = await behind.ask("/phones/docs")
            script = await behind.ask("/phones/docs/swagger-ui-bundle.js")
            document = await behind.ask("/phones/openapi.json")
            operator = {"Authorization": f"Bearer {token('olga', scope='dialtone:admin')}"}
            sweep = await behind.ask("/phones/v1/admin/sweeps", "POST", headers=operator, json={})
            outcome = await behind.ask(sweep.headers["location"], headers=operator)
            refused = await behind.ask("/phones/v1/telephony-credentials", headers=RUBBISH | PAGE)

    assert login.status_code == 201
    assert "url: 'openapi.json'" in docs.text
    assert script.status_code == 200
    assert document.json()["servers"] == [{"url": "/phones"}]
    assert sweep.headers["location"].startswith("/phones/v1/admin/sweeps/")
    assert outcome.status_code == 200
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE["Origin"])


async def test_service_on_a_unix_socket_gets_client_addresses(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    path = tmp_path / "dialtone.sock"
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED | {"DIALTONE_HOST": f"127.0.0.1,unix:{path}"}) as service:
        with nginx(tmp_path, f"unix:{path}") as port:
            behind = NginxSetup(service, port, tmp_path)
            assert (await behind.issue(X_Forwarded_For="203.0.113.9")).status_code == 201
            await behind.ask("/v1/telephony-credentials", address="127.0.0.7", headers=RUBBISH)
        await eventually(lambda: len(behind.audited()) >= 2, 30)

        assert behind.audited() == ["127.0.0.1", "127.0.0.7"]


async def test_keep_alive_timeouts_cause_no_502(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """With the shipped order of timeouts: nginx closes idle connections before Dialtone does."""
    settings = PROXIED | {"DIALTONE_KEEP_ALIVE_SECONDS": str(DIALTONE_IDLE_SECONDS)}
    async with (
        replica(telnyx.url, sqlite, tmp_path, settings) as service,
        distant(service.client.base_url.port) as upstream,
    ):
        with nginx(tmp_path, f"127.0.0.1:{upstream}", upstream_idle_seconds=PROXY_IDLE_SECONDS) as port:
            trust = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))

            def connect(number: int) -> httpx.AsyncClient:
                transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{number + 2}", verify=trust)
                return httpx.AsyncClient(transport=transport, base_url=f"https://127.0.0.1:{port}", timeout=60)

            statuses = await post_around_timeouts(connect)

    assert set(statuses) <= {200, 201}
    assert statuses.total() == 400
