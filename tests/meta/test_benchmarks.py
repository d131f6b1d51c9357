"""The benchmark comparison in CI: every ratio has a baseline, and a ratio that fell is reported."""

import json

from benchmarks import inside
from benchmarks.__main__ import BASELINE, fallen
from benchmarks.browser import behind_proxy
from benchmarks.goals import at_most
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
