"""A probe beside a storm: `python -m tests.faults.probe URL PID` asks /livez until its input ends; prints figures."""

import json
import os
import select
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

EVERY = 0.1
"""Seconds between two looks."""


def main(url: str, pid: str) -> None:
    at = urlsplit(url)
    connection = HTTPConnection(str(at.hostname), at.port, timeout=20)
    statm = Path(f"/proc/{pid}/statm")
    seconds: list[float] = []
    megabytes: list[float] = []
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        began = time.perf_counter()
        connection.request("GET", "/livez")
        if connection.getresponse().read() != b'{"status":"alive"}':
            sys.exit("not alive")
        took = time.perf_counter() - began
        # A slow answer held up the looks that were due meanwhile: they count as if they had been sent.
        seconds += [took - missed * EVERY for missed in range(int(took / EVERY) + 1)]
        megabytes.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
    json.dump({"seconds": seconds, "megabytes": megabytes}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
