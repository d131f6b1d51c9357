"""The benchmark comparison in CI: every ratio has a baseline, and a ratio that fell is reported."""

import json

from benchmarks import inside
from benchmarks.__main__ import BASELINE, fallen

BEFORE = {"hot": 1.4, "cold": 0.5}


def test_ratio_that_fell_by_a_fifth_is_reported() -> None:
    assert fallen({"hot": 1.11, "cold": 0.5}, BEFORE) == ["hot"]
    assert fallen({"hot": 1.13, "cold": 0.39}, BEFORE) == ["cold"]


def test_stable_or_higher_ratio_is_not_reported() -> None:
    assert fallen({"hot": 1.13, "cold": 0.9}, BEFORE) == []


def test_every_measured_ratio_has_a_baseline() -> None:
    assert json.loads(BASELINE.read_text()).keys() == inside.GOALS.keys()


def test_ratio_is_the_floor_time_divided_by_ours() -> None:
    took = {"FastAPI, empty route": 50.0, "hot": 25.0, "FastAPI's own 401": 60.0, "bad signature": 120.0}
    took |= {"garbage": 20.0, "junk": 30.0, "careful, cold": 900.0, "cold": 1800.0}
    assert list(inside.ratios(took).values()) == [2.0, 0.5, 3.0, 2.0, 0.5]
