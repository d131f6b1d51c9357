"""What many devices cost, computed from the last `make bench`, and a model of a storm: `python -m benchmarks.scale`.

`write_pages` writes the tables of README.md and docs/scale.md. The model queues as the service does and uses the
service's `RetryAfterAllocator`. It has no network and no CPU cost.
"""

import argparse
import heapq
import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.adapters.telnyx.api import CALL_SECONDS, QUEUE_SHARE
from app.adapters.telnyx.rate_budget import MIN_RESERVE, RetryAfterAllocator
from app.composition.login_cache import BYTES_PER_DEVICE
from app.vending.telephony.durations import REFRESH_SHARE
from benchmarks.goals import (
    AUDIT_BYTES,
    BURST,
    COLD_RATE,
    CPU_TIME,
    DEVICE_BYTES,
    FASTAPI,
    FASTIFY,
    FRESH,
    FRESH_AUDITED,
    FRESH_BROWSER,
    IDLE_MEMORY,
    LEASE_BYTES,
    LOADS,
    NEW_DEVICE,
    ONE_REPLICA,
    ONE_WORKER,
    POOLED_CALLS,
    RATE,
    REDIS_BYTES,
    RESTART_WITHOUT,
    RESTARTED_DEVICES,
    SAME,
    SAME_BROWSER,
    SMALL_CACHE,
    STORM,
    THREE_REPLICAS,
    TWO_WORKERS,
    TWO_WORKERS_CALLS,
    number,
)

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
PAGES = ("README.md", "docs/scale.md")
BLOCK = re.compile(r"(?s)(<!-- make bench: (\w+) -->\n).*?(<!-- end -->)")
"""A table of a page that `write_pages` replaces."""

DAY_SECONDS = 86_400
TOKEN_SECONDS = 86_400
"""Default lifetime of a login token and of a browser's credential."""

CALLS_A_RENEWAL = 2
"""One extends the credential, one mints the token."""

WRITES_A_RENEWAL, WRITES_A_NEW_DEVICE = 1, 4
AUDIT_ROWS_A_RENEWAL = 1
PEAK = 3.0
"""Load of the busiest hour relative to the mean."""

PAGE_LOAD_RATE = f"{FRESH_AUDITED}, SQLite: {RATE}"
"""The rate of one core, if each request has a new access token and an audit event of its own, as page loads have."""

Measured = Callable[[str], float]
"""The measurement of a row; not a number if the row was not measured."""


@dataclass(frozen=True)
class Fleet:
    """A number of devices and their daily use."""

    devices: int
    online_share: float = 0.5
    """The part of a day that a device is online."""
    page_loads: float = 10.0
    """Page loads of a device per day."""
    new_share: float = 0.01
    """Share of devices that are new each day."""


def refreshes_a_day() -> float:
    """Number of logins that a device requests per day if it is always online."""
    return DAY_SECONDS / (TOKEN_SECONDS * sum(REFRESH_SHARE) / 2)


def costs(fleet: Fleet, measured: Measured) -> dict[str, str]:
    """Rates in the busiest hour, and storage."""
    renewals = fleet.devices * max(refreshes_a_day() * fleet.online_share, 1.0) / DAY_SECONDS * PEAK
    new = fleet.devices * fleet.new_share / DAY_SECONDS * PEAK
    hits = fleet.devices * fleet.page_loads / DAY_SECONDS * PEAK
    cores = hits / measured(PAGE_LOAD_RATE) + (renewals + new) / measured(COLD_RATE)
    audit_rows = (renewals * AUDIT_ROWS_A_RENEWAL + new + hits) / PEAK * DAY_SECONDS * 30
    replicas = cores if math.isnan(cores) else math.ceil(cores * 2) + 1
    return {
        "Telnyx calls per second, busiest hour": _cell(renewals * CALLS_A_RENEWAL + new * measured(POOLED_CALLS)),
        "ledger writes per second, busiest hour": _cell(renewals * WRITES_A_RENEWAL + new * WRITES_A_NEW_DEVICE),
        "requests per second, busiest hour": _cell(renewals + new + hits),
        "busy cores": _cell(cores),
        "replicas of one core at half load, plus one": _cell(replicas),
        "lease rows": _cell(fleet.devices * measured(LEASE_BYTES) / 1e9, "GB"),
        "audit rows of 30 days": _cell(audit_rows * measured(AUDIT_BYTES) / 1e9, "GB"),
    }


def tables(measured: Measured) -> dict[str, str]:
    """The tables of PAGES by name."""
    return {
        "speed": _speed(measured),
        "calls": _calls(measured),
        "memory": _memory(measured),
        "workers": _rows(
            measured,
            {
                f"{TWO_WORKERS}: {RATE}, against one worker": "x",
                f"{ONE_WORKER}: {CPU_TIME}": "us",
                f"{TWO_WORKERS}: {CPU_TIME}": "us",
            },
        ),
        "new": _rows(
            measured,
            {
                NEW_DEVICE: "s",
                f"{BURST}: can log in within 0.5 s": "devices",
                f"{BURST}: longest response": "s",
                f"{BURST}: longest time until it can log in": "s",
            },
        ),
        "fleet": _fleets(measured),
        "storm": _rows(
            measured,
            {f"{STORM}: duration": "s", f"{STORM}: share of what is allowed": "", f"{STORM}: requests of a device": ""},
        ),
        "inputs": _rows(
            measured, {PAGE_LOAD_RATE: "requests/s", COLD_RATE: "logins/s", LEASE_BYTES: "bytes", AUDIT_BYTES: "bytes"}
        ),
    }


def _speed(measured: Measured) -> str:
    loads = (FRESH, FRESH_BROWSER, f"{FRESH_AUDITED}, SQLite", SAME, SAME_BROWSER)
    rows = []
    for load in loads:
        fastify = "" if load not in (FRESH, FRESH_BROWSER) else _cell(measured(f"{load}: against {FASTIFY}"))
        rows.append([load, _cell(measured(f"{load}: {RATE}")), _cell(measured(f"{load}: against {FASTAPI}")), fastify])
    return _table(["load", "requests/s", f"x {FASTAPI}", "x Fastify, which verifies the token"], rows)


def _calls(measured: Measured) -> str:
    restart = f"restart with {RESTARTED_DEVICES:,} devices, shared login cache: Telnyx calls"
    each = {
        ONE_REPLICA: measured(ONE_REPLICA) / LOADS,
        THREE_REPLICAS: measured(THREE_REPLICAS) / LOADS,
        restart: measured(restart) / RESTARTED_DEVICES,
        RESTART_WITHOUT: measured(RESTART_WITHOUT),
        SMALL_CACHE: 1 - measured(SMALL_CACHE),
        TWO_WORKERS_CALLS: measured(TWO_WORKERS_CALLS),
        POOLED_CALLS: measured(POOLED_CALLS),
    }
    return _table(["row", "Telnyx calls per page load"], [[row, _cell(calls)] for row, calls in each.items()])


def _memory(measured: Measured) -> str:
    rows = []
    for devices in (10_000, 40_000, 100_000, 1_000_000):
        setting = math.ceil(devices * BYTES_PER_DEVICE / 1024**2)
        process = measured(IDLE_MEMORY) + devices * measured(f"{DEVICE_BYTES}, three page loads") / 1e6
        redis = devices * measured(REDIS_BYTES) / 1e6
        rows.append([f"{devices:,}", f"{setting:,}", _cell(process, "MB"), _cell(redis, "MB")])
    return _table(["devices of a replica", "DIALTONE_LOGIN_CACHE_MB", "memory of the replica", "memory in Redis"], rows)


def _fleets(measured: Measured) -> str:
    sizes = (10_000, 1_000_000, 10_000_000)
    columns = [costs(Fleet(devices), measured) for devices in sizes]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return _table(["", *(f"{devices:,} devices" for devices in sizes)], rows)


def _rows(measured: Measured, units: Mapping[str, str]) -> str:
    return _table(["row", "measured"], [[row, _cell(measured(row), unit)] for row, unit in units.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = f"|{'---|' * len(head)}\n"
    return _line(head) + rule + "".join(map(_line, rows))


def _line(cells: Sequence[str]) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|\n"


def _cell(value: float, unit: str = "") -> str:
    return "not measured" if math.isnan(value) else number(value, unit)


def last_results(path: Path = RESULTS) -> Measured:
    """The rows of the last `make bench`."""
    rows = {row["name"]: row["measured"] for row in json.loads(path.read_text())["rows"] if "measured" in row}
    return lambda name: float(rows.get(name, math.nan))


def page_with_tables(text: str, measured: Measured) -> str:
    """The page with the tables of these results."""
    by_name = tables(measured)
    return BLOCK.sub(lambda block: f"{block[1]}\n{by_name[block[2]]}\n{block[3]}", text)


def write_pages() -> None:
    """Write the tables of the last results into PAGES."""
    measured = last_results()
    for page in PAGES:
        (ROOT / page).write_text(page_with_tables((ROOT / page).read_text(), measured))


@dataclass(frozen=True)
class Storm:
    """The outcome of a storm."""

    seconds: float
    share_of_allowed: float
    asked: float
    """Mean number of requests per device."""


def storm(devices: int, allowed: float, seed: int = 1) -> Storm:
    """Simulate a storm: all devices request a login at once. Each needs one of the `allowed` calls per second."""
    chance = random.Random(seed)  # noqa: S311 - a model
    rate = allowed * (1 - MIN_RESERVE)
    room = max(1, int(rate * CALL_SECONDS * QUEUE_SHARE))
    comebacks = RetryAfterAllocator(chance.random)
    arrivals = [(chance.random(), number) for number in range(devices)]
    heapq.heapify(arrivals)
    free_at, asked, last = 0.0, 0, 0.0
    while arrivals:
        now, number = heapq.heappop(arrivals)
        asked += 1
        waiting = max(0.0, (free_at - now) * rate)
        if waiting < room:
            free_at = max(free_at, now) + 1 / rate
            last = max(last, free_at)
            continue
        # The header has whole seconds, and the client adds up to one second of jitter.
        delay = math.ceil(comebacks.seconds(now, int(waiting), rate) + chance.random())
        heapq.heappush(arrivals, (now + delay + chance.random(), number))
    return Storm(last, devices / last / allowed, asked / devices)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables of README.md and docs/scale.md")
    parser.add_argument("--storm", action="store_true", help="simulate storms, which takes minutes")
    wanted = parser.parse_args()
    for name, table in tables(last_results()).items():
        print(f"{name}\n\n{table}")
    if wanted.write:
        write_pages()
    for devices, allowed in ((10_000, 50), (10_000, 100), (1_000_000, 1_000)) if wanted.storm else ():
        found = storm(devices, allowed)
        print(
            f"{devices:>10,} devices, {allowed:>6,} calls/s: {found.seconds:>9,.0f} s, "
            f"{found.share_of_allowed:.3f} of what is allowed, {found.asked:.1f} requests per device"
        )


if __name__ == "__main__":
    main()
