"""Connections to PostgreSQL, directly or through PgBouncer, with failover between hosts."""

import ssl
from typing import Any
from urllib.parse import urlencode

import asyncpg
from sqlalchemy.engine import URL

from app.adapters.ledger.pg_address import endpoints

STATEMENT_SECONDS = 5
CONNECT_SECONDS = 3
"""How long one host may take, unless the address has a `connect_timeout`."""

_SESSION = ("application_name", "options", "target_session_attrs", "passfile", "krbsrvname")
_TLS_FILES = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl")
_TLS_VERSIONS = ("ssl_min_protocol_version", "ssl_max_protocol_version")
_ASYNCPGS = (*_SESSION, *_TLS_FILES, *_TLS_VERSIONS, "sslnegotiation")
"""Parameters that asyncpg interprets as libpq does."""

_TRY_NEXT = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)


class PgConnector:
    """Opens connections of a parsed address. asyncpg interprets the TLS and session parameters."""

    def __init__(self, url: URL, statement_seconds: float = STATEMENT_SECONDS) -> None:
        self._statement_seconds = statement_seconds
        self._read(url)

    def change_login(self, url: URL) -> bool:
        """Log in as the user of this address from now on. False if it differs in more than user and password."""
        if _without_login(url) != _without_login(self._url):
            return False
        if url != self._url:
            self._read(url)
        return True

    @property
    def login(self) -> tuple[str | None, str | None]:
        """User and password of new connections."""
        return self._url.username, self._url.password

    def _read(self, url: URL) -> None:
        self._url = url
        query = {name: str(value) for name, value in url.query.items()}
        self._endpoints = endpoints(url)
        self._arguments: dict[str, Any] = {
            "user": url.username,
            "password": url.password,
            "database": url.database,
            "timeout": max(0, int(query.get("connect_timeout", 0))) or CONNECT_SECONDS,
            "command_timeout": self._statement_seconds,
            # PgBouncer gives each transaction another server connection, which may not have a named statement, or has
            # another client's of the same name. Without this cache, asyncpg does not name statements.
            "statement_cache_size": 0,
        }
        passed = {name: query[name] for name in _ASYNCPGS if name in query}
        if query.get("sslrootcert") == "system":
            self._arguments["ssl"] = _system_trust(query)
            passed = {name: value for name, value in passed.items() if name not in (*_TLS_FILES, *_TLS_VERSIONS)}
        passed.setdefault("application_name", query.get("fallback_application_name", "dialtone"))
        self._dsn = f"postgresql://?{urlencode(passed)}"

    async def open(self) -> Any:
        """A driver connection to the first host that accepts it. The host that succeeded is tried first next time."""
        if not self._endpoints:
            return await asyncpg.connect(self._dsn, **self._arguments)
        failure: Exception | None = None
        for endpoint in tuple(self._endpoints):
            host, port = endpoint
            try:
                # One host a call: asyncpg's timeout is for all hosts together, so a dead one would take all of it.
                connection = await asyncpg.connect(self._dsn, host=host, port=port, **self._arguments)
            except _TRY_NEXT as error:
                failure = error
                continue
            self._endpoints.sort(key=lambda other: other != endpoint)
            return connection
        raise failure or OSError


def _without_login(url: URL) -> URL:
    return url.set(username="", password="")


def _system_trust(query: dict[str, str]) -> ssl.SSLContext:
    """The context of `sslrootcert=system`, which asyncpg reads as the name of a file."""
    context = ssl.create_default_context()
    context.minimum_version = _tls_version(query.get("ssl_min_protocol_version", "TLSv1.2"))
    if "ssl_max_protocol_version" in query:
        context.maximum_version = _tls_version(query["ssl_max_protocol_version"])
    context.set_alpn_protocols(["postgresql"])
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"), password=lambda: query.get("sslpassword", ""))
    return context


def _tls_version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]


async def is_behind_pooler(connection: Any) -> bool:
    """True if a pooler is between this connection and the server: it invents the process id that it reports."""
    return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())
