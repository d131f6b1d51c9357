"""The table of goals: what was aimed at, what was measured, and how the one stands to the other."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One goal and its figure."""

    name: str
    goal: float
    measured: float
    unit: str
    is_floor: bool
    """Whether the measured figure should be at least the goal, or at most."""
    details: str = ""

    @property
    def ratio(self) -> float:
        """How far the goal is reached: 1 or more is met, 0.5 is half of it."""
        if self.is_floor:
            return self.measured / self.goal
        return self.goal / self.measured if self.measured else float("inf")

    @property
    def is_met(self) -> bool:
        return self.ratio >= 1


def at_least(name: str, goal: float, measured: float, unit: str = "x", details: str = "") -> Row:
    return Row(name, goal, measured, unit, is_floor=True, details=details)


def at_most(name: str, goal: float, measured: float, unit: str, details: str = "") -> Row:
    return Row(name, goal, measured, unit, is_floor=False, details=details)


@dataclass(frozen=True)
class Missing:
    """A goal that could not be measured here, and why."""

    name: str
    why: str


Line = Row | Missing


def table(lines: Iterable[Line]) -> str:
    """For a terminal."""
    out = [f"{'':2}{'what':<64}{'goal':>12}{'measured':>14}{'reached':>9}", "-" * 101]
    for line in lines:
        if isinstance(line, Missing):
            out.append(f"? {line.name:<64}not measured: {line.why}")
            continue
        sign = ">=" if line.is_floor else "<="
        mark = "+" if line.is_met else "-"
        goal, measured = f"{sign} {_short(line.goal)} {line.unit}", f"{_short(line.measured)} {line.unit}"
        reached = f"{min(line.ratio, 99) * 100:.0f} %"
        out.append(f"{mark} {line.name:<64}{goal:>12}{measured:>14}{reached:>9}")
        if line.details:
            out.append(f"    {line.details}")
    return "\n".join(out)


def summary(lines: Sequence[Line]) -> str:
    """One line: how many goals are met, and how far those are that are not."""
    rows = [line for line in lines if isinstance(line, Row)]
    missed = sorted((row for row in rows if not row.is_met), key=lambda row: row.ratio)
    told = "; ".join(f"{row.name} {row.ratio:.2f}" for row in missed)
    unmeasured = len(lines) - len(rows)
    return (
        f"{len(rows) - len(missed)} of {len(rows)} goals met"
        + (f", {unmeasured} not measured" if unmeasured else "")
        + (f"; missed (share of the goal reached): {told}" if missed else "")
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
