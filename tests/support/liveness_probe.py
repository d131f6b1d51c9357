"""Polls /livez during a storm: `python -m tests.support.liveness_probe URL PID` runs until its standard input ends."""

import json
import os
import select
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

INTERVAL_SECONDS = 0.1
"""Between two requests."""


def main(url: str, pid: str) -> None:
    at = urlsplit(url)
    connection = HTTPConnection(str(at.hostname), at.port, timeout=20)
    statm = Path(f"/proc/{pid}/statm")
    seconds: list[float] = []
    megabytes: list[float] = []
    while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
        began = time.perf_counter()
        connection.request("GET", "/livez")
        if connection.getresponse().read() != b'{"status":"alive"}':
            sys.exit("not alive")
        took = time.perf_counter() - began
        # Requests that a slow response delayed are counted as if they had been sent on time.
        seconds += [took - missed * INTERVAL_SECONDS for missed in range(int(took / INTERVAL_SECONDS) + 1)]
        megabytes.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
    json.dump({"seconds": seconds, "megabytes": megabytes}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
