"""The settings of the listeners: hosts, Unix sockets, the admin listener and trusted proxies."""

import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

UNIX = "unix:"
MAX_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux (unix(7))."""

ADMIN_HOSTS = ("127.0.0.1",)
"""Where the admin listener listens unless DIALTONE_ADMIN_HOST is set."""

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        _check_host(host)
    if len(set(hosts)) < len(hosts):
        raise ValueError("names a host twice")
    return hosts


def _check_host(host: str) -> None:
    if host.startswith(UNIX):
        path = host.removeprefix(UNIX)
        if not os.path.isabs(path):
            raise ValueError("the path of a Unix socket must be absolute, such as unix:/run/dialtone/dialtone.sock")
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise ValueError(f"the path of a Unix socket may have {MAX_PATH_BYTES} bytes; use a shorter one")
    elif not (_is_address(host) or _NAME.fullmatch(host)):
        raise ValueError(
            "must list IP addresses without brackets or port, names, or unix:/PATH; for all addresses use 0.0.0.0 or ::"
        )


def _check_proxies(proxies: tuple[str, ...]) -> tuple[str, ...]:
    for proxy in proxies:
        if not (proxy in ("unix", "*") or _is_address(proxy) or _is_network(proxy)):
            raise ValueError(
                "must list IP addresses without brackets or port, networks such as 10.0.0.0/8 without bits after the "
                "prefix, or unix"
            )
    return proxies


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    """uvicorn ignores networks with bits after the prefix."""
    try:
        return "/" in text and bool(ipaddress.ip_network(text))
    except ValueError:
        return False


Hosts = Annotated[tuple[str, ...], AfterValidator(_check_hosts)]
"""IP addresses, names, and `unix:` with an absolute path."""

Proxies = Annotated[tuple[str, ...], AfterValidator(_check_proxies)]
"""IP addresses, networks, `unix` for every peer on a Unix socket, and `*` for every peer."""


class ListenerSettings(BaseModel):
    """The settings of the listeners. `Settings` inherits them."""

    host: Hosts = ("127.0.0.1",)
    port: int = Field(8010, ge=0, le=65535)
    admin_host: Hosts = ()
    admin_port: int | None = Field(None, ge=0, le=65535)
    socket_mode: str = Field("660", pattern=r"^[0-7]{3}$")
    trusted_proxies: Proxies = ("127.0.0.1", "::1", "unix")

    @property
    def admin_hosts(self) -> tuple[str, ...]:
        """Where the admin listener listens. Empty: there is none, and the public listener serves every path."""
        return self.admin_host or (() if self.admin_port is None else ADMIN_HOSTS)

    @property
    def trusted_peers(self) -> str:
        """The trusted proxies as uvicorn reads them: `*` only alone, and IPv4 addresses also as IPv6 ones.

        A proxy that listens on both families reports IPv4 peers as `::ffff:192.0.2.1`.
        """
        return "*" if "*" in self.trusted_proxies else ",".join((*self.trusted_proxies, *_mapped(self.trusted_proxies)))

    @model_validator(mode="after")
    def _check_listeners(self) -> Self:
        if not self.host:
            raise ValueError("DIALTONE_HOST is empty")
        if int(self.socket_mode, 8) & 0o600 != 0o600:
            raise ValueError("DIALTONE_SOCKET_MODE: must allow the owner to read and write, such as 660")
        if _has_port(self.admin_hosts) and self.admin_port is None:
            raise ValueError("DIALTONE_ADMIN_HOST names an address, but DIALTONE_ADMIN_PORT is not set")
        if self.admin_port is not None and not _has_port(self.admin_hosts):
            raise ValueError("DIALTONE_ADMIN_PORT is set, but DIALTONE_ADMIN_HOST names only Unix sockets")
        if _has_port(self.host) and self.port == self.admin_port != 0:
            raise ValueError("DIALTONE_ADMIN_PORT and DIALTONE_PORT are the same; choose two ports")
        if any(host.startswith(UNIX) for host in set(self.host) & set(self.admin_hosts)):
            raise ValueError("DIALTONE_ADMIN_HOST and DIALTONE_HOST name the same Unix socket; choose two paths")
        return self


def _has_port(hosts: tuple[str, ...]) -> bool:
    return any(not host.startswith(UNIX) for host in hosts)


def _mapped(proxies: tuple[str, ...]) -> Iterator[str]:
    """The IPv6 form of IPv4 addresses and networks (RFC 4291 section 2.5.5.2)."""
    for proxy in proxies:
        if _is_address(proxy) or _is_network(proxy):
            network = ipaddress.ip_network(proxy)
            if network.version == 4:
                yield f"::ffff:{network.network_address}/{96 + network.prefixlen}"
