"""Ids are unique, also across threads and after a fork."""

import multiprocessing
import re
import time
from concurrent.futures import ThreadPoolExecutor

from app.vending.ids import new_id, new_ordered_id


def test_id_is_128_random_bits_as_hex() -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", new_id())


def test_threads_never_generate_the_same_id() -> None:
    with ThreadPoolExecutor(8) as threads:
        drawn = [one for many in threads.map(lambda _: [new_id() for _ in range(2000)], range(8)) for one in many]
    assert len(set(drawn)) == len(drawn) == 16_000


def test_forked_process_generates_other_ids() -> None:
    new_id()  # so that the child inherits a buffer
    with multiprocessing.get_context("fork").Pool(2) as children:
        theirs = children.map(_draw, range(4))
    drawn = [*(one for many in theirs for one in many), *_draw()]
    assert len(set(drawn)) == len(drawn) == 500


def _draw(_: int = 0) -> list[str]:
    return [new_id() for _ in range(100)]


def test_ordered_id_begins_with_the_time_in_milliseconds() -> None:
    before = time.time()
    milliseconds = int(new_ordered_id()[:12], 16)

    assert before - 0.001 <= milliseconds / 1000 <= time.time()


def test_ordered_ids_of_one_millisecond_differ() -> None:
    assert len({new_ordered_id() for _ in range(10_000)}) == 10_000


def test_ordered_id_has_the_shape_of_an_id() -> None:
    assert re.fullmatch("[0-9a-f]{32}", new_ordered_id())
