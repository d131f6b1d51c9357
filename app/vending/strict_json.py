"""Strict parsing of JSON. Python accepts duplicate members and NaN, and raises RecursionError for nested JSON."""

import json
import math
import re
from enum import StrEnum
from typing import Any, NoReturn

MAX_DEPTH = 16
"""Maximum nesting of arrays and objects."""

_WHITE_SPACE = " \t\n\r"
"""RFC 8259 section 2."""

Path = tuple[str | int, ...]
"""Names of members and indices of arrays, from the outermost value. The names are the sender's text."""


class JsonFault(StrEnum):
    """Why a text is not accepted."""

    NOT_JSON = "not_json"
    """The text is not JSON in UTF-8, or a number in it has thousands of digits."""
    MEMBER_TWICE = "member_twice"
    NOT_FINITE = "not_finite"
    """NaN, Infinity, or a number that is too large for a double."""
    TOO_DEEP = "too_deep"


class InvalidJson(ValueError):
    """The text is not strict JSON. The message contains no part of it."""

    def __init__(self, fault: JsonFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


# The possessive string and its optional closing quote make the search linear, also in a text with an unclosed string.
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse(raw: bytes) -> Any:
    """The value of a JSON text: UTF-8, no duplicate members, finite numbers, limited depth. Raises InvalidJson."""
    try:
        text = raw.decode("utf-8")
        _check_depth(text)
        text = text.strip(_WHITE_SPACE)
        value, end = _DECODER.raw_decode(text)  # unlike `decode`, without two regular expressions
    except InvalidJson:
        raise
    except (ValueError, RecursionError):
        raise InvalidJson(JsonFault.NOT_JSON) from None
    if end != len(text):
        raise InvalidJson(JsonFault.NOT_JSON)
    return value


def locate(raw: bytes) -> tuple[JsonFault, Path] | None:
    """The first duplicate member or non-finite number of a text that `parse` did not accept, and its path."""
    try:
        return _first_fault(_LOCATING_DECODER.decode(raw.decode("utf-8")), ())
    except (ValueError, RecursionError):
        return None


def _check_depth(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRINGS_AND_BRACKETS.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth > MAX_DEPTH:
                    raise InvalidJson(JsonFault.TOO_DEEP)
            case "]" | "}":
                depth -= 1


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJson(JsonFault.MEMBER_TWICE)
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise InvalidJson(JsonFault.NOT_FINITE)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidJson(JsonFault.NOT_FINITE)
    return number


class _Members(list[tuple[str, Any]]):
    """The members of an object, duplicates included."""


def _first_fault(value: Any, path: Path) -> tuple[JsonFault, Path] | None:
    if isinstance(value, float) and not math.isfinite(value):
        return JsonFault.NOT_FINITE, path
    if not isinstance(value, list):
        return None
    names: set[str | int] = set()
    for name, item in value if isinstance(value, _Members) else enumerate(value):
        if name in names:
            return JsonFault.MEMBER_TWICE, (*path, name)
        names.add(name)
        if (found := _first_fault(item, (*path, name))) is not None:
            return found
    return None


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_finite)
_LOCATING_DECODER = json.JSONDecoder(object_pairs_hook=_Members)
