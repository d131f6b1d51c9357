"""Values of a token as safe text for a terminal: escaped, on one line, and shortened."""

import json
from datetime import UTC, datetime
from typing import Any

from app.adapters.identity.claims import LAST_MOMENT

MAX_SHOWN_CHARS = 120
MAX_SHOWN_ITEMS = 5


def shown(value: Any) -> str:
    """A value of a claim or header. ASCII only: other characters can change a terminal or imitate letters."""
    match value:
        case None | bool() | int() | float():
            return json.dumps(value)[:MAX_SHOWN_CHARS]
        case str():
            return _quoted(value)
        case list():
            # Only one level: a malformed token may have any depth, and the text must stay short.
            items = ", ".join(
                kind_of(item) if isinstance(item, list) else shown(item) for item in value[:MAX_SHOWN_ITEMS]
            )
            more = len(value) - MAX_SHOWN_ITEMS
            return f"[{items}" + (f", and {more} more]" if more > 0 else "]")
        case _:
            return f"an object with {counted(len(value), 'member')}"


def kind_of(value: Any) -> str:
    """The JSON type of a value that is not shown, because it may be personal data."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "empty text" if not value else f"text of {counted(len(value), 'character')}"
        case list():
            return f"a list of {counted(len(value), 'item')}"
        case _:
            return f"an object with {counted(len(value), 'member')}"


def moment(seconds: Any, now: float) -> str:
    """A NumericDate with its distance from now, or the value itself if it is not a time."""
    if type(seconds) not in (int, float) or not 0 <= seconds <= LAST_MOMENT:
        return shown(seconds)
    at = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    distance = seconds - now
    return f"{at}, {_duration(abs(distance))} {'ago' if distance < 0 else 'from now'}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    for size, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return counted(int(seconds // size), noun)
    return counted(int(seconds), "second")


def _quoted(text: str) -> str:
    """JSON escapes control characters, except for DEL."""
    cut = text[:MAX_SHOWN_CHARS]
    quoted = json.dumps(cut).replace("\x7f", "\\u007f")
    return quoted if cut == text else f"{quoted} and {counted(len(text) - len(cut), 'more character')}"
