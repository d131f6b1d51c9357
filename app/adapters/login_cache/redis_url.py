"""Checks of the address of a Redis or Valkey server (`redis://...` or `rediss://...`).

No error contains a part of the address except the name of a known parameter. redis-py ignores a part that it cannot
parse, such as `/database` in a path, and the errors that it raises contain values.
"""

import os
import re
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

_ENCODE = "write special characters of the password in percent-encoding, such as %40 for @"

_HOST = re.compile(r"[a-z0-9_][a-z0-9_.-]*|[0-9a-f:.]+(?:%[a-z0-9_.-]+)?")
_DATABASE = re.compile(r"[0-9]{1,5}")

_OWN = frozenset(
    {"decode_responses", "encoding", "encoding_errors", "legacy_responses", "max_connections", "path", "protocol"}
    | {"retry", "retry_on_error"}
)
"""Parameters that would replace what Dialtone passes to the client."""

_USUAL = frozenset(
    {"client_name", "db", "health_check_interval", "password", "retry_on_timeout", "socket_connect_timeout"}
    | {"socket_keepalive", "socket_read_size", "socket_timeout", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs"}
    | {
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
        "username",
    }
)
"""Parameters that have a meaning in an address. redis-py also accepts names of arguments that are objects."""

_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_CERT_REQS = ("none", "optional", "required")


def check_url(url: str) -> None:
    """Raises ValueError, with one line, if the Redis client would not connect with every part of the address."""
    if not url.isprintable() or " " in url:
        raise ValueError(f"contains white space or control characters; {_ENCODE}")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        host = parts.hostname or "localhost"
    except ValueError:
        raise ValueError(f"has a malformed part; {_ENCODE}") from None
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(f"is ambiguous; {_ENCODE}")
    if not _HOST.fullmatch(host):
        raise ValueError(f"has an invalid host, or several; {_ENCODE}")
    parameters = dict(pairs)
    _check_parameters(parameters)
    database = parts.path.removeprefix("/") or parameters.get("db", "0")
    if not _DATABASE.fullmatch(database):
        raise ValueError("has a database that is not a number")
    try:
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError):
        raise ValueError(f"has a part that the Redis client does not accept; {_ENCODE}") from None


def _check_parameters(parameters: dict[str, str]) -> None:
    own = next((name for name in parameters if name in _OWN), None)
    if own is not None:
        raise ValueError(f"has a parameter that Dialtone sets itself: {own}; remove it")
    if not _USUAL.issuperset(parameters):
        raise ValueError(f"has a parameter that is not supported; {_ENCODE}")
    if parameters.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise ValueError(f"has an invalid ssl_cert_reqs; it is one of {', '.join(_CERT_REQS)}")
    for name in _FILES:
        if name in parameters and not os.access(parameters[name], os.R_OK):
            raise ValueError(f"has a parameter that names a file that cannot be read: {name}")
