"""`make bench` and `make bench-quick`: run the benchmarks, print a table, and write it as JSON and SVG."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from benchmarks import (
    audited,
    chart,
    cold,
    devices,
    fresh,
    goals,
    hot,
    inside,
    load,
    million,
    page_loads,
    played,
    processes,
    refusals,
)
from benchmarks.goals import Line, Row, at_most

RESULTS = processes.HERE / "results"
BASELINE = processes.HERE / "baseline.json"
MAY_FALL = 0.8
"""The part of its baseline that a ratio may fall to, because machines differ and have other load."""

Part = tuple[str, Callable[[], list[Line]]]

WHOLE: Sequence[Part] = (
    ("Start", lambda: start(3)),
    ("Hot path", lambda: hot.measure(3, 3)),
    ("Fresh tokens", lambda: fresh.measure(3, 3)),
    ("Audit", lambda: audited.measure(3, 5)),
    ("Devices", lambda: devices.measure(3, 2)),
    ("Refusals", lambda: refusals.measure(3, 2)),
    ("Cold mints", cold.measure),
    ("Page loads", page_loads.measure),
    ("A million leases", lambda: million.measure(3, 2)),
    ("Stampede", played.stampede),
    ("Time to dial tone", played.dial_tone),
    ("Reconnect storm", played.storm),
)
QUICK: Sequence[Part] = (("Inside one process", inside.measure),)


def start(rounds: int) -> list[Line]:
    """Time from the start of the process to the first 200 from `/readyz`, with a migrated ledger."""
    seconds = []
    with processes.stub(0.0) as stub:
        for _ in range(rounds):
            with processes.dialtone(f"{stub.url}/v2") as server:
                seconds.append(server.started_seconds)
    return [at_most("start to ready", 1.5, sorted(seconds)[rounds // 2], "s")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run for about a minute, and compare with the baseline")
    parser.add_argument("--only", nargs="+", help="run only the parts whose name begins with one of these")
    wanted = parser.parse_args()
    only = tuple(name.lower() for name in wanted.only or ())
    machine = described()
    print(f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, load by {load.GENERATOR}")
    began = time.monotonic()
    lines: list[Line] = []
    for name, measure in QUICK if wanted.quick else WHOLE:
        if wanted.only is None or name.lower().startswith(only):
            print(f"{name} ...", flush=True)
            lines += measure()
    print(f"\n{goals.table(lines)}\n\n{time.monotonic() - began:.0f} s")
    if wanted.quick:
        return compared(lines)
    if wanted.only is None:
        goals.save(lines, machine, RESULTS / "latest.json")
        chart.save(lines, RESULTS / "latest.svg", "Measurements relative to their goals (right of the line: met)")
        print(f"Written: {RESULTS / 'latest.json'} and latest.svg")
    print(goals.summary(lines))
    return 0


def compared(lines: Sequence[Line]) -> int:
    """Returns 1 if a ratio is a fifth below its baseline twice in a row. Absolute times are never compared."""
    before: dict[str, float] = json.loads(BASELINE.read_text())
    now = _ratios(lines)
    if fell := fallen(now, before):
        print(f"Measuring again, because these ratios fell: {', '.join(fell)}")
        again = _ratios(line for _, measure in QUICK for line in measure())
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
