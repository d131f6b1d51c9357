"""Types of the fields that several schemas have, the formats of text, and the strict base classes of requests."""

import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from app.vending.telephony.presence import CACHE_SECONDS, LOOKUP_SECONDS, MAX_LOOKUPS


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, rounded down so that a response never promises too much time."""
    return f"{_second(math.floor(moment.timestamp()))}.{moment.microsecond // 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(since_epoch: int) -> str:
    # Not strftime: its %Y has less than four digits for the first centuries.
    return datetime.fromtimestamp(since_epoch, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


Instant = Annotated[
    datetime,
    PlainSerializer(instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-23T09:30:00.000Z"]}),
]


LAST_USED = "When the device last got a login from Dialtone, accurate to a minute. Null if not known."
"""Description of `last_used_at`."""

ONLINE = (
    "Whether the device is registered with Telnyx, by a response of Telnyx that is at most "
    f"{CACHE_SECONDS + LOOKUP_SECONDS:.0f} seconds old. Null without `presence=true`, and if it is not known: Telnyx "
    f"is unavailable or busy, the credential is not active, or the request names more than {MAX_LOOKUPS} devices."
)
"""Description of `online`."""

_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)


def _check_is_text(value: Any) -> Any:
    """Rejects numbers, also as text. Pydantic would read them as seconds since 1970."""
    if isinstance(value, str) and _DATE_AND_TIME.match(value):
        return value
    raise PydanticKnownError("datetime_type")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_out_of_range", "out of range") from None


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_check_is_text), AfterValidator(_in_utc)]
"""A time in a request, in UTC. Rejected if it is no time with a zone, or outside the years 1 to 9999 in UTC."""


def _check_is_digits(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,9}", value):
        raise PydanticKnownError("int_parsing")
    return value


DIGITS = BeforeValidator(_check_is_digits)
"""For integers in a query: pydantic alone would accept `1_0` and `10.0`. Follows their bounds, which OpenAPI shows."""


def _check_is_flag(value: Any) -> Any:
    if isinstance(value, str) and value not in ("true", "false"):
        raise PydanticKnownError("bool_parsing")
    return value


PresenceFlag = Annotated[
    bool,
    BeforeValidator(_check_is_flag),
    Field(description="Look up at Telnyx whether the devices are registered: see `online`. Takes up to 2 seconds."),
]
"""The query parameter `presence`: `true` or `false`."""


DEVICE_ID = r"^[A-Za-z0-9._:-]{1,64}$"
RESOURCE_ID = r"^[0-9A-Za-z]{1,64}$"
ID_PREFIX = r"^[0-9a-f]{4,32}$"
CONNECTION_ID = r"^[0-9]{1,20}$"
SIP_USERNAME = r"^[A-Za-z0-9._-]{1,128}$"
REQUEST_ID = r"^[A-Za-z0-9._-]{1,64}$"
SHA256 = r"^[0-9a-f]{64}$"
ORIGIN = r"^[a-z][a-z0-9+.-]{0,31}://[a-z0-9._:\[\]-]+$"
ENDPOINT = r"^[a-z0-9-]{1,64}$"
EVENT_ID = r"^[0-9a-f]{32}$"
PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
"""Without control characters: valid tokens have none in names, and PostgreSQL cannot store NUL."""
DISPLAY_NAME = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+$"
"""No control characters and no marks of text direction, because names appear in operators' lists and in logs."""

FORMATS = {
    DEVICE_ID: "must have 1 to 64 characters: letters, digits, and any of . _ : -",
    RESOURCE_ID: "must have 1 to 64 characters: letters and digits",
    ID_PREFIX: "must have 4 to 32 characters: digits and the letters a to f",
    CONNECTION_ID: "must have 1 to 20 digits",
    SIP_USERNAME: "must have 1 to 128 characters: letters, digits, and any of . _ -",
    REQUEST_ID: "must have 1 to 64 characters: letters, digits, and any of . _ -",
    SHA256: "must have 64 characters: digits and the letters a to f",
    ORIGIN: "must be an origin as browsers send it, such as https://app.example.com",
    ENDPOINT: "must have 1 to 64 characters: lower-case letters, digits and hyphens",
    EVENT_ID: "must have 32 characters: digits and the letters a to f",
    PRINTABLE: "must not contain control characters",
    DISPLAY_NAME: "must not contain control characters or marks of text direction",
}
"""The required format in words, for each pattern of a request."""

DeviceId = Annotated[str, StringConstraints(pattern=DEVICE_ID)]
ResourceId = Annotated[str, StringConstraints(pattern=RESOURCE_ID)]
IdPrefix = Annotated[str, StringConstraints(pattern=ID_PREFIX)]
ConnectionId = Annotated[str, StringConstraints(pattern=CONNECTION_ID)]
SipUsername = Annotated[str, StringConstraints(pattern=SIP_USERNAME)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=DISPLAY_NAME)]
IssuerName = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=PRINTABLE)]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)]


class StrictRequest(BaseModel):
    """Base of request bodies. Rejects unknown fields, and values of another JSON type than the field's.

    An enumeration is text in JSON: its field needs `strict=False`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class QueryParameters(BaseModel):
    """Base of queries, whose values are all text. Rejects unknown parameters."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
