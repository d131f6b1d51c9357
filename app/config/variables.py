"""Reads variables from the environment, the env file and files of secrets, and records the source of each value."""

import difflib
import io
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from dotenv.parser import parse_stream

from app.config.config_warning import ConfigWarning
from app.config.text_cleaning import cleaned, cleaned_secret, stripped

ENV_FILE = "DIALTONE_ENV_FILE"
DEFAULT_ENV_FILE = ".env"
ENVIRONMENT = "environment"

SIMILARITY = 0.75
"""Names without their prefix that are at least this similar are suggested (0: different, 1: equal)."""

_PREFIXES = ("DIALTONE_", "TELNYX_")

_OMITTED = ("PROVIDER_", "ISSUER_")
"""Parts of a name that are often omitted: DIALTONE_CLIENT_ID instead of DIALTONE_PROVIDER_CLIENT_ID."""
_OWN_LINE = re.compile(
    r"\s*(?:(?:export|set|setx|env|declare\s+-x)\s+|-\s+[\"']?|\$env:)?((?:DIALTONE|TELNYX)_\w+)", re.IGNORECASE
)
"""A line that names a variable, also in the syntax of another shell or of a list in YAML."""

_REFERENCE = re.compile(r"\$\{\w+")

_SERVICE_LINK = re.compile(r"DIALTONE_(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT_\d+_(?:TCP|UDP)\w*)")
"""Variables that Kubernetes sets in each pod for a service named `dialtone` or `dialtone-...`."""


class VariableError(ValueError):
    """A fault of a variable. The message is one line with the variable and the fix, without the value."""


class VariableValue(NamedTuple):
    """The text of a variable, and its origin: `environment`, or the path of a file."""

    text: str
    origin: str

    def __repr__(self) -> str:
        return f"VariableValue(origin={self.origin!r})"


@dataclass(frozen=True, slots=True)
class Variables:
    """The environment takes precedence over the env file. An empty value counts as not set."""

    environment: Mapping[str, str] = field(repr=False)
    file: Mapping[str, str] = field(repr=False)
    file_path: str

    @classmethod
    def read(cls) -> Self:
        """Read the environment and the env file. Raises VariableError.

        The env file is the file that DIALTONE_ENV_FILE names, by default `.env`. Only `.env` may be missing if it is
        not named.
        """
        environment = dict(os.environ)
        path, is_named = DEFAULT_ENV_FILE, False
        if ENV_FILE in environment:
            path, is_named = _cleaned(ENV_FILE, environment[ENV_FILE]), True
        return cls(environment, _read_env_file(path, is_named=is_named) if path else {}, path)

    def get(self, name: str, *, is_list: bool = False, is_free_text: bool = False) -> VariableValue | None:
        """The value of a variable; None if it is not set. Raises VariableError.

        `is_free_text`: a secret of any characters, of which quotes may be a part.
        """
        if text := self.environment.get(name):
            text = _cleaned(name, text, is_list=is_list, is_free_text=is_free_text)
            if text:
                return VariableValue(text, ENVIRONMENT)
        if text := self.file.get(name):
            # Reading the file has removed one pair of quotes, so that those around a free text belong to it.
            text = stripped(text) if is_free_text else _cleaned(name, text, is_list=is_list)
            if text:
                return VariableValue(text, self.file_path)
        return None

    def check_names(self, known: Collection[str]) -> None:
        """Raises VariableError for a variable of the environment that begins with DIALTONE_ and is not a setting."""
        unknown = sorted(_unknown(self.environment, known))
        if unknown and _SERVICE_LINK.fullmatch(unknown[0]):
            raise VariableError(
                f"{unknown[0]} is a service link of Kubernetes; set enableServiceLinks: false in the pod's spec"
            )
        if unknown:
            hint = _hint(unknown[0], known)
            raise VariableError(f"{unknown[0]} is not a setting of Dialtone{hint}; .env.example lists all settings")

    def warnings(self, known: Collection[str]) -> list[ConfigWarning]:
        """Names that are probably misspelt, and values that refer to variables.

        Other programs may read the env file too, so names in it are not errors.
        """
        ignored = f"is not a setting of Dialtone; {self.file_path} sets it"
        found = [
            ConfigWarning(name, ignored, f"correct the name{_hint(name, known)}, or remove it")
            for name in sorted(_unknown(self.file, known))
        ]
        found += [
            ConfigWarning(name, "has the text ${...}, which Dialtone does not replace", "write the value itself")
            for name, text in sorted(self.file.items())
            if name in known and _REFERENCE.search(text)
        ]
        # Other programs also use variables that begin with TELNYX_, so only names similar to a setting cause a warning.
        similar = [
            ConfigWarning(name, "is not a setting of Dialtone", f"correct the name{_hint(name, known)}")
            for name in sorted(self.environment.keys() | self.file.keys())
            if name.startswith("TELNYX_") and name not in known and _similar(name, known)
        ]
        return found + similar

    def misspelt(self, name: str, known: Collection[str]) -> str | None:
        """A variable that is set, is not a setting, and is similar to `name`."""
        names = sorted(self.environment.keys() | self.file.keys())
        return next((other for other in names if other not in known and _similar(other, known) == name), None)


def read_secret(name: str, path: str, *, is_free_text: bool = False) -> str:
    """The secret in the file that `<name>_FILE` names. Raises VariableError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError:
        raise VariableError(f"{name}_FILE names a file that cannot be read") from None
    except UnicodeDecodeError:
        raise VariableError(f"{name}_FILE names a file that is not UTF-8 text") from None
    # No program adds quotes to a file, so quotes in the file of a free text belong to it.
    text = stripped(text) if is_free_text else _cleaned(f"the file of {name}_FILE", text)
    if not text:
        raise VariableError(f"{name}_FILE names a file that is empty")
    return text


def _cleaned(name: str, text: str, *, is_list: bool = False, is_free_text: bool = False) -> str:
    try:
        return cleaned_secret(text) if is_free_text else cleaned(text, is_list=is_list)
    except ValueError as error:
        raise VariableError(f"{name} {error}") from None


def _unknown(variables: Mapping[str, str], known: Collection[str]) -> set[str]:
    return {name for name in variables if name.upper().startswith("DIALTONE_") and name not in known}


def _hint(name: str, known: Collection[str]) -> str:
    similar = _similar(name, known)
    return f" (did you mean {similar}?)" if similar else ""


def _similar(name: str, known: Collection[str]) -> str | None:
    prefix = next((prefix for prefix in _PREFIXES if name.upper().startswith(prefix)), None)
    if prefix is None:
        return None
    rest = name.upper().removeprefix(prefix)
    for part in _OMITTED:
        if (longer := f"{prefix}{part}{rest}") in known:
            return longer
    known_rests = sorted(other.removeprefix(prefix) for other in known if other.startswith(prefix))
    found = difflib.get_close_matches(rest, known_rests, n=1, cutoff=SIMILARITY)
    return prefix + found[0] if found else None


def _read_env_file(path: str, *, is_named: bool) -> dict[str, str]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if not is_named:
            return {}
        raise VariableError(f"{ENV_FILE} names a file that does not exist: {path}") from None
    except OSError as error:
        raise VariableError(f"the env file {path} cannot be read ({type(error).__name__})") from None
    except UnicodeDecodeError:
        raise VariableError(f"the env file {path} is not UTF-8 text") from None
    values = {}
    for line in parse_stream(io.StringIO(text)):
        own = _OWN_LINE.match(line.original.string)
        if own is not None and (line.value is None or line.key != own[1]):
            # An ignored line could be a check of tokens. Other programs may read the file too, in another syntax.
            number = line.original.line + line.original.string[: own.start(1)].count("\n")
            raise VariableError(f"the env file {path}: line {number} is not {own[1]}=VALUE")
        if line.key is not None and line.value is not None:
            values[line.key] = line.value
    return values
