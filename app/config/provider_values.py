"""Checks of the values that complete a preset. No value can change the host of an issuer."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from app.adapters.identity.tenants import TENANT_ID
from app.config.tables import FieldError

Values = Mapping[str, tuple[str, ...]]
"""The values by name. Most presets need one value for a name."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+")
_ORIGIN = r"https?://(?:[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?"
_URL = re.compile(rf"{_ORIGIN}(?:/(?!\.{{1,2}}(?:/|\Z))[A-Za-z0-9._~-]+)*")
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_USER_POOL = re.compile(r"(?!cn-)[a-z]{2,4}(?:-[a-z]+)+-[0-9]_[A-Za-z0-9]{1,55}")
_WORD = re.compile(r"\S{1,256}")
_SEGMENT = re.compile(TENANT_ID)


def _host(value: str) -> str:
    host = value.lower().removeprefix("https://").removesuffix("/")
    if not _HOST.fullmatch(host):
        raise ValueError("must be a host name, such as id.example.com")
    return host


def _url(value: str) -> str:
    url = value.rstrip("/")
    if not _URL.fullmatch(url):
        raise ValueError("must be a URL such as https://id.example.com, without user, query and fragment")
    return url


def _origin(value: str) -> str:
    origin = value.lower().rstrip("/")
    origin = origin.removesuffix(":443" if origin.startswith("https:") else ":80")  # browsers omit it
    if not re.fullmatch(_ORIGIN, origin):
        raise ValueError("must be an origin, such as https://app.example.com")
    return origin


def guid(value: str) -> str:
    """The GUID in lower case, as tokens contain it. Raises ValueError."""
    if not _GUID.fullmatch(value.lower()):
        raise ValueError("must be a GUID, such as 11112222-bbbb-3333-cccc-4444dddd5555")
    return value.lower()


def _tenant(value: str) -> str:
    if value.lower() in ("common", "organizations", "consumers"):
        raise ValueError(f'{value.lower()} is no tenant; for several tenants, use provider = "entra-multitenant"')
    try:
        return guid(value)
    except ValueError as error:
        raise ValueError(f"{error}: the directory (tenant) ID, not a domain") from None


def _user_pool(value: str) -> str:
    if not _USER_POOL.fullmatch(value):
        raise ValueError("must be the ID of a user pool, such as eu-west-1_EXAMPLE; in China, set issuer instead")
    return value


def _repository(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", value):
        raise ValueError("must be OWNER/REPOSITORY")
    return value


_READERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "domain": _host,
        "url": _url,
        "origin": _origin,
        "tenant_id": _tenant,
        "environment_id": guid,
        "user_pool_id": _user_pool,
        "hosted_domain": _host,
        "repository": _repository,
    }
)

_DERIVED: Mapping[str, tuple[str, Callable[[str], str]]] = MappingProxyType(
    {
        "user_pool_region": ("user_pool_id", lambda pool: pool.partition("_")[0]),
        "stytch_host": (
            "project_id",
            lambda project: "test.stytch.com" if project.startswith("project-test-") else "api.stytch.com",
        ),
    }
)
"""Names in presets whose value is derived from another value."""


def given_name(name: str) -> str:
    """The value of the table that a name in a preset needs: the name itself, or the value from which it is derived."""
    return _DERIVED[name][0] if name in _DERIVED else name


def read(name: str, value: Any) -> tuple[str, ...]:
    """The normalized values. Raises FieldError."""
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not found or not all(isinstance(item, str) for item in found):
        raise FieldError(name, 'must be text, or a list such as ["a", "b"]')
    try:
        read_item = _READERS.get(name, _word)
        return tuple(read_item(item) for item in found)
    except ValueError as error:
        raise FieldError(name, str(error)) from None


def _word(value: str) -> str:
    if not _WORD.fullmatch(value) or not value.isprintable():
        raise ValueError("must be text without white space")
    if "*" in value:
        raise ValueError(
            "is compared exactly, so that * would match nothing; for a pattern, set required_claims instead"
        )
    return value


def as_text(name: str, values: Values) -> str:
    """The value of a name inside a longer text. Raises FieldError if it is a list, or contains more than a name."""
    base = given_name(name)
    if len(values[base]) != 1:
        raise FieldError(base, "must be one value")
    value = values[base][0]
    if base not in ("domain", "url") and not _SEGMENT.fullmatch(value):
        raise FieldError(base, "must contain only letters, digits, hyphens, dots and underscores")
    return _DERIVED[name][1](value) if name in _DERIVED else value
