"""The table of goals: each goal, its measurement, and their ratio."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


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

GOALS: dict[str, Goal] = {
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
    "100,000 devices: memory of a device": Goal(3.3, "KB", is_floor=False),
    "twice the devices that fit: answered without Telnyx": Goal(0.45, ""),
    f"refusing a bad signature: against {FASTAPI_401}": Goal(1.5),
    f"refusing garbage: against {FASTAPI_401}": Goal(4.0),
    f"refusing 8 KB of junk: against {FASTAPI_401}": Goal(4.0),
}
"""The goals of the wire and the fast path. The requests are those of devices with a cached login."""


def reached(name: str, measured: float, details: str = "") -> Row:
    """The row of a goal of `GOALS`."""
    goal = GOALS[name]
    return Row(name, goal.value, measured, goal.unit, goal.is_floor, details)


@dataclass(frozen=True)
class Missing:
    """A goal that could not be measured, with the reason."""

    name: str
    why: str


Line = Row | Missing


def table(lines: Iterable[Line]) -> str:
    """The table as text for a terminal."""
    out = [f"{'':2}{'what':<72}{'goal':>12}{'measured':>14}{'reached':>9}", "-" * 109]
    for line in lines:
        if isinstance(line, Missing):
            out.append(f"? {line.name:<72}not measured: {line.why}")
            continue
        sign = ">=" if line.is_floor else "<="
        mark = "+" if line.is_met else "-"
        goal, measured = f"{sign} {_short(line.goal)} {line.unit}", f"{_short(line.measured)} {line.unit}"
        reached = f"{min(line.ratio, 99) * 100:.0f} %"
        out.append(f"{mark} {line.name:<72}{goal:>12}{measured:>14}{reached:>9}")
        if line.details:
            out.append(f"    {line.details}")
    return "\n".join(out)


def summary(lines: Sequence[Line]) -> str:
    """One line with the number of goals that are met, and the shares of those that are missed."""
    rows = [line for line in lines if isinstance(line, Row)]
    missed = sorted((row for row in rows if not row.is_met), key=lambda row: row.ratio)
    details = "; ".join(f"{row.name} {row.ratio:.2f}" for row in missed)
    unmeasured = len(lines) - len(rows)
    return (
        f"{len(rows) - len(missed)} of {len(rows)} goals met"
        + (f", {unmeasured} not measured" if unmeasured else "")
        + (f"; missed (share of the goal reached): {details}" if missed else "")
    )


def save(lines: Iterable[Line], machine: dict[str, str], path: Path) -> None:
    rows = [
        asdict(line) | ({"ratio": round(line.ratio, 3), "met": line.is_met} if isinstance(line, Row) else {})
        for line in lines
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
