"""`make bench` and `make bench-quick`: run the benchmarks, print a table, and write it as JSON and SVG."""

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from benchmarks import (
    audited,
    chart,
    cold,
    devices,
    fresh,
    goals,
    inside,
    load,
    memory,
    million,
    new_devices,
    played,
    processes,
    refusals,
    scale,
    shared_cache,
    start,
    workers,
)
from benchmarks.goals import Line, Missing, Row
from benchmarks.scale import RESULTS

BASELINE = processes.HERE / "baseline.json"
MAY_FALL = 0.8
"""The part of its baseline that a ratio may fall to, because machines differ and have other load."""

Part = tuple[str, Callable[[], list[Line]]]

WHOLE: Sequence[Part] = (
    ("Fresh tokens", lambda: fresh.measure(3, 3)),
    ("Workers", lambda: workers.measure(3, 3)),
    ("Audit", lambda: audited.measure(3, 5)),
    ("Devices", lambda: devices.measure(3, 2)),
    ("Memory", lambda: memory.measure(10_000)),
    ("Page loads", shared_cache.page_loads),
    ("Restart", lambda: shared_cache.restart(goals.RESTARTED_DEVICES)),
    ("New devices", new_devices.measure),
    ("Start", lambda: start.measure(3)),
    ("Refusals", lambda: refusals.measure(3, 2)),
    ("Cold logins", cold.measure),
    ("A million leases", lambda: million.measure(3, 2)),
    ("Time to dial tone", played.dial_tone),
    ("Reconnect storm", played.storm),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run for about a minute, and compare with the baseline")
    names = ", ".join(name for name, _ in WHOLE)
    parser.add_argument(
        "--only", metavar="PART", nargs="+", help=f"run only the parts whose name begins with one of these: {names}"
    )
    wanted = parser.parse_args()
    machine = described()
    print(f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, load by {load.GENERATOR}")
    began = time.monotonic()
    lines = inside.measure() if wanted.quick else measured(selected(wanted.only))
    took = time.monotonic() - began
    print(f"\n{goals.table(lines)}\n\n{took:.0f} s")
    if wanted.quick:
        return compared(lines)
    if wanted.only is None:
        goals.save(lines, machine | {"minutes": f"{took / 60:.0f}"}, RESULTS)
        chart.save(lines, RESULTS.with_suffix(".svg"), "Measurements relative to their goals (right of the line: met)")
        scale.write_pages()
        print(f"Written: {RESULTS}, latest.md and latest.svg, and the tables in {', '.join(scale.PAGES)}")
    print(goals.summary(lines))
    failed = {name for name, _ in WHOLE} & {line.name for line in lines}
    return 1 if failed else 0


def selected(only: Sequence[str] | None) -> list[Part]:
    """The parts whose name begins with one of these. Raises SystemExit if there is none."""
    beginnings = ("",) if only is None else tuple(name.lower() for name in only)
    parts = [part for part in WHOLE if part[0].lower().startswith(beginnings)]
    if not parts:
        raise SystemExit(
            f"No part begins with {' or '.join(beginnings)}. Parts: {', '.join(name for name, _ in WHOLE)}"
        )
    return parts


def measured(parts: Sequence[Part]) -> list[Line]:
    """The lines of all parts. A part that fails is a line too, because the others have taken minutes."""
    lines: list[Line] = []
    for name, measure in parts:
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        try:
            lines += measure()
        except Exception as error:
            traceback.print_exc()
            lines.append(Missing(name, f"{type(error).__name__}: {str(error)[:120]}".replace("\n", " ")))
        print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)
    return lines


def compared(lines: Sequence[Line]) -> int:
    """Returns 1 if a ratio is a fifth below its baseline twice in a row. Absolute times are never compared."""
    before: dict[str, float] = json.loads(BASELINE.read_text())
    now = _ratios(lines)
    if fell := fallen(now, before):
        print(f"Measuring again, because these ratios fell: {', '.join(fell)}")
        again = _ratios(inside.measure())
        fell = [name for name in fallen(again, before) if name in fell]
    details = "; ".join(f"{name} {now[name]:.2f} (was {before[name]:.2f})" for name in fell or now)
    print(f"{'Fell by more than a fifth' if fell else 'No ratio fell'}: {details}")
    return 1 if fell else 0


def _ratios(lines: Iterable[Line]) -> dict[str, float]:
    return {line.name: line.measured for line in lines if isinstance(line, Row)}


def fallen(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """Names of the ratios that are less than four fifths of their baseline."""
    return [name for name, ratio in now.items() if ratio < before[name] * MAY_FALL]


def described() -> dict[str, str]:
    with ExitStack() as stack:
        try:
            info = stack.enter_context(open("/proc/cpuinfo", encoding="utf-8")).read()
        except OSError:
            info = ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "load": load.GENERATOR,
    }


if __name__ == "__main__":
    sys.exit(main())
