"""Hostile clients, in a separate process: `python -m tests.support.hostile_clients PORT ATTACK COUNT SECONDS TOKEN`.

Each attack uses raw sockets. It ends after SECONDS, prints what it sent as JSON, and keeps no connection.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice

LOGIN = "/v1/telephony-credentials"
LARGE_FILE = "/docs/swagger-ui-bundle.js"
MAX_OPENED_PER_STEP = 50

Step = Callable[[socket.socket], bytes]
"""The next bytes for one connection; none if it only waits."""


class Sent:
    """Counts of an attack."""

    def __init__(self) -> None:
        self.bytes = self.connections = self.closed = self.received = 0


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def post(bearer: str, length: int | None, *lines: str) -> bytes:
    authorization = [f"Authorization: Bearer {bearer}"] if bearer else []
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return head("POST", LOGIN, *authorization, "Content-Type: application/json", framing, *lines)


def one_stream(port: int, first: bytes, parts: Iterator[bytes], seconds: float, sent: Sent, read_bytes: int) -> None:
    """Send without end over one connection. After it is closed, over the next one."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        sent.connections += 1
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            pending = first
            is_ended = False
            while time.monotonic() < ends:
                if not pending:
                    pending = next(parts, b"")
                    if not pending:
                        ends = min(ends, time.monotonic() + 2)
                readable, writable, _ = select.select([client], [client] if pending else [], [], 0.05)
                try:
                    if writable:
                        count = client.send(pending)
                        sent.bytes += count
                        pending = pending[count:]
                    if readable and read_bytes:
                        received = client.recv(read_bytes)
                        sent.received += len(received)
                        if not received:
                            is_ended = True
                        if read_bytes < 65_536:
                            time.sleep(0.02)
                    elif not writable:
                        time.sleep(0.01)
                except OSError:
                    is_ended = True
                if is_ended:
                    sent.closed += 1
                    time.sleep(0.02)
                    break


def many(
    port: int, count: int, first: bytes, seconds: float, sent: Sent, *, drip: bytes = b"", is_read: bool = True
) -> None:
    """Keep `count` connections open. Each sends `first`, and then one byte of `drip` a second.

    Connections that the server closes are opened again. Unless `is_read`, nothing is read.
    """
    ends = time.monotonic() + seconds
    open_now: dict[int, tuple[socket.socket, bytearray]] = {}
    drips = {}
    poll = select.epoll()
    next_drip = time.monotonic() + 1
    while time.monotonic() < ends:
        for _ in range(min(MAX_OPENED_PER_STEP, count - len(open_now))):
            client = socket.socket()
            with suppress(OSError):
                client.settimeout(2)
                client.connect(("127.0.0.1", port))
                client.setblocking(False)
                sent.connections += 1
                open_now[client.fileno()] = (client, bytearray(first))
                drips[client.fileno()] = cycle(drip) if drip else None
                poll.register(client, (select.EPOLLIN if is_read else 0) | select.EPOLLOUT | select.EPOLLHUP)
                continue
            client.close()
        for number, events in poll.poll(0.02, 1_000):
            client, pending = open_now[number]
            is_ended = bool(events & (select.EPOLLHUP | select.EPOLLERR))
            with suppress(BlockingIOError):
                try:
                    if events & select.EPOLLIN:
                        received = client.recv(65_536)
                        sent.received += len(received)
                        is_ended = is_ended or not received
                    if events & select.EPOLLOUT and pending:
                        done = client.send(pending)
                        sent.bytes += done
                        del pending[:done]
                except OSError:
                    is_ended = True
            if is_ended:
                sent.closed += 1
                poll.unregister(client)
                client.close()
                del open_now[number], drips[number]
            elif not pending:
                poll.modify(client, (select.EPOLLIN if is_read else 0) | select.EPOLLHUP)
        if drip and time.monotonic() >= next_drip:
            next_drip += 1
            for number, (client, pending) in open_now.items():
                if not pending and (bytes_left := drips[number]) is not None:
                    with suppress(OSError):
                        sent.bytes += client.send(bytes([next(bytes_left)]))
    for client, _ in open_now.values():
        client.close()


def run(port: int, attack: str, count: int, seconds: float, bearer: str) -> Sent:
    sent = Sent()
    livez, body = head("GET", "/livez"), b'{"device_id": "laptop"}'

    def repeated(part: bytes, times: int = 2**62) -> Iterator[bytes]:
        return islice(cycle([part]), times)

    def stream(first: bytes, parts: Iterator[bytes], read_bytes: int = 65_536) -> None:
        one_stream(port, first, parts, seconds, sent, read_bytes)

    def hold(first: bytes, *, drip: bytes = b"", is_read: bool = True) -> None:
        many(port, count, first, seconds, sent, drip=drip, is_read=is_read)

    match attack:
        case "pipelined requests, nothing read":
            stream(b"", repeated(livez * 1_000, count // 1_000), 0)
        case "pipelined requests, read slowly":
            stream(b"", repeated(livez * 1_000, count // 1_000), 2_048)
        case "pipelined requests, all read":
            stream(b"", repeated(livez * 1_000, count // 1_000))
        case "pipelined cached logins, nothing read":
            stream(b"", repeated((post(bearer, len(body)) + body) * 100), 0)
        case "pipelined cached logins, all read":
            stream(b"", repeated((post(bearer, len(body)) + body) * 100))
        case "one header value of 100 MB":
            stream(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", repeated(b"x" * 100_000, 1_000))
        case "endless headers":
            stream(b"GET / HTTP/1.1\r\nHost: a\r\n", repeated(b"X-A: b\r\n" * 10_000))
        case "endless empty lines":
            stream(b"", repeated(b"\r\n" * 50_000))
        case "endless chunk extension":
            stream(post(bearer, None) + b"1;", repeated(b"x" * 100_000))
        case "endless tiny chunks":
            stream(post(bearer, None), repeated(b"1\r\n \r\n" * 10_000))
        case "endless body":
            stream(post(bearer, 10**14), repeated(b" " * 100_000))
        case "silent connections":
            hold(b"")
        case "dripped heads":
            hold(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: ", drip=b"x")
        case "half bodies of 30 KB with a token" | "half bodies of 30 KB without a token":
            hold(post(bearer, 40_000) + b" " * 30_000)
        case "half bodies of 10 bytes with a token" | "half bodies of 10 bytes without a token":
            hold(post(bearer, 40_000) + b" " * 10)
        case "half chunked bodies with a token":
            hold(post(bearer, None) + b"a\r\n          \r\n")
        case "expected bodies with a token" | "expected bodies without a token":
            hold(post(bearer, 100, "Expect: 100-continue"))
        case "too long bodies with a token" | "too long bodies without a token":
            hold(post(bearer, 10**9) + b" " * 1_000)
        case "whole bodies of 150 KB without a token":
            hold((post(bearer, 150_000) + b" " * 150_000) * 4)
        case "idle connections":
            hold(livez)
        case "unread responses":
            hold(head("GET", LARGE_FILE), is_read=False)
        case "unread pipelined responses":
            hold(livez * 50_000, is_read=False)
        case "metrics from many connections":
            hold(head("GET", "/metrics") * 50)
        case _:
            raise ValueError(attack)
    return sent


if __name__ == "__main__":
    _, port_, attack_, count_, seconds_, bearer_ = sys.argv
    json.dump(vars(run(int(port_), attack_, int(count_), float(seconds_), bearer_)), sys.stdout)
