"""Secrets and files that dialtone.toml names: the file has the name of a variable or a path, and not the secret."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from app.config.tables import FieldError
from app.config.text_cleaning import stripped

MIN_SECRET_LENGTH = 32
"""Characters. Every secret has at least as many."""

Loaded = TypeVar("Loaded")
SecretOf = Callable[[str], str | None]
"""The value of an environment variable; None if it is not set."""


def read_text(field: str, path: str) -> str:
    """The text of the file that a field names. Raises FieldError."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FieldError(field, "names a file that is not UTF-8 text; keys and certificates must be in PEM") from None
    except (OSError, ValueError):  # a path with a null character is a ValueError
        raise FieldError(field, "names a file that cannot be read") from None


def load(field: str, loader: Callable[..., Loaded], *material: Any) -> Loaded:
    """The result of `loader`, whose ValueError becomes a FieldError."""
    try:
        return loader(*material)
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def load_secret(table: object, name: str, secret_of: SecretOf, loader: Callable[[str | None], Loaded]) -> Loaded | None:
    """The secret that the table's field `<name>_env` or `<name>_file` names; None if neither is set.

    Raises FieldError.
    """
    variable_field, file_field = f"{name}_env", f"{name}_file"
    variable, file = getattr(table, variable_field), getattr(table, file_field)
    if variable is None and file is None:
        return None
    text = stripped(read_text(file_field, file)) if variable is None else secret_of(variable)
    if variable is not None and not text:
        # The secret itself may be there instead of the name, so a text that is as long as a secret is not shown.
        name = variable if len(variable) < MIN_SECRET_LENGTH else "the variable of this name"
        raise FieldError(variable_field, f"{name} is not set in the environment")
    return load(file_field if variable is None else variable_field, loader, text)
