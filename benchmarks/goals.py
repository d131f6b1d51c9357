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
    """A goal that could not be measured, with the reason."""

    name: str
    why: str


Line = Row | Missing


def table(lines: Iterable[Line]) -> str:
    """The table as text for a terminal."""
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
