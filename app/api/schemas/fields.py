"""Types of the fields that several schemas have, and the strict base class of requests."""

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, rounded down so that a response never promises too much time."""
    return f"{_second(math.floor(moment.timestamp()))}.{moment.microsecond // 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


Instant = Annotated[
    datetime,
    PlainSerializer(instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-23T09:30:00.000Z"]}),
]


DeviceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


Label = Annotated[
    str,
    # No control characters and no marks of text direction, because labels appear in operators' lists and in logs.
    StringConstraints(
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+$",
    ),
]


class StrictRequest(BaseModel):
    """Base of requests. Rejects unknown fields, so that a misspelt field is not silently ignored."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
"""Without control characters: valid tokens have none in names, and PostgreSQL cannot store NUL."""


IssuerName = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=PRINTABLE)]


Subject = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)]
