"""The faults of a request, as `errors` of a problem document lists them: location, type and a sentence.

The sentences are texts of this code base. A fault contains no value of the request. It contains a name that the caller
chose only if that is a plain identifier, so that a misspelt field is named and misplaced material is not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.api.schemas.fields import FORMATS
from app.vending.strict_json import MAX_DEPTH, JsonFault, Path

Fault = dict[str, Any]
"""`loc`, `type` and `message`, as `schemas.problem.ProblemDetail` describes them."""

MAX_FAULTS = 20
UNKNOWN = "[unknown]"
"""Replaces a name that is not a plain identifier."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)

_FLAG = "{name} must be true or false."
_INTEGER = "{name} must be an integer."
_TIME = "{name} must be a time with a zone, such as 2026-11-23T09:30:00Z."

_MESSAGES = {
    "missing": "{name} is required.",
    "model_attributes_type": "{name} must be a JSON object.",
    "string_type": "{name} must be a string.",
    "string_unicode": "{name} must be valid Unicode.",
    "string_too_short": "{name} is too short. The minimum length is {min_length}.",
    "string_too_long": "{name} is too long. The maximum length is {max_length}.",
    "bool_type": _FLAG,
    "bool_parsing": _FLAG,
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "greater_than_equal": "{name} must be at least {ge}.",
    "less_than_equal": "{name} must be at most {le}.",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
    "datetime_out_of_range": "{name} must be in the years 1 to 9999 in UTC.",
}
"""By pydantic's type of the error. The types with more to say are in `_message`."""

_JSON_TYPES = {
    JsonFault.NOT_JSON: ("json_invalid", "The body is not valid JSON in UTF-8, or a number in it is too long."),
    JsonFault.MEMBER_TWICE: ("duplicate_field", "{name} occurs more than once."),
    JsonFault.NOT_FINITE: ("finite_number", "{name} must be a finite number."),
    JsonFault.TOO_DEEP: ("json_too_deep", f"The body has more than {MAX_DEPTH} levels of nesting."),
}


class InvalidInput(Exception):
    """The request cannot be parsed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault["type"])
        self.fault = fault


def json_fault(fault: JsonFault, path: Path) -> Fault:
    """The fault of a body that is not strict JSON."""
    kind, message = _JSON_TYPES[fault]
    return _fault(("body", *path), kind, message)


def repeated_parameter(name: str) -> Fault:
    return _fault(("query", name), "duplicate_field", "{name} occurs more than once.")


def unknown_field(place: str, name: str) -> Fault:
    """The fault of a query parameter or a member of the body that the operation does not have."""
    return _fault((place, name), "extra_forbidden", "")


def faults_of(error: RequestValidationError, body: FieldInfo | None) -> tuple[Fault, ...]:
    """The first faults that pydantic found. `body` is the declaration of the route's body, if it takes one."""
    return tuple(_translated(found, body) for found in error.errors()[:MAX_FAULTS])


def _translated(found: dict[str, Any], body: FieldInfo | None) -> Fault:
    loc, kind = tuple(found["loc"]), str(found["type"])
    if body is not None and isinstance(body.discriminator, str) and loc[0] == "body":
        if kind.startswith("union_tag"):
            return _tag_fault(kind, body.discriminator, get_args(body.annotation))
        loc = loc[:1] + loc[2:]  # pydantic puts the tag of the union's member before the field
    return _fault(loc, kind, _message(kind, found.get("ctx", {})))


def _tag_fault(kind: str, name: str, members: Sequence[type[BaseModel]]) -> Fault:
    """The fault of the field that tells the members of a union apart: it is missing, or has an unknown value."""
    tags = " or ".join(get_args(member.model_fields[name].annotation)[0] for member in members)
    if kind == "union_tag_not_found":
        return _fault(("body", name), "missing", f"{{name}} is required: {tags}.")
    return _fault(("body", name), "enum", f"{{name}} must be {tags}.")


def _message(kind: str, context: Mapping[str, Any]) -> str:
    """The sentence, with `{name}` for the field."""
    match kind:
        case "value_error":  # raised by a schema of this code base
            return str(context["error"])
        case "enum":
            return f"{{name}} must be {str(context['expected']).replace(chr(39), '')}."
        case "string_pattern_mismatch":
            return f"{{name}} {FORMATS.get(context['pattern'], 'does not have the required format')}."
        case _:
            return _MESSAGES.get(kind, "{name} is invalid.").format_map({**context, "name": "{name}"})


def _fault(loc: Sequence[str | int], kind: str, message: str) -> Fault:
    shown = [part if isinstance(part, int) or _IDENTIFIER.fullmatch(part) else UNKNOWN for part in loc]
    names = [part for part in shown[1:] if isinstance(part, str)]
    name = "The body" if not names else "A field" if names[-1] == UNKNOWN else names[-1]
    if kind == "extra_forbidden":
        message = "Unknown field." if names[-1] == UNKNOWN else "Unknown field: {name}."
    return {"loc": shown, "type": kind, "message": message.replace("{name}", name)}
