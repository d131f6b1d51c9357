"""The place and the message of a fault in the configuration, from the errors of pydantic."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.adapters.identity.tenants import TENANT_ID
from app.config.sign_in import SCOPE
from app.config.tables import FieldError

_TYPES = {
    "frozen_set_type": 'must be a list, such as ["a", "b"]',
    "tuple_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "int_type": "must be an integer, without quotation marks",
}
"""pydantic's messages name types of Python."""

FORMATS = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": "must have 1 to 64 letters, digits and . _ -, the first a letter or digit",
    r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$": "must have 1 to 64 lower-case letters, digits and inner hyphens",
    r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$": "must have 1 to 32 lower-case letters, digits and inner hyphens",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "must be the name of an environment variable",
    r"^[0-9]{1,20}$": "must be the number of a connection, such as 1293384261075731499",
    r"^\+[1-9][0-9]{6,14}$": "must be a number in E.164, such as +3224850111",
    r"^[\x20-\x7e]{1,255}$": "must have 1 to 255 printable ASCII characters",
    SCOPE: "must be a scope: printable ASCII characters without spaces, quotation marks and backslashes",
    r"^\S+$": "must have no white space",
    rf"^{TENANT_ID}$": "must be a tenant ID: letters, digits and inner . _ -",
    r"^[0-7]{3}$": "must be three octal digits, such as 660",
    r"^[A-Za-z0-9.-]+(:[0-9]+)?$": "must be a host name, such as sip.telnyx.com",
    r"^wss?://[A-Za-z0-9.:\[\]/_-]+$": "must be a WebSocket URL, such as wss://rtc.telnyx.com",
    r"^(/[A-Za-z0-9._~-]+)*$": "must be a path that begins with a slash and does not end with one, such as /phones",
}
"""The requirement of each pattern in the settings."""


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The place (`issuers[0].algorithms`) and the message of the first fault, without the value."""
    fault = error.errors(include_input=False, include_url=False)[0]
    loc = [part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        place = f"{place}.{cause.field}".lstrip(".")
    place = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in place)  # a key is any text
    if place in ("issuers", "policy.rules") and fault["type"] == "tuple_type":
        return place, f"must be a list of tables; write [[{place}]] with two pairs of brackets"
    if fault["type"] == "missing":
        return place, "is required"
    return place, message_of(fault)


def message_of(fault: Mapping[str, Any]) -> str:
    """The requirement that the value does not meet, without the value."""
    if fault["type"] == "string_pattern_mismatch":
        return FORMATS[fault["ctx"]["pattern"]]
    message: str = _TYPES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    return message
