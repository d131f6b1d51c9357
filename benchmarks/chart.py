"""The table of goals as a chart: each measurement relative to its goal, on a logarithmic scale."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.goals import Line, Row

LEFT, WIDTH, STEP, TOP = 560, 420, 24, 44
LOWEST, HIGHEST = 0.1, 10.0
GOOD, SHORT = "#2f7d4f", "#b4531a"


def save(lines: Sequence[Line], path: Path, title: str) -> None:
    """Write an SVG file that is readable on light and dark backgrounds."""
    rows = [line for line in lines if isinstance(line, Row)]
    height = TOP + STEP * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 90} {height}" role="img">',
        "<style>text { font: 12px system-ui, sans-serif }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-size="14" font-weight="600">{escape(title)}</text>',
    ]
    for factor in (0.1, 0.5, 1, 2, 5, 10):
        x = _x(factor)
        colour = "#222" if factor == 1 else "#ddd"
        parts.append(f'<line x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{height - 24}" stroke="{colour}"/>')
        label = "goal" if factor == 1 else f"{factor:g}"
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#555">{label}</text>')
    for number, row in enumerate(rows):
        y = TOP + STEP * number
        begin, end = sorted((_x(1), _x(row.ratio)))
        parts.append(f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(row.name)}</text>')
        colour = GOOD if row.is_met else SHORT
        parts.append(f'<rect x="{begin}" y="{y + 2}" width="{max(end - begin, 2)}" height="15" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 8}" y="{y + 13}">{row.measured:,.4g} {escape(row.unit)}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _x(ratio: float) -> float:
    within = min(max(ratio, LOWEST), HIGHEST)
    return round(LEFT + WIDTH * math.log(within / LOWEST) / math.log(HIGHEST / LOWEST), 1)
