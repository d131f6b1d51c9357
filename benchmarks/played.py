"""Goals that tests measure: a storm, a real browser. pytest runs them and writes the measurements."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.goals import STORM, STORM_ALLOWED, STORM_DEVICES, Figure, Line, Missing, at_least, at_most
from benchmarks.processes import ROOT

DIAL_TONE_RUNS = 3


def storm() -> list[Line]:
    """All devices reconnect at once."""
    settings = {"STORM_DEVICES": str(STORM_DEVICES), "STORM_ALLOWED": str(STORM_ALLOWED)}
    figures = _play("tests/faults/test_storm.py", "STORM_FIGURES", settings)
    name = STORM
    if isinstance(figures, str):
        return [Missing(name, figures)]
    took = STORM_DEVICES / figures["share_of_allowed"] / STORM_ALLOWED
    return [
        at_least(f"{name}: share of what is allowed", 0.95, figures["share_of_allowed"], ""),
        at_most(f"{name}: calls answered 429", 0.01, figures["throttled_share"], ""),
        at_most(f"{name}: /livez p99", 100, figures["livez_p99_ms"], "ms"),
        at_most(f"{name}: memory", 200, figures["megabytes"], "MB"),
        Figure(f"{name}: duration", took, "s", "from the first byte of the first device"),
        Figure(f"{name}: requests of a device", figures["asked"], ""),
    ]


def dial_tone() -> list[Line]:
    """Time from the page's request to `telnyx.ready`, in Chromium with the real SDK and 5 s of propagation."""
    if shutil.which("chromium") is None:
        return [Missing("time to dial tone", "Chromium is not installed")]
    figures = _play("tests/browser/test_dial_tone.py", "DIAL_TONE_FIGURES", {"DIAL_TONE_RUNS": str(DIAL_TONE_RUNS)})
    if isinstance(figures, str):
        return [Missing("time to dial tone", figures)]
    details = f"median of {DIAL_TONE_RUNS}; naive {figures['naive backend']:.2f} s"
    return [
        at_most("time to dial tone: a known device", 0.3, figures["known device"], "s", details),
        at_most("time to dial tone: a new device, with a pool", 0.5, figures["new, from pool"], "s"),
    ]


def _play(test: str, variable: str, settings: dict[str, str]) -> dict[str, Any] | str:
    """The measurements, or the reason why there are none. If the test fails after writing them, they are returned."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements.json"
        why = _run(test, settings | {variable: str(path)})
        if path.exists():
            figures: dict[str, Any] = json.loads(path.read_text())
            return figures
        return why or "the test wrote no measurements"


def _run(test: str, settings: dict[str, str]) -> str | None:
    """None, or the failure of the test."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--timeout", "300", test]
    run = subprocess.run(command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, check=False)
    last = run.stdout.strip().splitlines()[-1:] or ["no output"]
    return None if run.returncode == 0 else f"pytest: {last[0][:80]}"
