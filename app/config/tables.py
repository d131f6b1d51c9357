"""The parts that several tables of dialtone.toml share: their base class, their errors, and conditions on claims."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from app.config.text_cleaning import checked
from app.config.variables import SIMILARITY
from app.vending.claim_conditions import ClaimCondition, Scalar, claim_path


class FieldError(ValueError):
    """A fault of one field that a check of several fields found."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Table(BaseModel):
    """Base of the tables. Rejects unknown keys, so that a misspelt key is not silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        cls.check_names(data)
        return data

    @classmethod
    def check_names(cls, data: Any) -> None:
        """Raises FieldError for the first unknown key, with the similar names of settings."""
        if not isinstance(data, Mapping):
            return
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in data:
            if isinstance(name, str) and name not in known:
                near = difflib.get_close_matches(name.lower(), sorted(known), n=2, cutoff=SIMILARITY)
                raise FieldError(name, "unknown setting" + (f"; did you mean {' or '.join(near)}?" if near else ""))


Words = frozenset[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^\S+$"), AfterValidator(checked)]]


MAX_TEXT_LENGTH = 256
"""Characters of a pattern or a key in a condition."""


class OneOf(Table):
    one_of: tuple[StrictStr | StrictBool | StrictInt, ...] = Field(min_length=1)


class Glob(Table):
    glob: str = Field(min_length=1, max_length=MAX_TEXT_LENGTH)


class HasKey(Table):
    has_key: str = Field(min_length=1, max_length=MAX_TEXT_LENGTH)


Positive = StrictStr | StrictBool | StrictInt | OneOf | Glob | HasKey


class Not(Table):
    condition: Positive = Field(alias="not")


ClaimTable = Positive | Not


CLAIM_KINDS = (
    'a value, `{ one_of = [...] }`, `{ glob = "..." }` with `*` and `?`, or `{ has_key = "..." }` for an object. '
    "`{ not = ... }` with one of these requires that it does not match. "
    "For a list, one matching element suffices. A name such as `/realm_access/roles` is a JSON Pointer."
)


def _check_claims(value: Any) -> Any:
    """Report one fault. pydantic would report one for every branch of the union."""
    for name, wanted in value.items() if isinstance(value, dict) else ():
        condition = wanted["not"] if isinstance(wanted, dict) and set(wanted) == {"not"} else wanted
        is_test = (
            isinstance(condition, dict) and len(condition) == 1 and set(condition) <= {"one_of", "glob", "has_key"}
        )
        if not name or not (is_test or isinstance(condition, str | bool | int)):
            raise ValueError(
                "a claim must be a string, a number, true, false, { one_of = [...] }, "
                '{ glob = "..." }, { has_key = "..." } or { not = ... }'
            )
        checked_path(name)
        _check_operand(name, condition)
    return value


def _check_operand(name: str, condition: Any) -> None:
    """Raises FieldError for a condition with an operand of another type, or an empty one."""
    match list(condition.items()) if isinstance(condition, dict) else []:
        case [("one_of", items)]:
            is_list = isinstance(items, list | tuple) and len(items) > 0
            if not is_list or not all(isinstance(item, Scalar) for item in items):
                raise FieldError(name, "one_of must be a list of at least one string, number, true or false")
        case [(kind, text)]:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT_LENGTH:
                raise FieldError(name, f"{kind} must be a string of 1 to {MAX_TEXT_LENGTH} characters")


def checked_path(name: str) -> str:
    """The name of a claim, or a valid JSON Pointer."""
    try:
        claim_path(name)
    except ValueError as error:
        raise ValueError(f"{name!r} {error}") from None
    return name


ClaimName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(checked_path)]
ClaimTables = Annotated[dict[str, ClaimTable], BeforeValidator(_check_claims)]
"""Conditions by the claim's name or JSON Pointer."""


def conditions(tables: dict[str, ClaimTable]) -> tuple[ClaimCondition, ...]:
    return tuple(_condition(claim, wanted) for claim, wanted in tables.items())


def _condition(claim: str, wanted: Scalar | OneOf | Glob | HasKey | Not) -> ClaimCondition:
    match wanted:
        case Not():
            return replace(_condition(claim, wanted.condition), is_negated=True)
        case OneOf():
            return ClaimCondition(claim, one_of=wanted.one_of)
        case Glob():
            return ClaimCondition(claim, glob=wanted.glob)
        case HasKey():
            return ClaimCondition(claim, has_key=wanted.has_key)
        case _:
            return ClaimCondition(claim, one_of=(wanted,))
