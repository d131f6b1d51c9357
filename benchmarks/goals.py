"""The table of goals: each goal, its measurement, and their ratio. Some measurements have no goal."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.composition.login_cache import BYTES_PER_DEVICE
from app.vending.upkeep.warm_pool_size import MIN_READY


@dataclass(frozen=True)
class Row:
    """One goal and its measurement."""

    name: str
    goal: float
    measured: float
    unit: str
    is_floor: bool
    """True if the measurement must be at least the goal; False if at most."""
    details: str = ""

    @property
    def ratio(self) -> float:
        """The share of the goal that is reached. 1 or more: the goal is met."""
        if self.is_floor:
            return self.measured / self.goal
        if not self.goal:
            return 0.0 if self.measured else 1.0
        return self.goal / self.measured if self.measured else float("inf")

    @property
    def is_met(self) -> bool:
        return self.ratio >= 1

    @property
    def goal_text(self) -> str:
        return f"{'>=' if self.is_floor else '<='} {number(self.goal, self.unit)}"


def at_least(name: str, goal: float, measured: float, unit: str = "x", details: str = "") -> Row:
    return Row(name, goal, measured, unit, is_floor=True, details=details)


def at_most(name: str, goal: float, measured: float, unit: str, details: str = "") -> Row:
    return Row(name, goal, measured, unit, is_floor=False, details=details)


@dataclass(frozen=True)
class Goal:
    """A goal of a row whose load `details` describe."""

    value: float
    unit: str = "x"
    is_floor: bool = True


FRESH = "fresh tokens"
FRESH_BROWSER = "fresh tokens, browser's head"
FRESH_AUDITED = "fresh tokens, an audit event each"
SAME = "same bytes"
SAME_BROWSER = "same bytes, browser's head"
FASTAPI, FASTIFY, FASTAPI_401 = "FastAPI's empty route", "Fastify, verifying", "FastAPI's own 401"
OF_1000 = "share of the rate at 1,000"

IDLE_MEMORY = "memory when idle"
LOADS, RESTARTED_DEVICES = 100, 10_000
ONE_REPLICA = f"one device, {LOADS} page loads: Telnyx calls"
THREE_REPLICAS = f"one device, {LOADS} page loads on three replicas, shared login cache: Telnyx calls"
NEW_DEVICE = "a new device, default settings: time until it can log in"
BURST = "10 new devices at once, default settings, idle"
ONE_WORKER, TWO_WORKERS = "one worker, fresh tokens", "two workers, fresh tokens"
TWO_WORKERS_CALLS = "two workers, shared login cache: Telnyx calls of a new device"
DEVICE_BYTES = "memory of a device"
SMALL_CACHE = "twice the devices that fit: answered without Telnyx"
RATE, CPU_TIME = "requests per second", "CPU time of a request"
COLD_RATE = "cold logins per second, 64 at once"
RESTART_WITHOUT = "restart, no shared login cache: Telnyx calls of a device"
REDIS_BYTES = "shared login cache: memory of a device in Redis"
POOLED_CALLS = "a new device with a credential of the warm pool: Telnyx calls"
STORM_DEVICES, STORM_ALLOWED = 10_000, 100
"""Telnyx's real limit is not known. With a lower limit, the storm takes longer."""

STORM = f"storm of {STORM_DEVICES:,} at {STORM_ALLOWED} calls/s"
LEASE_BYTES, AUDIT_BYTES = "a lease in SQLite, with its indexes", "an audit event in SQLite, with its indexes"

GOALS: dict[str, Goal] = {
    "start to ready": Goal(1.0, "s", is_floor=False),
    IDLE_MEMORY: Goal(100, "MB", is_floor=False),
    f"{FRESH}: against {FASTAPI}": Goal(1.3),
    f"{FRESH}: against {FASTIFY}": Goal(1.5),
    f"{FRESH_BROWSER}: against {FASTAPI}": Goal(1.0),
    f"{FRESH_BROWSER}: against {FASTIFY}": Goal(1.2),
    f"{FRESH_AUDITED}, SQLite: against {FASTAPI}": Goal(0.9),
    f"{FRESH_AUDITED}, SQLite: dropped": Goal(0, "events", is_floor=False),
    f"{FRESH_AUDITED}, PostgreSQL: against {FASTAPI}": Goal(0.9),
    f"{FRESH_AUDITED}, PostgreSQL: dropped": Goal(0, "events", is_floor=False),
    f"{SAME}: against {FASTAPI}": Goal(3.3),
    f"{SAME}: p99 at 64 connections": Goal(5.0, "ms", is_floor=False),
    f"{SAME_BROWSER}: against {FASTAPI}": Goal(2.2),
    f"{SAME_BROWSER}: p99 at 64 connections": Goal(5.0, "ms", is_floor=False),
    f"20,000 devices, {FRESH}: {OF_1000}": Goal(0.85, ""),
    f"20,000 devices, {SAME}: {OF_1000}": Goal(0.85, ""),
    f"100,000 devices, {FRESH}: {OF_1000}": Goal(0.85, ""),
    f"100,000 devices, {SAME}: {OF_1000}": Goal(0.85, ""),
    f"100,000 devices, {FRESH}: p99": Goal(10.0, "ms", is_floor=False),
    f"100,000 devices, {SAME}: p99": Goal(10.0, "ms", is_floor=False),
    "100,000 devices: memory of the server": Goal(450, "MB", is_floor=False),
    SMALL_CACHE: Goal(0.45, ""),
    f"{DEVICE_BYTES}, one page load": Goal(3300, "bytes", is_floor=False),
    f"{DEVICE_BYTES}, three page loads": Goal(BYTES_PER_DEVICE, "bytes", is_floor=False),
    f"{TWO_WORKERS}: {RATE}, against one worker": Goal(1.5),
    TWO_WORKERS_CALLS: Goal(2, "calls", is_floor=False),
    ONE_REPLICA: Goal(2, "calls", is_floor=False),
    THREE_REPLICAS: Goal(2, "calls", is_floor=False),
    NEW_DEVICE: Goal(0.5, "s", is_floor=False),
    f"{BURST}: can log in within 0.5 s": Goal(MIN_READY, "devices"),
    f"refusing a bad signature: against {FASTAPI_401}": Goal(1.5),
    f"refusing garbage: against {FASTAPI_401}": Goal(4.0),
    f"refusing 8 KB of junk: against {FASTAPI_401}": Goal(4.0),
}
"""Goals of rows whose load a module of this folder fixes. Rows that a test measures have their goals in `played.py`."""


def reached(name: str, measured: float, details: str = "") -> Row:
    """The row of a goal of `GOALS`."""
    goal = GOALS[name]
    return Row(name, goal.value, measured, goal.unit, goal.is_floor, details)


@dataclass(frozen=True)
class Missing:
    """A goal that could not be measured, with the reason."""

    name: str
    why: str


@dataclass(frozen=True)
class Figure:
    """A measurement without a goal, from which docs/scale.md computes."""

    name: str
    measured: float
    unit: str
    details: str = ""


Line = Row | Figure | Missing


def table(lines: Iterable[Line]) -> str:
    """The table as text for a terminal."""
    out = [f"{'':2}{'what':<84}{'goal':>14}{'measured':>16}{'reached':>9}", "-" * 125]
    for line in lines:
        if isinstance(line, Missing):
            out.append(f"? {line.name:<84}not measured: {line.why}")
            continue
        goal = reached = ""
        if isinstance(line, Row):
            goal, reached = line.goal_text, f"{min(line.ratio, 99) * 100:.0f} %"
        mark = " " if not reached else "+" if isinstance(line, Row) and line.is_met else "-"
        out.append(f"{mark} {line.name:<84}{goal:>14}{number(line.measured, line.unit):>16}{reached:>9}")
        if line.details:
            out.append(f"    {line.details}")
    return "\n".join(out)


def markdown(lines: Sequence[Line], machine: dict[str, str]) -> str:
    """The table as a Markdown page."""
    rows = [line for line in lines if isinstance(line, Row)]
    figures = [line for line in lines if isinstance(line, Figure)]
    missing = [line for line in lines if isinstance(line, Missing)]
    described = ", ".join(f"{name}: {value}" for name, value in machine.items())
    out = ["# Results of `make bench`", "", f"{described}.", "", f"{summary(lines).partition(';')[0]}.", ""]
    out += ["| row | goal | measured | reached |", "|---|---|---|---|"]
    out += [
        f"| {row.name} | {row.goal_text} | {number(row.measured, row.unit)} | {'yes' if row.is_met else '**no**'} |"
        for row in rows
    ]
    if figures:
        out += ["", "Measurements without a goal:", "", "| row | measured |", "|---|---|"]
        out += [f"| {figure.name} | {number(figure.measured, figure.unit)} |" for figure in figures]
    if missing:
        out += ["", "Not measured:", "", "| row | reason |", "|---|---|"]
        out += [f"| {line.name} | {line.why} |" for line in missing]
    return "\n".join(out) + "\n"


def summary(lines: Sequence[Line]) -> str:
    """One line with the number of goals that are met, and the shares of those that are missed."""
    rows = [line for line in lines if isinstance(line, Row)]
    missed = sorted((row for row in rows if not row.is_met), key=lambda row: row.ratio)
    details = "; ".join(f"{row.name} {row.ratio:.2f}" for row in missed)
    unmeasured = sum(isinstance(line, Missing) for line in lines)
    return (
        f"{len(rows) - len(missed)} of {len(rows)} goals met"
        + (f", {unmeasured} not measured" if unmeasured else "")
        + (f"; missed (share of the goal reached): {details}" if missed else "")
    )


def save(lines: Sequence[Line], machine: dict[str, str], path: Path) -> None:
    """Write the lines as JSON, and as a Markdown page with the same name."""
    rows = [asdict(line) | ({"met": line.is_met} if isinstance(line, Row) else {}) for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    path.with_suffix(".md").write_text(markdown(lines, machine))


def number(value: float, unit: str = "") -> str:
    """A measurement with three significant digits and its unit."""
    digits = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()
