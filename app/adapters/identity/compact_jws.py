"""Strict parsing of compact JWS. It verifies nothing: it uses no key, no clock and no configuration.

python-jose is too lenient: it accepts non-canonical base64url (so that one token has many spellings), duplicate JSON
members, NaN and five segments, and raises RecursionError for nested JSON.
"""

from binascii import a2b_base64
from typing import Any, NamedTuple

from app.vending import strict_json
from app.vending.errors import TokenRejected

MAX_TOKEN_LENGTH = 8192
"""Characters. Longer tokens are rejected before anything is decoded, unless an issuer allows more."""

MAX_CONFIGURABLE_TOKEN_LENGTH = 12_288
"""Characters that an issuer may allow. The header with such a token fits into the 16 KB buffers of common proxies."""

_TO_STANDARD = bytes(
    byte if chr(byte).isalnum() and byte < 128 else {ord("-"): ord("+"), ord("_"): ord("/")}.get(byte, ord("!"))
    for byte in range(256)
)
"""Translates base64url to base64, and every other byte to one that is not base64."""

_PADDING = (b"", b"", b"==", b"=")
_LAST = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
"""Allowed last characters of a final group of 2 or 3 characters: those whose unused bits are zero (RFC 4648 3.5)."""


class CompactJws(NamedTuple):
    """The three parts, two of them decoded."""

    encoded_header: bytes
    """Not decoded yet. Equal headers have equal texts, because `header` accepts canonical base64url only."""
    payload: bytes
    signature: bytes
    signing_input: bytes

    def __repr__(self) -> str:
        return "CompactJws()"  # a token is a secret until it expires

    @classmethod
    def parse(cls, unverified_token: str, max_length: int = MAX_TOKEN_LENGTH) -> "CompactJws":
        """Raises TokenRejected unless the token has three parts, the last two of them in canonical base64url."""
        if len(unverified_token) > max_length:
            raise TokenRejected("too_long")
        # Bytes outside ASCII become "?", which is not base64url.
        signing_input, _, signature = unverified_token.encode("ascii", "replace").rpartition(b".")
        header, dot, payload = signing_input.partition(b".")
        if not dot or b"." in payload:
            raise TokenRejected("not_three_parts")
        return cls(header, _decoded(payload), _decoded(signature), signing_input)

    def header(self) -> dict[str, Any]:
        """The header as a JSON object. Raises TokenRejected unless it is canonical base64url of one."""
        return json_object(_decoded(self.encoded_header))

    def claims(self) -> dict[str, Any]:
        """The payload as a JSON object, not yet verified. Raises TokenRejected."""
        return json_object(self.payload)


def canonical_base64url(text: str) -> bytes:
    """Decode base64url without padding. Raises TokenRejected for any but the canonical encoding."""
    return _decoded(text.encode("ascii", "replace"))


def _decoded(encoded: bytes) -> bytes:
    left_over = len(encoded) % 4
    try:
        decoded = a2b_base64(encoded.translate(_TO_STANDARD) + _PADDING[left_over], strict_mode=True)
    except ValueError:
        raise TokenRejected("not_base64url") from None
    if not decoded:
        raise TokenRejected("not_base64url")
    if left_over and encoded[-1] not in _LAST[left_over]:
        raise TokenRejected("not_canonical")
    return decoded


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object, parsed strictly. Raises TokenRejected."""
    try:
        value = strict_json.parse(raw)
    except strict_json.InvalidJson as error:
        raise TokenRejected(error.fault.value) from None
    if not isinstance(value, dict):
        raise TokenRejected("not_json_object")
    return value
