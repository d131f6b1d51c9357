"""Checks of the CORS settings: origins and request headers."""

import ipaddress
import re

from app.adapters.addresses import has_plain_host

DEFAULT_PORTS = {"http": "80", "https": "443"}
MAX_PORT = 65_535
_HOST = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://(\*\.)?({_HOST}|\[[0-9a-f:]+\]|\.)(?::([1-9][0-9]{{0,4}}))?")
"""The host `.` is that of pages in some applications with a web view, as in `app://.`."""

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'^_`|~+.-]+")


def check_origin(origin: str) -> None:
    """Raises ValueError for a text that no browser sends as `Origin`, and for a wildcard not in the first label."""
    match = _ORIGIN.fullmatch(origin)
    if match is None or match[4] == DEFAULT_PORTS.get(match[1], "") or not _is_as_sent(match[1], match[3], match[4]):
        raise ValueError(
            "must list origins as browsers send them, such as https://app.example.com or "
            "https://*.preview.example.com: in lower case, without a path or a default port; * may only be the whole "
            "first label of a host"
        )
    if match[2] and (match[1] not in DEFAULT_PORTS or not ("." in match[3] or match[3] == "localhost")):
        raise ValueError(
            "allows * only before a domain of two or more labels, such as https://*.preview.example.com, or localhost"
        )


def _is_as_sent(scheme: str, host: str, port: str | None) -> bool:
    """Whether the host and the port are in the only form in which browsers send them."""
    if int(port or 0) > MAX_PORT:
        return False
    if host.startswith("["):
        return _is_compressed(host[1:-1])
    return scheme not in DEFAULT_PORTS or has_plain_host(f"{scheme}://{host}")


def _is_compressed(address: str) -> bool:
    """Whether an IPv6 address is as short as possible (RFC 5952)."""
    try:
        return str(ipaddress.IPv6Address(address)) == address
    except ValueError:
        return False


def check_header(name: str) -> None:
    """Raises ValueError for a text that is not a header's name."""
    if not _HEADER.fullmatch(name):
        raise ValueError("must list names of request headers, such as X-Tenant; * is not allowed")
