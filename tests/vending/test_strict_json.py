"""Strict JSON: what it rejects, and where it finds the fault."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.vending.strict_json import MAX_DEPTH, InvalidJson, JsonFault, Path, locate, parse

REJECTED: list[tuple[bytes, JsonFault, Path | None]] = [
    (b"", JsonFault.NOT_JSON, None),
    (b"{", JsonFault.NOT_JSON, None),
    (b"{'a': 1}", JsonFault.NOT_JSON, None),
    (b'{"a": 1} {}', JsonFault.NOT_JSON, None),
    (b'{"a": "\xff"}', JsonFault.NOT_JSON, None),
    ('{"a": 1}'.encode("utf-16"), JsonFault.NOT_JSON, None),
    (b"\xef\xbb\xbf{}", JsonFault.NOT_JSON, None),
    (b'{"a": ' + b"9" * 5000 + b"}", JsonFault.NOT_JSON, None),
    (b'{"a": 1, "a": 2}', JsonFault.MEMBER_TWICE, ("a",)),
    (b'{"a": 1, "b": 2, "a": 1}', JsonFault.MEMBER_TWICE, ("a",)),
    (b'{"a": 1, "\\u0061": 2}', JsonFault.MEMBER_TWICE, ("a",)),
    (b'{"a": [0, {"b": {"c": 1, "c": 2}}]}', JsonFault.MEMBER_TWICE, ("a", 1, "b", "c")),
    (b'[{"a": 1}, {"a": 1, "a": 1}]', JsonFault.MEMBER_TWICE, (1, "a")),
    (b'{"a": NaN}', JsonFault.NOT_FINITE, ("a",)),
    (b'{"a": [-Infinity]}', JsonFault.NOT_FINITE, ("a", 0)),
    (b'{"a": 1e400}', JsonFault.NOT_FINITE, ("a",)),
    (b"Infinity", JsonFault.NOT_FINITE, ()),
    (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), JsonFault.TOO_DEEP, None),
    (b"[" * 60_000, JsonFault.TOO_DEEP, None),
    (b'{"a":' * 20_000, JsonFault.TOO_DEEP, None),
]


@pytest.mark.parametrize(("raw", "fault", "path"), REJECTED, ids=lambda value: str(value)[:30])
def test_text_that_is_not_strict_json_is_rejected(raw: bytes, fault: JsonFault, path: Path | None) -> None:
    with pytest.raises(InvalidJson) as error:
        parse(raw)

    assert error.value.fault is fault
    assert path is None or locate(raw) == (fault, path)


def test_deepest_allowed_value_is_accepted() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_brackets_in_strings_have_no_depth() -> None:
    text = ["[{" * 40, '"' + "[" * 40, "\\" + "{" * 40]

    assert parse(json.dumps(text).encode()) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_every_value_that_python_writes_is_accepted(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=100))
def test_any_bytes_raise_only_invalid_json(raw: bytes) -> None:
    try:
        parse(raw)
    except InvalidJson:
        locate(raw)


@pytest.mark.no_cover
@pytest.mark.parametrize("unclosed", [b'\\"', b"\\", b'""', b'{"a'], ids=repr)
def test_time_to_parse_grows_linearly(unclosed: bytes) -> None:
    raw = b'"' + b"[" * (MAX_DEPTH + 1) + unclosed * 40_000
    began = time.thread_time()

    with pytest.raises(InvalidJson):
        parse(raw)

    assert time.thread_time() - began < 0.5
