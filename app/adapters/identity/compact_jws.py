"""A compact JWS, taken apart strictly. Nothing here is believed: no key, no clock, no configuration.

Strict because python-jose is not: it takes non-canonical base64url (so one token has many spellings), a member given
twice, NaN, five segments, and lets RecursionError out for nested JSON.
"""

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from app.vending.errors import TokenRejected

MAX_TOKEN_LENGTH = 8192
"""Characters. Longer ones are refused before anything is decoded."""

MAX_DEPTH = 16
"""Nesting of the JSON in header and payload."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""What the last of so many characters may be, when the bits of it that stand for nothing are zero (RFC 4648, 3.5)."""

_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class CompactJws:
    """The three parts, decoded. No repr: it is a bearer secret until it has expired."""

    header: dict[str, Any]
    payload: bytes
    signature: bytes
    signing_input: bytes

    @classmethod
    def parse(cls, unverified_token: str) -> "CompactJws":
        """Raises TokenRejected for everything but three canonical base64url parts with a JSON object for a header."""
        if len(unverified_token) > MAX_TOKEN_LENGTH:
            raise TokenRejected("too_long")
        parts = unverified_token.split(".")
        if len(parts) != 3:
            raise TokenRejected("not_three_parts")
        header, payload, signature = (canonical_base64url(part) for part in parts)
        return cls(json_object(header), payload, signature, f"{parts[0]}.{parts[1]}".encode("ascii"))

    def claims(self) -> dict[str, Any]:
        """The payload as a JSON object; still only claims. Raises TokenRejected."""
        return json_object(self.payload)


def canonical_base64url(text: str) -> bytes:
    """Decoded, if `text` is the one spelling of those bytes: unpadded, unused bits zero. Raises TokenRejected."""
    left_over = len(text) % 4
    if left_over == 1 or not _BASE64URL.match(text):
        raise TokenRejected("not_base64url")
    if left_over and text[-1] not in _LAST[left_over]:
        raise TokenRejected("not_canonical")
    return base64.urlsafe_b64decode(text + "=" * (-left_over % 4))


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object: strict UTF-8, no member twice, finite numbers, bounded depth. Raises TokenRejected."""
    try:
        text = raw.decode("utf-8")
        _check_depth(text)
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise TokenRejected("not_json") from None
    if not isinstance(value, dict):
        raise TokenRejected("not_json_object")
    return value


def _check_depth(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRINGS_AND_BRACKETS.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth > MAX_DEPTH:
                    raise TokenRejected("too_deep")
            case "]" | "}":
                depth -= 1


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise TokenRejected("member_twice")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise TokenRejected("not_finite")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise TokenRejected("not_finite")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_finite)
