"""Input of commands that is no argument: tokens in a file or on standard input, and times."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import typer

from app.cli.output import end

MAX_INPUT_BYTES = 1024 * 1024

_BEARER = re.compile(r"\Abearer(?:\s+|\Z)", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].+)?", re.ASCII)


def read_token(source: str) -> str:
    """The text from a file or, for `-`, standard input, without the word Bearer. Exits 2 if there is none."""
    text = without_bearer(_read(source))
    if not text:
        end("There is no token: the input is empty.", 2)
    return text


def standard_input() -> str:
    """The text on standard input, of which at most MAX_INPUT_BYTES are read. Empty if it is closed."""
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.buffer.read(MAX_INPUT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def without_bearer(text: str) -> str:
    """The text without white space around it, and without one word Bearer before it."""
    return _BEARER.sub("", text.strip().removeprefix("\ufeff"), count=1)


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


def _read(source: str) -> str:
    if source == "-":
        if sys.stdin is not None and sys.stdin.isatty():
            typer.echo("Paste the token, and press Enter and Ctrl-D.", err=True)
        return standard_input()
    try:
        with Path(source).open("rb") as file:
            return file.read(MAX_INPUT_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        # The argument is not repeated: it may be the token itself.
        end(
            f"The file cannot be read ({type(error).__name__}). Pass the token in a file or on standard input, and "
            "never as an argument: other users of this machine can read the command line.",
            2,
        )
