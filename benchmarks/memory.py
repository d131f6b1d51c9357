"""Memory per device: the growth of the server's resident memory with devices whose logins are cached.

`python -m benchmarks.memory [DEVICES]` prints it after each device's first request, which mints a login, after a second
one with another token, which the fast path answers, and after a third. The stub's login tokens have about 800
characters, as Telnyx's.
"""

import sys
from contextlib import ExitStack

from benchmarks import processes
from benchmarks.processes import Server
from benchmarks.tokens import issue, login_request, sign_all
from benchmarks.warm import warm

DEVICES = 20_000
FIRST = 1_000
"""Devices before the measurement, so that what the server needs once is not counted."""

CACHE_MB = 1024
STEPS = ("minted", "a second request, another token", "a third request, another token")


def main(devices: int) -> None:
    from app.composition.login_cache import BYTES_PER_DEVICE

    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        server = stack.enter_context(processes.dialtone(f"{stub.url}/v2", DIALTONE_LOGIN_CACHE_MB=str(CACHE_MB)))
        for _ in range(2):
            warm(server, [issue(f"first-{number}") for number in range(FIRST)])
        print(f"{server.megabytes:.1f} MB with {FIRST:,} devices; BYTES_PER_DEVICE is {BYTES_PER_DEVICE:,}")
        _grow(server, devices)


def _grow(server: Server, devices: int) -> None:
    """Print the growth after each step."""
    before = server.megabytes
    for step in STEPS:
        warm(server, [login_request(token) for token in sign_all([f"user-{number}" for number in range(devices)])])
        kilobytes = (server.megabytes - before) / devices * 1000
        print(f"{devices:,} devices, {step}: {server.megabytes:.1f} MB, {kilobytes:.2f} KB a device", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES)
