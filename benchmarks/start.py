"""The start of a process with a migrated ledger, and its memory before the first request."""

import time
from statistics import median

from benchmarks import processes
from benchmarks.goals import IDLE_MEMORY, Line, reached

IDLE_SECONDS = 2.0
"""Time after the start until the memory is read, in which the periodic tasks have run."""


def measure(rounds: int) -> list[Line]:
    """Time from the start of the process to the first 200 from `/readyz`, and resident memory."""
    seconds, megabytes = [], []
    with processes.stub(0.0) as stub:
        for _ in range(rounds):
            with processes.dialtone(f"{stub.url}/v2") as server:
                seconds.append(server.started_seconds)
                time.sleep(IDLE_SECONDS)
                megabytes.append(server.megabytes)
    return [reached("start to ready", median(seconds)), reached(IDLE_MEMORY, median(megabytes))]
