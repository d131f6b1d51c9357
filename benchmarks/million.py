"""A million leases: start, hot path, mint and sweep on a ledger that holds them.

`python -m benchmarks.million DATABASE_URL [COUNT]` fills a migrated ledger on either database.
"""

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.tables import leases, row_of
from app.sandbox.account import DEMO_CONNECTION
from app.vending.models import Platform
from app.vending.telephony.lease import Lease, LeaseState
from benchmarks import fresh, load, processes
from benchmarks.cold import new_devices, run
from benchmarks.goals import LEASE_BYTES, Figure, Line, at_most
from benchmarks.tokens import issue
from benchmarks.turns import in_turns
from benchmarks.warm import warm

COUNT = 1_000_000
CHUNK = 20_000
DUE = 20_000
"""Number of leases that one sweep finds expired."""

DAY = timedelta(days=1)


def rows(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    """Leases of users with two devices each. Nine of ten devices are in use; one was logged out."""
    for number in range(count):
        made = now - timedelta(seconds=number % 80_000)
        is_active = number % 10 > 0
        lease = Lease(
            id=f"{number:032x}",
            issuer=processes.ISSUER,
            subject=f"somebody-{number // 2}",
            device_id=f"device-{number % 2}",
            platform=Platform.BROWSER,
            label=None,
            connection_id=DEMO_CONNECTION,
            credential_name=f"dialtone-{number:032x}",
            ttl_seconds=86_400,
            state=LeaseState.ACTIVE if is_active else LeaseState.REVOKED,
            version=3,
            created_at=made,
            updated_at=made,
            expires_at=made + 2 * DAY,
            usable_at=made + timedelta(seconds=5),
            credential_id=f"00000000-0000-4000-9000-{number:012d}",
            sip_username=f"gencredm{number}",
        )
        yield row_of(lease)


async def fill(database: str, count: int = COUNT) -> float:
    """Insert the leases. Returns the duration in seconds."""
    began = time.monotonic()
    engine = open_engine(database_url(database))
    waiting = []
    async with engine.begin() as connection:
        for row in rows(count, datetime.now(UTC)):
            waiting.append(row)
            if len(waiting) == CHUNK:
                await connection.execute(leases.insert(), waiting)
                waiting = []
        if waiting:
            await connection.execute(leases.insert(), waiting)
    await engine.dispose()
    return time.monotonic() - began


@contextmanager
def ledger(count: int) -> Iterator[str]:
    """The URL of a new SQLite ledger with this number of leases."""
    with tempfile.TemporaryDirectory(prefix="dialtone-leases-") as folder:
        database = f"sqlite:///{folder}/ledger.db"
        env = processes.environment() | {"DIALTONE_DATABASE_URL": database}
        subprocess.run([*processes.COMMAND, "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
        took = asyncio.run(fill(database, count))
        print(f"  {count:,} leases made in {took:.0f} s", flush=True)
        yield database


def used_bytes(database: str) -> int:
    """Size of a SQLite database without its free pages."""
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


async def expire(database: str, count: int) -> None:
    """Let this number of leases expire."""
    engine = open_engine(database_url(database))
    async with engine.begin() as connection:
        due = sa.select(leases.c.id).where(leases.c.state == "active").limit(count)
        past = datetime.now(UTC) - DAY
        await connection.execute(leases.update().where(leases.c.id.in_(due)).values(expires_at=past))
    await engine.dispose()


def measure(rounds: int, seconds: float) -> list[Line]:
    wanted = [issue(f"user-{number}") for number in range(fresh.DEVICES)]
    with ExitStack() as stack:
        database = stack.enter_context(ledger(COUNT))
        lease_bytes = used_bytes(database) / COUNT
        stub = stack.enter_context(processes.stub(0.03))
        telnyx = f"{stub.url}/v2"
        with processes.dialtone(telnyx, database, name="a million leases") as full:
            with processes.dialtone(telnyx, name="an empty ledger") as empty:
                mints = {}
                for server in (empty, full):
                    warm(server, wanted)
                    run(server, new_devices(400, f"warm-{server.name}"), 16)
                    mints[server.name] = run(server, new_devices(400, server.name), 16)
                seen = in_turns([(empty, wanted), (full, wanted)], rounds, seconds)
            started = full.started_seconds
            details = f"{full.megabytes:.0f} MB at work; {empty.started_seconds:.2f} s with an empty ledger"
        asyncio.run(expire(database, DUE))
        megabytes = _sweep(processes.environment(telnyx) | {"DIALTONE_DATABASE_URL": database})
    before, after = seen["an empty ledger"], seen["a million leases"]
    slower = mints["a million leases"].p50_ms / mints["an empty ledger"].p50_ms
    return [
        at_most("a million leases: hot path, times an empty ledger's", 1.2, _times(before, after), "x"),
        at_most("a million leases: cold mint p50, times an empty ledger's", 1.2, slower, "x"),
        at_most("a million leases: start", 2.0, started, "s", details),
        at_most(f"a million leases: sweep of {DUE:,} due, memory", 200, megabytes, "MB"),
        Figure(LEASE_BYTES, lease_bytes, "bytes", f"of {COUNT:,} leases"),
    ]


def _times(before: load.Reading, after: load.Reading) -> float:
    return before.requests_a_second / after.requests_a_second


_PEAK_MEMORY = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command and prints its peak memory in kilobytes. Without this small process in between, the kernel would count
the memory of the benchmark, which the command shares until it starts."""


def _sweep(env: dict[str, str]) -> float:
    """Peak memory of one `dialtone sweep` in megabytes."""
    command = [sys.executable, "-c", _PEAK_MEMORY, *processes.COMMAND, "sweep"]
    kilobytes = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    print(f"{asyncio.run(fill(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else COUNT)):.0f} s")
