"""Behind Caddy with the shipped configuration: client addresses, limits, a path prefix, long tokens and keep-alive."""

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http_server import free_port, http_client
from tests.support.proxied_load import DIALTONE_IDLE_SECONDS, PROXY_IDLE_SECONDS, distant, post_around_timeouts
from tests.support.proxies import PROXIED, client_from, running_proxy
from tests.support.replicas import ROOT, Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token, token_of_length
from tests.support.waiting import eventually

PATH = "/v1/telephony-credentials"
RUBBISH = {"Authorization": "Bearer rubbish"}

pytestmark = pytest.mark.skipif(
    shutil.which("caddy") is None and not os.environ.get("REQUIRE_ALL"), reason="Caddy is not installed"
)


@contextmanager
def caddy(folder: Path, upstream: str, *, under_prefix: bool = False, idle_seconds: float = 60) -> Iterator[int]:
    """Run Caddy with the shipped file, the addresses of this machine, and without TLS. Yields its port."""
    port = free_port()
    text = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    for shipped, here in (
        ("{\n\tservers", "{\n\tadmin off\n\tauto_https off\n\tservers"),
        ("phones.example.com {", f"http://127.0.0.1:{port} {{"),
        ("reverse_proxy 127.0.0.1:8010", f"reverse_proxy {upstream}"),
        ("keepalive 60s", f"keepalive {idle_seconds}s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    if under_prefix:
        text = re.sub(r"(?m)^\timport dialtone$", "", text)
        text = re.sub(r"# (handle_path .*|\timport dialtone|\})", r"\1", text)
    main = folder / "Caddyfile"
    main.write_text(text)
    variables = os.environ | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    arguments = ["--config", str(main), "--adapter", "caddyfile"]
    checked = subprocess.run(
        ["caddy", "validate", *arguments], env=variables, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    with running_proxy(["caddy", "run", *arguments], port, folder, variables):
        yield port


@dataclass
class Behind:
    """The service behind Caddy."""

    service: Replica
    port: int

    async def ask(self, path: str, method: str = "GET", address: str = "127.0.0.1", **content: Any) -> httpx.Response:
        async with client_from(address, self.port) as client:
            return await client.request(method, path, **content)

    async def issue(self, prefix: str = "", **headers: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token()}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.ask(f"{prefix}{PATH}", "POST", headers=headers, json={"device_id": "laptop"})


@pytest.fixture
async def behind(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Behind]:
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED) as service:
        with caddy(tmp_path, f"127.0.0.1:{service.client.base_url.port}") as port:
            yield Behind(service, port)


async def test_client_address_is_the_clients(behind: Behind) -> None:
    assert (await behind.issue(X_Forwarded_For="203.0.113.9")).status_code == 201
    await behind.ask(PATH, address="127.0.0.7", headers=RUBBISH)
    await eventually(lambda: behind.service.log.read_text().count('"audit"') >= 2)

    audited = re.findall(r'"audit".*?"client_address": ?"([^"]*)"', behind.service.log.read_text())
    assert audited == ["127.0.0.1", "127.0.0.7"]


async def test_failures_are_counted_per_client_address(behind: Behind) -> None:
    statuses = [(await behind.ask(PATH, address="127.0.0.7", headers=RUBBISH)).status_code for _ in range(7)]

    assert statuses == [401] * 6 + [429]
    assert (await behind.issue()).status_code == 201


@pytest.mark.parametrize(("length", "status"), [(12_288, 201), (12_289, 401)])
async def test_longest_token_passes(behind: Behind, length: int, status: int) -> None:
    answer = await behind.issue(Authorization=f"Bearer {token_of_length(length)}", Cookie="c" * 3000)

    assert answer.status_code == status


async def test_large_body_is_rejected(behind: Behind) -> None:
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}

    assert (await behind.ask(PATH, "POST", headers=headers, content=b"x" * 200_000)).status_code == 413


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez"])
async def test_metrics_and_health_checks_are_not_public(behind: Behind, path: str) -> None:
    assert (await behind.ask(path)).status_code == 200
    assert (await behind.ask(path, address="127.0.0.7")).status_code == 403
    assert (await behind.ask("/version", address="127.0.0.7")).status_code == 200


async def test_links_work_under_a_path_prefix(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED | {"DIALTONE_ROOT_PATH": "/phones"}) as service:
        with caddy(tmp_path, f"127.0.0.1:{service.client.base_url.port}", under_prefix=True) as port:
            behind = Behind(service, port)

            login = await behind.issue("/phones")
            document = await behind.ask("/phones/openapi.json")

    assert login.status_code == 201
    assert document.json()["servers"] == [{"url": "/phones"}]


async def test_service_on_a_unix_socket_gets_client_addresses(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    path = tmp_path / "dialtone.sock"
    async with replica(telnyx.url, sqlite, tmp_path, PROXIED | {"DIALTONE_HOST": f"127.0.0.1,unix:{path}"}) as service:
        with caddy(tmp_path, f"unix/{path}") as port:
            assert (await Behind(service, port).issue(X_Forwarded_For="203.0.113.9")).status_code == 201
        await eventually(lambda: '"audit"' in service.log.read_text())

        assert '"127.0.0.1"' in service.log.read_text()
        assert "203.0.113.9" not in service.log.read_text()


@pytest.mark.no_cover
async def test_keep_alive_timeouts_cause_no_502(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    settings = PROXIED | {"DIALTONE_KEEP_ALIVE_SECONDS": str(DIALTONE_IDLE_SECONDS)}
    async with (
        replica(telnyx.url, sqlite, tmp_path, settings) as service,
        distant(service.client.base_url.port) as upstream,
    ):
        with caddy(tmp_path, f"127.0.0.1:{upstream}", idle_seconds=PROXY_IDLE_SECONDS) as port:
            statuses = await post_around_timeouts(lambda _: http_client(f"http://127.0.0.1:{port}", timeout=60))

    assert set(statuses) <= {200, 201}
    assert statuses.total() == 400
