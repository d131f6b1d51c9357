"""Reading files of the project. A file that is missing or has no valid contents is a finding."""

import json
import tomllib
from pathlib import Path
from typing import Any

from release.findings import CheckFailed

_RESTORE = "correct it, or restore it with Git"


def read_text(root: Path, name: str) -> str:
    try:
        return (root / name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CheckFailed(name, f"cannot be read: {reason}", _RESTORE) from error


def read_json(root: Path, name: str, *keys: str) -> Any:
    """The value below the keys. Without keys, the whole document."""
    try:
        found = json.loads(read_text(root, name))
    except json.JSONDecodeError as error:
        raise CheckFailed(name, f"is not valid JSON: {error}", _RESTORE) from error
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise CheckFailed(name, f"has no {key!r}", _RESTORE)
        found = found[key]
    return found


def read_toml(root: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(root, name))
    except tomllib.TOMLDecodeError as error:
        raise CheckFailed(name, f"is not valid TOML: {error}", _RESTORE) from error
