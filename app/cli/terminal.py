"""How commands talk to the person at the terminal: one clear line when it goes wrong, and a status that scripts see."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog
import typer

from app.settings import Settings, SettingsError
from app.vending.errors import DialtoneError
from app.wiring import Parts, join

Result = TypeVar("Result")


def settings() -> Settings:
    """The configuration, or the end with the line that says what is wrong with it."""
    try:
        return Settings.load()
    except SettingsError as error:
        end(f"Configuration: {error}")


def be_quiet() -> None:
    """What parts would log is no answer to a person's question."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def end(line: str, status: int = 1) -> NoReturn:
    typer.echo(line, err=True)
    raise typer.Exit(status)


def run(work: Callable[[Parts], Awaitable[Result]]) -> Result:
    """Work on the parts of the service, beside it and with its configuration; trouble is one line and status 1."""
    be_quiet()
    parts = join(settings())

    async def opened() -> Result:
        async with parts.open():
            return await work(parts)

    try:
        return asyncio.run(opened())
    except DialtoneError as error:
        end(str(error))
