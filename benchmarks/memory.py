"""Memory of a device: the growth of the server's resident memory with devices whose logins are cached.

It is measured after each device's first page load, which issues a login, and after two more, each with a new access
token. The stub's login tokens have about 800 characters, as Telnyx's.
"""

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.goals import DEVICE_BYTES, Line, reached
from benchmarks.tokens import issue, login_request, sign_all
from benchmarks.warm import warm

FIRST = 1_000
"""Devices before the measurement, so that what the server needs once is not counted."""

CACHE_MB = 1024
PAGE_LOADS = ("one page load", "two page loads", "three page loads")


def measure(devices: int) -> list[Line]:
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        server = stack.enter_context(
            processes.dialtone(f"{stub.url}/v2", more={"DIALTONE_LOGIN_CACHE_MB": str(CACHE_MB)})
        )
        for _ in range(2):
            warm(server, [issue(f"first-{number}") for number in range(FIRST)])
        before = server.megabytes
        grown = {}
        for loads in PAGE_LOADS:
            warm(server, [login_request(token) for token in sign_all([f"user-{number}" for number in range(devices)])])
            grown[loads] = (server.megabytes - before) / devices * 1e6
    details = f"{devices:,} devices after {FIRST:,} others, which take {before:.0f} MB; each page load has a new token"
    return [reached(f"{DEVICE_BYTES}, {loads}", grown[loads], details) for loads in (PAGE_LOADS[0], PAGE_LOADS[-1])]
