"""Times in the options of commands."""

import re
from datetime import UTC, datetime

import typer

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].+)?", re.ASCII)


def parse_moment(text: str) -> datetime:
    """A date, or a date and a time, in UTC unless it names a zone. Raises BadParameter.

    Typer's own parser reads digits as seconds since 1970, and accepts times that cannot be represented in UTC.
    """
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        message = "Use a date or a time in the years 1 to 9999, such as 2026-11-23 or 2026-11-23T09:30:00Z."
        raise typer.BadParameter(message) from None
