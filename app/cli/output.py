"""Output of commands: rows, fields and JSON on standard output; messages and errors on standard error."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import accumulate
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

GAP = "  "
MIN_SHORTENED = 8
"""Characters that remain of a shortened value."""


class Column(NamedTuple):
    """A column of a list. On a narrow terminal, the last columns are omitted, and values are shortened."""

    title: str
    value: Callable[[Mapping[str, Any]], Any]
    is_whole: bool = False
    """Never shortened: ids and times, which are useless in part."""


def say(text: str) -> None:
    """Print data on standard output. Control characters are escaped, because the text may come from a service."""
    typer.echo(_lines(text))


def note(text: str) -> None:
    """Print a message that is not data on standard error."""
    typer.echo(_lines(text), err=True)


def counted(number: int, noun: str) -> str:
    """The number and the noun, such as `1 issuer` and `2 issuers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def end(text: str, status: int = 1) -> NoReturn:
    note(text)
    raise typer.Exit(status)


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_seconds(moment: str | None) -> str | None:
    """The time of a response, such as 2026-11-23T09:30:00.000Z, without fractions of a second."""
    return None if moment is None else f"{moment[:19]}Z"


def print_json(value: Any) -> None:
    typer.echo(json_text(value, indent=2))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON. Characters that could control a terminal are escaped, which changes no value."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)


def print_rows(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], if_empty: str) -> None:
    """A table on a terminal; otherwise one line per row with tabs between whole values. The first column is an id."""
    texts = [[_text(column.value(row)) for column in columns] for row in rows]
    if not rows:
        note(if_empty)
    elif not sys.stdout.isatty():
        for row in texts:
            typer.echo("\t".join(row))
    else:
        lines, omitted = table(columns, texts, shutil.get_terminal_size().columns)
        typer.echo("\n".join(lines))
        if omitted:
            note(f"Not shown on this narrow terminal: {', '.join(omitted)}. Use --json to print them.")


def print_fields(fields: Mapping[str, Any]) -> None:
    """One line per field: aligned on a terminal, with a tab otherwise."""
    names = {name: printable(name) for name in fields}
    width = max(map(len, names.values()), default=0) if sys.stdout.isatty() else 0
    for name, value in fields.items():
        typer.echo(f"{names[name]:{width}}{GAP if width else chr(9)}{_text(value)}")


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[str]]:
    """The lines of a table that fits the width if the first column does, and the titles of the omitted columns."""
    natural = [max(map(_cells, cells)) for cells in zip([column.title for column in columns], *rows, strict=True)]
    least = [
        cells if column.is_whole else min(cells, max(MIN_SHORTENED, len(column.title)))
        for column, cells in zip(columns, natural, strict=True)
    ]
    needed = accumulate((cells + len(GAP) for cells in least), initial=-len(GAP))
    shown = max(1, sum(total <= width for total in needed) - 1)
    widths = least[:shown]
    left = width - sum(widths) - len(GAP) * (shown - 1)
    for number in range(shown):
        more = min(max(left, 0), natural[number] - widths[number])
        widths[number] += more
        left -= more
    lines = [
        GAP.join(_fitted(cell, cells) for cell, cells in zip(row, widths, strict=False)).rstrip()
        for row in ([column.title for column in columns], *rows)
    ]
    return lines, [column.title for column in columns[shown:]]


def printable(text: str) -> str:
    """The text with control characters escaped: a user's name may contain any, and must not change the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on a terminal while the block runs."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _text(value: Any) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case _:
            return printable(str(value))


def _cells(text: str) -> int:
    """Columns of the terminal that a text takes. Characters of some scripts take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _fitted(text: str, cells: int) -> str:
    """The text with spaces behind it, or shortened with an ellipsis."""
    if (used := _cells(text)) <= cells:
        return text + " " * (cells - used)
    from rich.cells import set_cell_size

    return set_cell_size(text, cells - 1) + "…"
