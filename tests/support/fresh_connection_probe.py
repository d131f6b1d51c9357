"""Measures a service from outside, over fresh connections: `python -m tests.support.fresh_connection_probe PORT PID`.

Reads access tokens from standard input, one a line. Every 50 ms it requests /livez; every 500 ms it requests the first
login of the next token's user. Prints a line after the first requests. Ends with its input, and prints the seconds of
each request and the process's memory. Time in which a process waited for a processor does not count.
"""

import json
import os
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

INTERVAL_SECONDS = 0.05
LOGIN_INTERVAL_SECONDS = 0.5
TIMEOUT_SECONDS = 10.0
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BODY = b'{"device_id": "laptop"}'


def login(bearer: str) -> bytes:
    return (
        f"POST /v1/telephony-credentials HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY


def ask(port: int, request: bytes) -> tuple[float, int]:
    """Seconds, and the status; 0 if there was no response."""
    began, heard = time.perf_counter(), b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as client:
        client.sendall(request)
        while part := client.recv(65_536):
            heard += part
    status = int(heard[9:12]) if heard.startswith(b"HTTP/1.1 ") else 0
    return time.perf_counter() - began, status


def memory(pid: str) -> float:
    """Resident memory in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def seconds_in_run_queues(pid: int | str) -> float:
    """Time that the main threads of that process and of this one have waited for a processor."""
    paths = [Path(f"/proc/{one}/schedstat") for one in (pid, "self")]
    return sum(int(path.read_text().split()[1]) for path in paths if path.exists()) / 1e9


def measure(port: int, pid: str, request: bytes) -> tuple[float, int]:
    waited = seconds_in_run_queues(pid)
    took, status = ask(port, request)
    return max(0.0, took - (seconds_in_run_queues(pid) - waited)), status


def main(port: int, pid: str) -> None:
    bearers: list[str] = []
    while (line := sys.stdin.readline().strip()) != "":
        bearers.append(line)
    livez = [measure(port, pid, LIVEZ)]
    logins = [measure(port, pid, login(bearers.pop()))] if bearers else []
    megabytes = [memory(pid)]
    sys.stdout.write("measuring\n")
    sys.stdout.flush()
    next_login = time.monotonic() + LOGIN_INTERVAL_SECONDS
    while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
        livez.append(measure(port, pid, LIVEZ))
        megabytes.append(memory(pid))
        if bearers and time.monotonic() >= next_login:
            next_login += LOGIN_INTERVAL_SECONDS
            logins.append(measure(port, pid, login(bearers.pop())))
    json.dump({"livez": livez, "logins": logins, "megabytes": megabytes}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
