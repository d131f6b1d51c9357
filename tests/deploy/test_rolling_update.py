"""A rolling update behind nginx loses no request, with the probes and the drain times of the Kubernetes manifests."""

import asyncio
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.databases import migrate_database
from tests.support.front_server import Connection
from tests.support.http_server import free_port
from tests.support.proxies import running_proxy
from tests.support.replicas import ROOT
from tests.support.rollout import Endpoints, Pod, RolloutTimes
from tests.support.sandbox import Telnyx
from tests.support.tokens import token

REQUESTS = int(os.environ.get("ROLLOUT_REQUESTS", "300"))
"""Set ROLLOUT_REQUESTS=2000 for the long form (`make rollout`): three replicas and the manifests' own times."""

IS_LONG = REQUESTS > 300
REPLICAS, REPLACED, SPEED = (3, 3, 1.0) if IS_LONG else (2, 1, 5.0)
CALLERS = 8
SHIPPED = ROOT / "deploy" / "nginx"
PATH = "/v1/telephony-credentials"

pytestmark = [
    pytest.mark.skipif(
        shutil.which("nginx") is None and not os.environ.get("REQUIRE_ALL"), reason="nginx is not installed"
    ),
    pytest.mark.no_cover,
]


@contextmanager
def nginx(folder: Path, endpoints: Endpoints) -> Iterator[int]:
    """nginx with the shipped file, without TLS, in front of the endpoints. Yields its port."""
    port, main = free_port(), folder / "nginx.conf"

    def write(ports: list[int]) -> None:
        servers = "".join(f"server 127.0.0.1:{one} max_fails=0;" for one in ports) or "server 127.0.0.1:1 down;"
        text = (SHIPPED / "dialtone.conf").read_text()
        for shipped, here in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
            ("server 127.0.0.1:8010 max_fails=0;", servers),
            ("/etc/nginx/dialtone-proxy.conf", str(SHIPPED / "dialtone-proxy.conf")),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        text = re.sub(r"ssl_certificate.*;", "", text)
        main.write_text(
            f"pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off; worker_processes 1;"
            f"events {{ worker_connections 512; }} http {{ access_log off;"
            f"client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n{text}\n}}"
        )

    def reload(ports: list[int]) -> None:
        write(ports)
        subprocess.run(["nginx", "-s", "reload", "-c", main], check=True, capture_output=True)

    write(endpoints.ports)
    with running_proxy(["nginx", "-c", str(main)], port, folder):
        endpoints.reload = reload
        yield port
        endpoints.reload = None


def request(bearer: str, device: str) -> bytes:
    """A request on a connection of its own, because nginx closes those of its clients when it reloads."""
    body = f'{{"device_id": "{device}"}}'
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Load:
    """Callers that log in without a pause, until `is_over` is set and all requests were sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[str] = Counter()
        self.is_over = False

    async def run(self, requests: int) -> None:
        await asyncio.gather(*(self._call(number, -(-requests // CALLERS)) for number in range(CALLERS)))

    async def _call(self, number: int, requests: int) -> None:
        bearer, sent = token(f"user-{number}"), 0
        while sent < requests or not self.is_over:
            # Four devices, whose logins are new, cached, or cached at another replica.
            self.statuses[await self._status(number, request(bearer, f"tab-{sent % 4}"))] += 1
            sent += 1
            await asyncio.sleep(0.03)  # nginx allows 50 requests a second from one address

    async def _status(self, number: int, raw: bytes) -> str:
        try:
            connection = await Connection.to(self._port, f"127.0.0.{number + 2}")
            connection.writer.write(raw)
            head, _ = await connection.answer(30)
            connection.writer.close()
        except (OSError, EOFError, TimeoutError) as error:
            return repr(error)
        return head.split()[1].decode()


@pytest.mark.timeout(300)
async def test_rolling_update_loses_no_request(telnyx: Telnyx, postgres: str, tmp_path: Path) -> None:
    times = RolloutTimes.of_manifests(SPEED)
    await migrate_database(postgres)
    endpoints, pods, stops = Endpoints(), [], []
    try:
        starts = (Pod.start(telnyx.url, postgres, tmp_path, endpoints, times) for _ in range(REPLICAS))
        pods.extend(await asyncio.gather(*starts))
        with nginx(tmp_path, endpoints) as port:
            load = Load(port)
            running = asyncio.create_task(load.run(REQUESTS))
            for _ in range(REPLACED):
                pods.append(await Pod.start(telnyx.url, postgres, tmp_path, endpoints, times))
                stops.append(await pods.pop(0).delete())
            load.is_over = True
            await running
    finally:
        for pod in pods:
            await pod.close()

    print(f"{load.statuses.total()} requests: {dict(load.statuses)}; stops took {[round(one, 1) for one in stops]} s")
    assert load.statuses.keys() <= {"200", "201"}
    assert load.statuses.total() >= REQUESTS
    assert max(stops) < times.grace


def test_readiness_fails_before_a_replica_stops_listening() -> None:
    times = RolloutTimes.of_manifests(1)

    assert times.drain >= (times.failure_threshold + 1) * times.period


def test_grace_period_is_longer_than_all_steps_of_a_stop() -> None:
    times = RolloutTimes.of_manifests(1)

    assert times.grace > times.pre_stop + times.drain + times.shutdown
