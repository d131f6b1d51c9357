"""Removes secrets from log events, and line breaks that would let a value forge a second line.

Three rules apply to every line, from whichever library it comes. Exceptions are logged as their type and stack, never
their text. Fields with a secret's name are masked. Text that looks like a token, a key or a PEM block is masked.
"""

import re
import sys
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from structlog.typing import EventDict, WrappedLogger

SECRET_FIELDS = re.compile(
    r"passw|secret|token$|authorization|api_key|private_key|certificate|cookie|project_account", re.IGNORECASE
)
_KEY_SHAPES = (
    r"eyJ[\w-]+(?:\.[\w-]*)*"  # a JWT, complete or cut off
    r"|-----BEGIN[^-]+-----.*?(?:-----END[^-]+-----|\Z)"
    r"|\bKEY[A-Za-z0-9_-]{8,}"  # a Telnyx API key
    r"|\bBearer\s+\S+"
    r"|://[^/\s:@]+:[^/\s@]+@"  # user and password in a URL
)
KEY_SHAPES = re.compile(_KEY_SHAPES, re.DOTALL)
SECRET_SHAPES = re.compile(
    _KEY_SHAPES + r"|\b[0-9a-f]{32}\b",  # the shape of a SIP password; our own ids are in ID_FIELDS
    re.DOTALL,
)
MASK = "[redacted]"
ID_FIELDS = frozenset({"request_id", "lease_id", "grant_id", "audit", "token_sha256", "replica"})
"""Values that Dialtone generates. They may have the shape of a secret: a lease id has 32 hex digits."""
NAME_FIELDS = frozenset({"subject", "actor_subject", "device_id"})
"""Names of users and devices. Many providers and clients use 32 hex digits, and so do the names of guests."""

MAX_TEXT_CHARS = 500
MAX_FRAMES = 12
MAX_CACHED_CHARS = 200
"""Longer text is rare, and would make the cache large."""


def describe_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and stack. Its text is left out, because libraries put values there."""
    info = event.pop("exc_info", None)
    if info is None:
        return event
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = type(error).__qualname__
        frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
        event["frames"] = [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
        if error.__cause__ is not None:
            event["cause"] = type(error.__cause__).__qualname__
    return event


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Mask everything that is, or looks like, a secret. structlog's own fields begin with an underscore."""
    for name, value in event.items():
        if name in ID_FIELDS and isinstance(value, str):
            event[name] = _one_line(value)
        elif isinstance(value, str) and len(value) <= MAX_CACHED_CHARS:
            event[name] = _redact_text(name, value)
        elif _is_secret_field(name):
            event[name] = MASK
        elif not isinstance(value, int | float) and not name.startswith("_"):
            event[name] = clean(value)
    return event


def clean(value: Any) -> Any:
    """The value as JSON types, with secrets masked and on one line."""
    if isinstance(value, str):
        return _one_line(SECRET_SHAPES.sub(MASK, value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {clean(str(key)): _clean_item(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    return clean(str(value))


def _clean_item(name: str, value: Any) -> Any:
    """A member of an object, such as the details of an audit event."""
    if name in ID_FIELDS and isinstance(value, str):
        return _one_line(value)
    return MASK if _is_secret_field(name) else clean(value)


@lru_cache(maxsize=1024)
def clean_text(text: str) -> str:
    """As `clean`, for short texts that come again, such as user agents."""
    return _one_line(SECRET_SHAPES.sub(MASK, text))


@lru_cache(maxsize=512)
def _is_secret_field(name: str) -> bool:
    return SECRET_FIELDS.search(name) is not None


@lru_cache(maxsize=4096)
def _redact_text(name: str, text: str) -> str:
    """Methods, routes, issuers and addresses are the same in many lines."""
    shapes = KEY_SHAPES if name in NAME_FIELDS else SECRET_SHAPES
    return MASK if _is_secret_field(name) else _one_line(shapes.sub(MASK, text))


def _one_line(text: str) -> str:
    """Printable and bounded: control characters become visible escapes."""
    if len(text) > MAX_TEXT_CHARS:
        text = text[:MAX_TEXT_CHARS] + "..."
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
