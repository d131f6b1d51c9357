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


Words = frozenset[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^\S+$")]]


class OneOf(Table):
    one_of: tuple[StrictStr | StrictBool | StrictInt, ...] = Field(min_length=1)


class Glob(Table):
    glob: str = Field(min_length=1, max_length=256)


class HasKey(Table):
    has_key: str = Field(min_length=1, max_length=256)


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
    return value


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
