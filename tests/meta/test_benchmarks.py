"""The benchmarks: the comparison in CI, the loads, the table of goals, and the pages that quote it."""

import json
import math
from pathlib import Path

import pytest

from benchmarks import goals, inside, scale
from benchmarks.__main__ import BASELINE, fallen, measured, selected
from benchmarks.browser import behind_proxy
from benchmarks.goals import Figure, Line, Missing, at_least, at_most
from benchmarks.load import Once, Request

BEFORE = {"hot": 1.4, "cold": 0.5}


def test_ratio_that_fell_by_a_fifth_is_reported() -> None:
    assert fallen({"hot": 1.11, "cold": 0.5}, BEFORE) == ["hot"]
    assert fallen({"hot": 1.13, "cold": 0.39}, BEFORE) == ["cold"]


def test_stable_or_higher_ratio_is_not_reported() -> None:
    assert fallen({"hot": 1.13, "cold": 0.9}, BEFORE) == []


def test_every_measured_ratio_has_a_baseline() -> None:
    assert json.loads(BASELINE.read_text()).keys() == inside.GOALS.keys()


def test_ratio_is_the_floor_time_divided_by_ours() -> None:
    took = {"FastAPI, empty route": 50.0, "same bytes": 25.0, "fresh": 40.0, "many, same bytes": 50.0}
    took |= {"many, fresh": 80.0, "FastAPI's own 401": 60.0, "bad signature": 120.0, "garbage": 20.0, "junk": 30.0}
    took |= {"careful, cold": 900.0, "cold": 1800.0}
    assert list(inside.ratios(took).values()) == [2.0, 1.25, 0.5, 0.5, 0.5, 3.0, 2.0, 0.5]


def test_goal_of_zero_is_met_only_by_zero() -> None:
    assert at_most("dropped", 0, 0, "events").is_met
    assert not at_most("dropped", 0, 1, "events").is_met


def test_request_that_is_sent_once_is_in_one_round_only() -> None:
    requests = [Request(f"/{number}") for number in range(7)]
    parts = [Once(requests).part(number, 3).requests for number in range(3)]
    assert [request.path for part in parts for request in part] == ["/0", "/1", "/2", "/3", "/4", "/5"]


def test_browser_head_has_15_headers_and_two_of_the_proxy() -> None:
    [request] = behind_proxy([Request("/", "POST", "token", "{}")], 1)
    lines = request.to_bytes().partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    assert len([line for line in lines if not line.startswith((b"Host", b"x-"))]) == 15
    assert len([line for line in lines if line.startswith(b"x-")]) == 2


def test_each_request_behind_the_proxy_has_its_own_id_and_an_address_in_turn() -> None:
    heads = [dict(request.headers) for request in behind_proxy([Request("/")] * 3, 2)]
    assert [head["x-forwarded-for"] for head in heads] == ["10.0.0.0", "10.0.0.1", "10.0.0.0"]
    assert len({head["x-request-id"] for head in heads}) == 3


def test_parts_are_selected_by_the_beginning_of_their_names() -> None:
    assert [name for name, _ in selected(["fresh", "new"])] == ["Fresh tokens", "New devices"]


def test_selection_without_a_part_is_an_error() -> None:
    with pytest.raises(SystemExit, match="No part begins with nonsense"):
        selected(["nonsense"])


def test_part_that_fails_is_a_line_and_the_others_are_measured() -> None:
    def fail() -> list[Line]:
        raise RuntimeError("Dialtone did not start")

    row = at_most("dropped", 0, 0, "events")

    assert measured([("Fails", fail), ("Works", lambda: [row])]) == [
        Missing("Fails", "RuntimeError: Dialtone did not start"),
        row,
    ]


def test_results_page_names_goal_measurement_and_whether_it_is_reached(tmp_path: Path) -> None:
    lines: list[Line] = [
        at_least("fresh", 1.3, 1.42),
        at_most("memory", 100, 115, "MB"),
        Figure("cold", 420.4, "logins/s"),
        Missing("restart", "redis-server is not installed"),
    ]
    goals.save(lines, {"cores": "2"}, tmp_path / "latest.json")
    page = (tmp_path / "latest.md").read_text()

    assert "| fresh | >= 1.3 x | 1.42 x | yes |" in page
    assert "| memory | <= 100 MB | 115 MB | **no** |" in page
    assert "| cold | 420 logins/s |" in page
    assert "| restart | redis-server is not installed |" in page


@pytest.mark.parametrize("page", scale.PAGES)
def test_page_quotes_the_last_results(page: str) -> None:
    text = (scale.ROOT / page).read_text()

    assert "<!-- make bench: speed -->" in text
    assert scale.page_with_tables(text, scale.last_results()) == text, "run: python -m benchmarks.scale --write"


def test_rows_that_were_not_measured_are_named_as_such() -> None:
    tables = scale.tables(lambda _: math.nan)

    assert "| fresh tokens | not measured | not measured | not measured |" in tables["speed"]
    assert "| busy cores | not measured | not measured | not measured |" in tables["fleet"]


def test_memory_of_a_replica_is_computed_from_measured_bytes() -> None:
    rows = {goals.IDLE_MEMORY: 100.0, f"{goals.DEVICE_BYTES}, three page loads": 5000.0, goals.REDIS_BYTES: 1000.0}

    assert "| 100,000 | 586 | 600 MB | 100 MB |" in scale.tables(lambda name: rows.get(name, math.nan))["memory"]


def test_calls_of_a_hundred_page_loads_are_quoted_per_page_load() -> None:
    assert "three replicas, shared login cache: Telnyx calls | 0.02 |" in scale.tables(lambda _: 2.0)["calls"]
