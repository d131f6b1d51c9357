"""Output of commands: tables, JSON, and one-line errors with an exit status."""

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.composition.build import build_components
from app.composition.components import Components
from app.config.settings import Settings, SettingsError
from app.observability import logging as logs
from app.vending.audit import REQUEST_CONTEXT, RequestContext
from app.vending.errors import DialtoneError
from app.vending.models import UserKey

Result = TypeVar("Result")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def settings() -> Settings:
    """The configuration. Exits with one line on standard error if it is invalid."""
    try:
        return Settings.load()
    except SettingsError as error:
        end(f"Configuration: {error}")


def end(line: str, status: int = 1) -> NoReturn:
    typer.echo(line, err=True)
    raise typer.Exit(status)


def run(work: Callable[[Components], Awaitable[Result]]) -> Result:
    """Run `work` with the components of the service, in this process. Exits 1 with one line if it fails."""
    logs.silence()
    components = build_components(settings())

    async def opened() -> Result:
        REQUEST_CONTEXT.set(RequestContext(actor=UserKey("shell", _person())))
        async with components.open():
            return await work(components)

    try:
        return asyncio.run(opened())
    except DialtoneError as error:
        end(str(error))


def _person() -> str:
    """The name of the shell's user, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the text unchanged, because brackets in a user's name are not markup."""
    table = Table(box=box.SIMPLE)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(soft_wrap=False).print(table)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on a terminal while the block runs."""
    with Console(stderr=True).status(what):
        yield
