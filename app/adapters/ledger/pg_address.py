"""PostgreSQL addresses (`postgresql://...`) as libpq and managed services write them.

No error contains a part of the address, because any part of it may be a part of a password with unencoded characters.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from sqlalchemy.engine import URL

DRIVER = "postgresql+asyncpg"

_ENCODE = "write special characters of the password in percent-encoding, such as %40 for @"

_ADDRESS = re.compile(
    r"postgres(?:ql)?(?:\+[a-z0-9]+)?://"
    r"(?:(?P<user>[^:/?@]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
)
"""A password may contain unencoded `/`, `?` and `#`, but no `@`."""

_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]*))?")

_VALUES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "target_session_attrs": ("any", "primary", "read-write"),
    # These have no effect on asyncpg with the values that are listed. With other values, they are not supported.
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("UTF8", "utf8", "UTF-8", "utf-8", "auto"),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
"""Parameters with their supported values."""

_FREE = ("application_name", "fallback_application_name", "options", "passfile", "sslpassword", "krbsrvname")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_PARTS = ("host", "port", "dbname", "user", "password")

# fmt: off
_UNSUPPORTED = frozenset((
    # libpq's
    "gssdelegation", "gsslib", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "max_protocol_version", "min_protocol_version", "oauth_client_id",
    "oauth_client_secret", "oauth_issuer", "oauth_scope", "replication", "require_auth", "requirepeer",
    "requiressl", "scram_client_key", "scram_server_key", "service", "servicefile", "sslcertmode",
    "sslcrldir", "sslkeylogfile", "tcp_user_timeout",
    # other drivers', as some services print them
    "connection_limit", "currentSchema", "database", "encoding", "pgbouncer", "pool_mode", "pool_timeout",
    "schema", "search_path", "socket_timeout", "ssl", "sslaccept", "sslidentity", "statement_cache_size",
    "statement_timeout", "supa", "uselibpqcompat", "workaround",
))
# fmt: on
"""Names that an error may contain."""

_HINTS: Mapping[str, str] = {
    "channel_binding": "; remove it, and use sslmode=verify-full&sslrootcert=system to authenticate the server",
    "pgbouncer": "; remove it: Dialtone works through PgBouncer without it",
    "search_path": "; use options=-c%20search_path%3DNAME",
    "schema": "; use options=-c%20search_path%3DNAME",
    "currentSchema": "; use options=-c%20search_path%3DNAME",
    "statement_timeout": "; use options=-c%20statement_timeout%3DMILLISECONDS",
    "ssl": "; use sslmode",
    "target_session_attrs": "; Dialtone requires a server that accepts writes: read-write, primary or any",
}


def pg_address(text: str) -> URL:
    """Parse and check an address. Its query has libpq's parameters. Raises ValueError with one line without values."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError("must be sqlite:///FILE or postgresql://...")
    if not text.isprintable() or " " in text:
        raise ValueError(f"contains white space or control characters; {_ENCODE}")
    if text.count("@") > 1 or _has_two_readings(text):
        raise ValueError(f"is ambiguous; {_ENCODE}")
    query = _parameters(match["query"] or "")
    hosts = _hosts(match["hosts"], query)
    parts = {name: query.pop(name, None) for name in _PARTS}
    _check_parameters(query)
    if len(hosts) > 1:
        # The ledger needs writes, and the first host may be a standby after a failover.
        query.setdefault("target_session_attrs", "read-write")
    is_tcp = len(hosts) == 1 and not hosts[0][0].startswith("/")
    if hosts and not is_tcp:
        query["host"], query["port"] = ",".join(host for host, _ in hosts), ",".join(str(port) for _, port in hosts)
    return URL.create(
        DRIVER,
        username=_decoded(match["user"]) or parts["user"],
        password=parts["password"] if match["password"] is None else _decoded(match["password"]),
        host=hosts[0][0] if is_tcp else None,
        port=hosts[0][1] if is_tcp else None,
        database=_decoded(match["database"]) or parts["dbname"],
        query=query,
    )


def _has_two_readings(text: str) -> bool:
    """True if the @ may be a part of the path or of a parameter, as libpq reads it, or the end of the password."""
    start = re.split("[/?]", text.split("://", 1)[1])[0]
    is_hosts = all(match and (match["port"] or not match["name"]) for match in map(_HOST.fullmatch, start.split(",")))
    return "@" in text and "@" not in start and ":" in start and is_hosts


def endpoints(url: URL) -> list[tuple[str, int]]:
    """The hosts, or directories of Unix sockets, each with its port, of a parsed address. Empty: libpq's defaults."""
    if url.host:
        return [(url.host, url.port or 5432)]
    hosts, ports = (str(url.query.get(name, "")) for name in ("host", "port"))
    return [(host, int(port)) for host, port in zip(hosts.split(","), ports.split(","), strict=True) if host]


def _decoded(text: str | None) -> str | None:
    decoded = unquote(text) if text is not None else None
    if decoded is not None and "\0" in decoded:
        raise ValueError("contains %00")
    return decoded


def _parameters(query: str) -> dict[str, str]:
    """Each parameter's last value, without parameters that are empty."""
    try:
        written = query.removesuffix("&").replace("+", "%2B")
        pairs = parse_qsl(written, keep_blank_values=True, strict_parsing=bool(written))
    except ValueError:
        raise ValueError(f"has a malformed list of parameters after the ?; {_ENCODE}") from None
    for name, value in pairs:
        if name in _UNSUPPORTED or (name in _VALUES and value and value not in _VALUES[name]):
            raise ValueError(_rejection(name))
        if name not in (*_VALUES, *_FREE, *_FILES, *_PARTS, "connect_timeout"):
            raise ValueError(f"has a parameter that is not one of libpq's; {_ENCODE}")
    return {name: value for name, value in pairs if value and _decoded(value)}


def _rejection(name: str) -> str:
    if name in _UNSUPPORTED or name not in ("sslmode", "sslnegotiation"):
        what = name if name in _UNSUPPORTED else f"this value of {name}"
        return f"has a parameter that is not supported: {what}{_HINTS.get(name, '')}"
    return f"has an invalid {name}; it is one of {', '.join(_VALUES[name])}"


def _hosts(netloc: str, query: Mapping[str, str]) -> list[tuple[str, int]]:
    """Hosts with ports. As in libpq, `host` and `port` of the query replace those before the path."""
    if "host" in query:
        names, ports = query["host"].split(","), [""]
    else:
        matches = [_HOST.fullmatch(part) for part in netloc.split(",")] if netloc else []
        found = [match for match in matches if match is not None]
        if len(found) < len(matches):
            raise ValueError(f"has an invalid host or port; {_ENCODE}")
        names = [
            unquote(match["name"] or "") if match["ipv6"] is None else f"[{unquote(match['ipv6'])}]" for match in found
        ]
        ports = [match["port"] or "" for match in found]
    if "port" in query:
        ports = query["port"].split(",")
    if names in ([], [""]):
        return _default_host(ports)
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ValueError("has another number of ports than of hosts")
    return [(_host(name), _port(port)) for name, port in zip(names, ports, strict=True)]


def _default_host(ports: list[str]) -> list[tuple[str, int]]:
    if any(ports):
        raise ValueError(f"has a port without a host; {_ENCODE}")
    return []


def _host(name: str) -> str:
    if name.startswith("/"):
        return name
    if name.startswith("[") or ":" in name:
        try:
            return str(ipaddress.IPv6Address(name.strip("[]")))
        except ValueError:
            raise ValueError(f"has an invalid IPv6 address; {_ENCODE}") from None
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"has an invalid host; {_ENCODE}")
    return name


def _port(text: str) -> int:
    if text == "":
        return 5432
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError(f"has an invalid port; {_ENCODE}")
    return int(text)


def _check_parameters(query: dict[str, str]) -> None:
    if not re.fullmatch(r"-?[0-9]{1,6}", query.get("connect_timeout", "0")):
        raise ValueError("has an invalid connect_timeout; it is a number of seconds")
    if query.get("sslrootcert") == "system":
        if query.setdefault("sslmode", "verify-full") != "verify-full":
            raise ValueError("has sslrootcert=system, which requires sslmode=verify-full")
    elif query.get("sslmode", "").startswith("verify-") and "sslrootcert" not in query and not _has_default_root():
        raise ValueError(
            "has an sslmode that verifies the server, but no sslrootcert; set sslrootcert to a file of CA certificates,"
            " or to system"
        )
    if query.get("sslnegotiation") == "direct" and query.get("sslmode") not in ("require", "verify-ca", "verify-full"):
        raise ValueError("has sslnegotiation=direct, which requires sslmode=require, verify-ca or verify-full")
    if query.get("sslrootcert") == "system" and "sslcrl" in query:
        raise ValueError("has a parameter that is not supported together with sslrootcert=system: sslcrl")
    _check_files(query)


def _has_default_root() -> bool:
    return "PGSSLROOTCERT" in os.environ or (Path.home() / ".postgresql/root.crt").exists()


def _check_files(query: Mapping[str, str]) -> None:
    """Load the files once, because a fault would otherwise appear as an unavailable database."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in _FILES:
        path = query.get(name, "system")
        if path == "system" and name == "sslrootcert":
            continue
        if name in query and not os.access(path, os.R_OK):
            raise ValueError(f"has a parameter that names a file that cannot be read: {name}")
        try:
            if name in query and name in ("sslrootcert", "sslcrl"):
                context.load_verify_locations(path)
        except (ssl.SSLError, OSError):
            raise ValueError(f"has a parameter that names a file that is not PEM: {name}") from None
    if "sslcert" in query:
        try:
            context.load_cert_chain(
                query["sslcert"], query.get("sslkey"), password=lambda: query.get("sslpassword", "")
            )
        except (ssl.SSLError, OSError):
            raise ValueError("has an sslcert and sslkey that do not belong together, or a wrong sslpassword") from None
