"""How commands talk to the person at the terminal: one clear line when it goes wrong, and a status that scripts see."""

import logging
from typing import NoReturn

import structlog
import typer

from app.settings import Settings, SettingsError


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
