"""A rolling update behind nginx: the parts of Kubernetes that decide when a replica gets requests and when it stops."""

import asyncio
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.support.http_server import free_port, http_client
from tests.support.replicas import ROOT, Replica, command, replica_environment, wait_until_ready


@dataclass(frozen=True)
class RolloutTimes:
    """The times of the Kubernetes manifests in seconds. The pauses and the period are divided by `speed`.

    The drain is not shortened, because a busy machine delays the probes that have to see it.
    """

    pre_stop: float
    drain: float
    shutdown: float
    grace: float
    """From the deletion of a pod to SIGKILL."""
    period: float
    """Between two readiness probes."""
    failure_threshold: int
    """Failed probes after which a pod is not ready."""

    @classmethod
    def of_manifests(cls, speed: float) -> Self:
        text = (ROOT / "deploy" / "kubernetes" / "dialtone.yaml").read_text()
        objects: dict[str, dict[str, Any]] = {found["kind"]: found for found in yaml.safe_load_all(text)}
        config, pod = objects["ConfigMap"]["data"], objects["Deployment"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        probe = container["readinessProbe"]
        return cls(
            pre_stop=float(container["lifecycle"]["preStop"]["exec"]["command"][1]) / speed,
            drain=float(config["DIALTONE_DRAIN_SECONDS"]),
            shutdown=float(config["DIALTONE_SHUTDOWN_TIMEOUT_SECONDS"]),
            grace=float(pod["terminationGracePeriodSeconds"]),
            period=float(probe["periodSeconds"]) / speed,
            failure_threshold=int(probe["failureThreshold"]),
        )


class Endpoints:
    """The ports that nginx sends requests to."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.reload: Callable[[list[int]], None] | None = None
        """Writes nginx's configuration for these ports, and reloads it. None while nginx does not run."""

    def change(self, port: int, *, is_ready: bool) -> None:
        if is_ready != (port in self.ports):
            self.ports = sorted({*self.ports, port} if is_ready else set(self.ports) - {port})
            if self.reload is not None:
                self.reload(self.ports)


class Pod:
    """A replica with a readiness probe, which alone decides whether it gets requests.

    Kubernetes also removes a deleted pod's endpoint. That may take longer than a probe, so this does not rely on it.
    """

    def __init__(self, running: Replica, port: int, endpoints: Endpoints, times: RolloutTimes) -> None:
        self._running = running
        self._port = port
        self._endpoints = endpoints
        self._times = times
        self._probing = asyncio.create_task(self._probe())

    @classmethod
    async def start(
        cls, telnyx_url: str, database: str, folder: Path, endpoints: Endpoints, times: RolloutTimes
    ) -> Self:
        """Start a replica, and wait until it is ready and gets requests."""
        port = free_port()
        settings = {
            "DIALTONE_PORT": str(port),
            "DIALTONE_ADMIN_PORT": str(free_port()),
            "DIALTONE_DRAIN_SECONDS": str(times.drain),
            "DIALTONE_SHUTDOWN_TIMEOUT_SECONDS": str(int(times.shutdown)),
        }
        log = folder / f"pod-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command("serve"), env=replica_environment(telnyx_url, database) | settings, cwd=folder, stderr=output
            )
        client = http_client(f"http://127.0.0.1:{settings['DIALTONE_ADMIN_PORT']}")
        await wait_until_ready(client, process, log)
        pod = cls(Replica(process, client, log), port, endpoints, times)
        endpoints.change(port, is_ready=True)
        return pod

    async def delete(self) -> float:
        """Stop it as a kubelet does. Returns how long that took, in seconds."""
        began = time.monotonic()
        await asyncio.sleep(self._times.pre_stop)
        self._running.process.terminate()
        await asyncio.to_thread(self._running.process.wait, self._times.grace - self._times.pre_stop)
        await self.close()
        return time.monotonic() - began

    async def close(self) -> None:
        self._probing.cancel()
        with suppress(asyncio.CancelledError):
            await self._probing
        await self._running.client.aclose()
        self._running.kill()

    async def _probe(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(self._times.period)
            try:
                is_ready = (await self._running.client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                is_ready = False
            failures = 0 if is_ready else failures + 1
            if is_ready or failures >= self._times.failure_threshold:
                self._endpoints.change(self._port, is_ready=is_ready)
