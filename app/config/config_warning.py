"""Warnings about the configuration, for `dialtone config check`, `dialtone doctor` and the log."""

from typing import NamedTuple


class ConfigWarning(NamedTuple):
    """A setting that is valid but probably wrong."""

    place: str
    """The variable, or the path into dialtone.toml."""
    seen: str
    fix: str
