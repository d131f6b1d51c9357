"""Strict parsing of compact JWS. It verifies nothing: it uses no key, no clock and no configuration.

python-jose is too lenient: it accepts non-canonical base64url (so that one token has many spellings), duplicate JSON
members, NaN and five segments, and raises RecursionError for nested JSON.
"""

import re
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Any

from app.vending import strict_json
from app.vending.errors import TokenRejected

MAX_TOKEN_LENGTH = 8192
"""Characters. Longer tokens are rejected before anything is decoded."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""Allowed last characters of a final group of 2 or 3 characters: those whose unused bits are zero (RFC 4648 3.5)."""


@dataclass(frozen=True, slots=True, repr=False)
class CompactJws:
    """The three parts, two of them decoded. No repr, because a token is a secret until it expires."""

    encoded_header: str
    """Canonical base64url: equal headers have equal texts."""
    payload: bytes
    signature: bytes
    signing_input: bytes

    @classmethod
    def parse(cls, unverified_token: str) -> "CompactJws":
        """Raises TokenRejected unless the token has three canonical base64url parts."""
        if len(unverified_token) > MAX_TOKEN_LENGTH:
            raise TokenRejected("too_long")
        parts = unverified_token.split(".")
        if len(parts) != 3:
            raise TokenRejected("not_three_parts")
        header, payload, signature = parts
        check_base64url(header)
        signing_input = unverified_token[: len(header) + 1 + len(payload)].encode("ascii", "replace")
        return cls(header, canonical_base64url(payload), canonical_base64url(signature), signing_input)

    def header(self) -> dict[str, Any]:
        """The header as a JSON object. Raises TokenRejected."""
        return json_object(canonical_base64url(self.encoded_header))

    def claims(self) -> dict[str, Any]:
        """The payload as a JSON object, not yet verified. Raises TokenRejected."""
        return json_object(self.payload)


def check_base64url(text: str) -> None:
    """Raises TokenRejected unless the text is base64url without padding and with zero unused bits."""
    left_over = len(text) % 4
    if left_over == 1 or not _BASE64URL.match(text):
        raise TokenRejected("not_base64url")
    if left_over and text[-1] not in _LAST[left_over]:
        raise TokenRejected("not_canonical")


def canonical_base64url(text: str) -> bytes:
    """Decode base64url. Raises TokenRejected for any but the canonical encoding."""
    check_base64url(text)
    return a2b_base64(text.encode("ascii").translate(_STANDARD_ALPHABET) + b"==="[: -len(text) % 4])


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object, parsed strictly. Raises TokenRejected."""
    try:
        value = strict_json.parse(raw)
    except strict_json.InvalidJson as error:
        raise TokenRejected(error.fault.value) from None
    if not isinstance(value, dict):
        raise TokenRejected("not_json_object")
    return value
