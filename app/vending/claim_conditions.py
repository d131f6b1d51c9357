"""Where a claim is, by name or JSON Pointer (RFC 6901), and conditions on its value.

The rules of a policy and the required claims of an issuer use the same conditions.
"""

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Scalar = str | int | bool
ClaimPath = tuple[str, ...]
"""The names that lead to a value inside the claims. A path of one name is a claim."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,5}")
"""An index into a list (RFC 6901 section 4). A token of 12 KB has no list of a million elements."""

_BAD_ESCAPE = re.compile(r"~(?![01])")


def claim_path(name: str) -> ClaimPath:
    """The path of a claim or, with a leading `/`, of a JSON Pointer. Raises ValueError for an invalid pointer."""
    if not name.startswith("/"):
        return (name,)
    if _BAD_ESCAPE.search(name):
        raise ValueError("is not a JSON Pointer (RFC 6901); write ~0 for ~ and ~1 for / inside a name")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in name[1:].split("/"))


def value_at(claims: Mapping[str, Any], path: ClaimPath, absent: Any = None) -> Any:
    """The value at the path; `absent` if there is none. A value may be null, which is None."""
    if len(path) == 1:
        return claims.get(path[0], absent)
    found: Any = claims
    for part in path:
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and _INDEX.fullmatch(part) and int(part) < len(found):
            found = found[int(part)]
        else:
            return absent
    return found


@dataclass(frozen=True, slots=True)
class ClaimCondition:
    """Condition on one claim: one of some values, text that matches a glob, or an object with a key, or none of that.

    If the claim is a list, one matching element suffices.
    """

    claim: str
    """The claim's name, or with a leading `/` a JSON Pointer into the claims. Raises ValueError if it is invalid."""
    one_of: tuple[Scalar, ...] = ()
    glob: str | None = None
    has_key: str | None = None
    is_negated: bool = False
    """If true, the claims must not match the rest of the condition. An absent claim and null do not match it."""
    path: ClaimPath = field(init=False, repr=False, compare=False)
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = None if self.glob is None else re.compile(_as_regex(self.glob))
        object.__setattr__(self, "path", claim_path(self.claim))
        object.__setattr__(self, "_pattern", pattern)

    def why_not(self, claims: Mapping[str, Any]) -> str | None:
        """Why the claims do not match; None if they do. Names what the rule requires, never the token's values."""
        value = value_at(claims, self.path)
        if value is None:
            return None if self.is_negated else f"there is no claim {self.claim!r}"
        is_met = self._accepts(value) or (type(value) is list and any(self._accepts(item) for item in value))
        if self.is_negated:
            return f"claim {self.claim!r} has an excluded value" if is_met else None
        if is_met:
            return None
        if self._pattern is not None:
            return f"claim {self.claim!r} does not match {self.glob!r}"
        if self.has_key is not None:
            return f"claim {self.claim!r} has no key {self.has_key!r}"
        return f"claim {self.claim!r} is not {' or '.join(repr(wanted) for wanted in self.one_of)}"

    @property
    def expected(self) -> str:
        """The condition in words."""
        if self.glob is not None:
            return f"{self.claim} {'does not match' if self.is_negated else 'matches'} {self.glob}"
        if self.has_key is not None:
            return f"{self.claim} {'does not have' if self.is_negated else 'has'} the key {self.has_key}"
        values = " or ".join(json.dumps(wanted) for wanted in self.one_of)
        return f"{self.claim} {'is not' if self.is_negated else 'is'} {values}"

    def _accepts(self, value: Any) -> bool:
        if self._pattern is not None:
            return isinstance(value, str) and self._pattern.fullmatch(value) is not None
        if self.has_key is not None:
            return isinstance(value, Mapping) and self.has_key in value
        for wanted in self.one_of:  # noqa: SIM110 - a generator costs more than the comparisons
            # True == 1 in Python, but a boolean claim must not match a number.
            if value == wanted and type(value) is type(wanted):
                return True
        return False


def _as_regex(glob: str) -> str:
    """`*` matches any text, `?` any one character, everything else itself. Case-sensitive."""
    # fnmatch's pattern does not backtrack over `*`, so no claim makes a match slow (ReDoS). `[...]` sets are escaped.
    return fnmatch.translate(glob.replace("[", "[[]"))
