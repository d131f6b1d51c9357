"""Pages of a list: the cursor, the page schema, and the one function that fetches a page."""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, Field

Position = tuple[datetime, str]
"""The position of a row in its list. Lists are sorted by time and then by id, newest first."""

Cursor = Annotated[str | None, Field(max_length=256, description="`next_cursor` of the previous page.")]

Row = TypeVar("Row")
Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """One page of a list, newest first."""

    data: list[Item]
    next_cursor: str | None = Field(description="Pass it as `cursor` to get the next page; null on the last page.")


class Rows(NamedTuple, Generic[Row]):
    """The rows of one page, and the cursor of the next."""

    rows: list[Row]
    next_cursor: str | None


async def fetch_page(
    fetch: Callable[[Position | None, int], Awaitable[list[Row]]],
    position_of: Callable[[Row], Position],
    *,
    limit: int,
    cursor: str | None,
) -> Rows[Row]:
    """Fetch at most `limit` rows after the cursor. Raises InvalidCursor.

    `fetch` receives the position to start after and a number of rows, one more than the page holds: the extra row shows
    that there is another page.
    """
    found = await fetch(decode_cursor(cursor) if cursor else None, limit + 1)
    rows = found[:limit]
    return Rows(rows, encode_cursor(*position_of(rows[-1])) if len(found) > limit else None)


class InvalidCursor(Exception):
    """This service did not issue the cursor."""


def encode_cursor(moment: datetime, row_id: str) -> str:
    """Opaque to callers, but no secret: a cursor gives no access to another user's list."""
    return base64.urlsafe_b64encode(json.dumps([moment.astimezone(UTC).isoformat(), row_id]).encode()).decode()


def decode_cursor(cursor: str) -> Position:
    """Raises InvalidCursor for anything that `encode_cursor` would not make."""
    try:
        time, row_id = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None or not re.fullmatch("[0-9a-f]{32}", row_id) or encode_cursor(moment, row_id) != cursor:
            raise InvalidCursor
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidCursor from None
    return moment, row_id
