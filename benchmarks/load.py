"""Load generation with wrk, or with autocannon if wrk is not installed. Both read the same file of requests."""

import json
import math
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import HERE, LOAD_CORES

CONNECTIONS = 64
IS_WRK = shutil.which("wrk") is not None
GENERATOR = "wrk" if IS_WRK else "autocannon"


@dataclass(frozen=True)
class Request:
    """One request, which is sent repeatedly."""

    path: str
    method: str = "GET"
    token: str | None = None
    body: str = ""

    def line(self) -> str:
        headers = {"authorization": f"Bearer {self.token}"} if self.token is not None else {}
        if self.body:
            headers["content-type"] = "application/json"
        named = "\x02".join(f"{name}={value}" for name, value in headers.items())
        return "\x01".join((self.method, self.path, named, self.body))


@dataclass(frozen=True)
class Reading:
    """The measurements of one run of the generator."""

    requests_a_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    """Number of responses with status 400 or above."""
    broken: int
    """Number of requests without a response."""


def send(url: str, requests: Sequence[Request], seconds: float, connections: int = CONNECTIONS) -> Reading:
    """Send all requests in turn at the maximum rate, with a given concurrency."""
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        file.write("\n".join(request.line() for request in requests) + "\n")
        file.flush()
        if IS_WRK:
            options = [
                "-t1",
                f"-c{connections}",
                f"-d{math.ceil(seconds)}s",
                "--timeout",
                "30s",
                "-s",
                str(HERE / "wrk.lua"),
            ]
            command = ["wrk", *options, url]
        else:
            command = ["node", str(HERE / "load.mjs"), url, str(connections), f"{seconds:g}"]
        env = os.environ | {"REQUESTS": file.name}
        run = subprocess.run(
            command, env=env, check=True, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=_pin
        )
    seen = json.loads(run.stdout.strip().splitlines()[-1])
    rate = seen["requests"] / seen["seconds"] if seen["requests"] else 0.0
    return Reading(rate, seen["p50_ms"], seen["p99_ms"], seen["other"], seen["broken"])


def median(readings: Sequence[Reading]) -> Reading:
    """The median of each measurement, and the sums of errors."""
    return Reading(
        statistics.median(reading.requests_a_second for reading in readings),
        statistics.median(reading.p50_ms for reading in readings),
        statistics.median(reading.p99_ms for reading in readings),
        sum(reading.refused for reading in readings),
        sum(reading.broken for reading in readings),
    )


def _pin() -> None:
    os.sched_setaffinity(0, LOAD_CORES)


def installed() -> bool:
    """Whether the Node packages are installed: the peers, and autocannon."""
    return Path(HERE / "node_modules" / "jose").is_dir() and shutil.which("node") is not None
