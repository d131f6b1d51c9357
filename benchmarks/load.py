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
from functools import partial
from pathlib import Path

from benchmarks.processes import HERE, LOAD_CORES, pin

CONNECTIONS = 64
IS_WRK = shutil.which("wrk") is not None
GENERATOR = "wrk" if IS_WRK else "autocannon"


@dataclass(frozen=True)
class Request:
    """One request, which is sent once or repeatedly."""

    path: str
    method: str = "GET"
    token: str | None = None
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers besides `Authorization`, and those of the body."""

    def all_headers(self) -> list[tuple[str, str]]:
        """All headers except `Host` and `Content-Length`."""
        headers = [] if self.token is None else [("authorization", f"Bearer {self.token}")]
        if self.body:
            headers.append(("content-type", "application/json"))
        return [*headers, *self.headers]

    def line(self) -> str:
        """The request as a line of the load generator's file."""
        named = "\x02".join(f"{name}={value}" for name, value in self.all_headers())
        return "\x01".join((self.method, self.path, named, self.body))

    def to_bytes(self) -> bytes:
        """The bytes that a load generator sends."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1:8010"]
        lines += [f"{name}: {value}" for name, value in self.all_headers()]
        if self.body:
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body.encode()


@dataclass(frozen=True)
class Once:
    """Requests of which each is sent at most once, in equal parts for the rounds."""

    requests: Sequence[Request]

    def part(self, number: int, rounds: int) -> "Once":
        size = len(self.requests) // rounds
        return Once(self.requests[number * size : (number + 1) * size])


Load = Sequence[Request] | Once


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
    requests: int = 0
    """Number of responses."""

    def compared_with(self, other: "Reading") -> str:
        """Both rates, and the duration of a request in the first."""
        rates = f"{self.requests_a_second:,.0f} to {other.requests_a_second:,.0f} requests/s"
        return f"{rates}, p50 {self.p50_ms:.2f}, p99 {self.p99_ms:.2f} ms (to {other.p99_ms:.2f} ms)"


def send(url: str, load: Load, seconds: float, connections: int = CONNECTIONS, cores: set[int] = LOAD_CORES) -> Reading:
    """Send all requests in turn at the maximum rate, with a given concurrency. `Once` may end earlier."""
    is_once = isinstance(load, Once)
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        file.writelines(f"{request.line()}\n" for request in (load.requests if isinstance(load, Once) else load))
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
        env = os.environ | {"REQUESTS": file.name, "ONCE": "1" if is_once else ""}
        run = subprocess.run(
            command,
            env=env,
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            preexec_fn=partial(pin, cores),
        )
    seen = json.loads(run.stdout.strip().splitlines()[-1])
    rate = seen["requests"] / seen["seconds"] if seen["requests"] else 0.0
    return Reading(rate, seen["p50_ms"], seen["p99_ms"], seen["other"], seen["broken"], seen["requests"])


def median(readings: Sequence[Reading]) -> Reading:
    """The median of each measurement, and the sums of errors."""
    return Reading(
        statistics.median(reading.requests_a_second for reading in readings),
        statistics.median(reading.p50_ms for reading in readings),
        statistics.median(reading.p99_ms for reading in readings),
        sum(reading.refused for reading in readings),
        sum(reading.broken for reading in readings),
        sum(reading.requests for reading in readings),
    )


def installed() -> bool:
    """Whether the Node packages are installed: the peers, and autocannon."""
    return Path(HERE / "node_modules" / "jose").is_dir() and shutil.which("node") is not None
