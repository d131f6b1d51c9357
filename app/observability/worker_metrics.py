"""The metrics of all workers of one service in one scrape. Each series has the label `worker`.

Each worker answers the others on a Unix socket in a folder that only this user can read.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

WORKER_SECONDS = 1.0
"""Time for a worker to send its metrics. A slower one is missing from the scrape."""

FRESH_SECONDS = 0.5
"""How long collected metrics are returned again: any client may request them, and all workers take part."""


class WorkerMetrics:
    """Sends this worker's metrics to the others, and collects theirs."""

    def __init__(self, folder: Path, number: int, workers: int, registry: CollectorRegistry) -> None:
        self._paths = [folder / f"{each}.sock" for each in range(workers)]
        self._number = number
        self._registry = registry
        self._collected: asyncio.Task[CollectorRegistry] | None = None
        self._collected_at = 0.0

    async def __aenter__(self) -> None:
        path = self._paths[self._number]
        path.unlink(missing_ok=True)  # of an earlier worker that was killed
        self._server = await asyncio.start_unix_server(self._send, path)

    async def __aexit__(self, *exit_details: object) -> None:
        self._server.close()

    async def collect(self) -> CollectorRegistry:
        """The metrics of all workers that respond."""
        if self._collected is None or time.monotonic() - self._collected_at > FRESH_SECONDS:
            self._collected_at = time.monotonic()
            self._collected = asyncio.create_task(self._collect())
        return await asyncio.shield(self._collected)

    async def _collect(self) -> CollectorRegistry:
        texts = await asyncio.gather(*(self._request(number) for number in range(len(self._paths))))
        registry = CollectorRegistry()
        registry.register(WorkerSeries(texts))
        return registry

    async def _request(self, number: int) -> str | None:
        if number == self._number:
            return generate_latest(self._registry).decode()
        try:
            async with asyncio.timeout(WORKER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._paths[number])
                try:
                    return (await reader.read()).decode()
                finally:
                    writer.close()
        except (OSError, UnicodeDecodeError):
            return None

    async def _send(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(generate_latest(self._registry))
            await writer.drain()
        except OSError:
            pass  # the other worker has ended
        finally:
            writer.close()


class WorkerSeries(Collector):
    """The series of several workers, and whether each worker responded."""

    def __init__(self, texts: Iterable[str | None]) -> None:
        """The metrics of each worker in the text format; None if it did not respond."""
        self._texts = list(texts)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dialtone_worker_up", "1 if the worker sent its metrics.", labels=["worker"])
        merged: dict[str, Metric] = {}
        for number, text in enumerate(self._texts):
            up.add_metric([str(number)], text is not None)
            for family in text_string_to_metric_families(text or ""):
                metric = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    metric.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
        yield up
        yield from merged.values()
