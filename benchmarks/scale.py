"""Computed costs of many devices, and a model of a storm: `python -m benchmarks.scale`. See docs/scale.md.

The model queues as the service does and uses the service's `RetryAfterAllocator`. It has no network and no CPU cost.
`--check FILE` compares it with the measurements of a real storm (`STORM_FIGURES`).
"""

import argparse
import heapq
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

from app.adapters.telnyx.api import CALL_SECONDS, QUEUE_SHARE
from app.adapters.telnyx.rate_budget import MIN_RESERVE, RetryAfterAllocator
from app.vending.telephony.durations import REFRESH_SHARE

DAY_SECONDS = 86_400
TOKEN_SECONDS = 86_400
"""Default lifetime of a login token and of a browser's credential."""

CALLS_A_RENEWAL = 2
"""One extends the credential, one mints the token."""

CALLS_A_NEW_DEVICE = 3
"""Two assign a pooled credential and mint the token, one replaces the pooled credential."""

WRITES_A_RENEWAL, WRITES_A_NEW_DEVICE = 1, 4
AUDIT_ROWS_A_RENEWAL = 1
PEAK = 3.0
"""Load of the busiest hour relative to the mean."""


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


@dataclass(frozen=True)
class Machine:
    """The measured capacity of one core (benchmarks/results/latest.json)."""

    hits_a_second: float
    mints_a_second: float
    lease_bytes: float
    audit_bytes: float = 710.0
    """Size of an audit row with its indexes, measured with 20,000 rows in SQLite."""


def refreshes_a_day() -> float:
    """Number of logins that a device requests per day if it is always online."""
    return DAY_SECONDS / (TOKEN_SECONDS * sum(REFRESH_SHARE) / 2)


def costs(fleet: Fleet, machine: Machine) -> dict[str, float]:
    """Rates in the busiest hour, and storage."""
    renewals = fleet.devices * max(refreshes_a_day() * fleet.online_share, 1.0) / DAY_SECONDS * PEAK
    new = fleet.devices * fleet.new_share / DAY_SECONDS * PEAK
    hits = fleet.devices * fleet.page_loads / DAY_SECONDS * PEAK
    cores = hits / machine.hits_a_second + (renewals + new) / machine.mints_a_second
    audit_rows = renewals / PEAK * AUDIT_ROWS_A_RENEWAL + new / PEAK + hits / PEAK
    return {
        "Telnyx calls a second": renewals * CALLS_A_RENEWAL + new * CALLS_A_NEW_DEVICE,
        "ledger writes a second": renewals * WRITES_A_RENEWAL + new * WRITES_A_NEW_DEVICE,
        "requests a second": renewals + new + hits,
        "cores busy": cores,
        "replicas of one core at half load, plus one": math.ceil(cores * 2) + 1,
        "lease rows, GB": fleet.devices * machine.lease_bytes / 1e9,
        "audit rows of 30 days, GB": audit_rows * DAY_SECONDS * 30 * machine.audit_bytes / 1e9,
    }


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
    parser.add_argument("--check", type=Path, help="measurements of a real storm")
    parser.add_argument("--hits", type=float, default=15_000, help="hits a second of one core")
    parser.add_argument("--mints", type=float, default=330, help="cold mints a second of one core")
    parser.add_argument("--lease-bytes", type=float, default=1_023, help="a lease's row and indexes")
    wanted = parser.parse_args()
    machine = Machine(wanted.hits, wanted.mints, wanted.lease_bytes)
    for devices in (10_000, 1_000_000, 10_000_000):
        print(f"{devices:,} devices, busiest hour:")
        for name, value in costs(Fleet(devices), machine).items():
            print(f"  {name:<46}{value:>14,.1f}")
    print("A storm by the model:")
    for devices, allowed in ((10_000, 50), (10_000, 100), (1_000_000, 1_000)):
        found = storm(devices, allowed)
        print(
            f"  {devices:>10,} devices, {allowed:>6,} calls/s: {found.seconds:>9,.0f} s, "
            f"{found.share_of_allowed:.3f} of what is allowed, {found.asked:.1f} requests per device"
        )
    if wanted.check:
        seen = json.loads(wanted.check.read_text())
        found = storm(seen["devices"], seen["allowed"])
        print(
            f"Measured {seen['devices']:,} at {seen['allowed']}: {seen['share_of_allowed']:.3f} of what is allowed, "
            f"{seen['asked']:.1f} requests per device; the model: {found.share_of_allowed:.3f} and {found.asked:.1f}"
        )


if __name__ == "__main__":
    main()
