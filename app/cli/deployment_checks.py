"""Checks of `dialtone doctor` for the deployment: database address, listeners, proxies, push material and rotations."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy.engine import URL

from app.adapters.addresses import is_loopback
from app.adapters.ledger.engines import database_url
from app.adapters.ledger.pg_address import endpoints
from app.cli.check_result import CheckResult, CheckVerdict
from app.cli.output import counted
from app.composition.components import Components
from app.config.listeners import UNIX
from app.config.settings import Settings, variable_of
from app.vending.errors import LedgerUnavailable
from app.vending.push.models import PushObject

HOST_SECONDS = 3.0
"""Time for a host of the database address to accept a connection."""

MAX_PUSH_OBJECTS = 1000
EXPIRY_WARNING = timedelta(days=30)

VERIFIED = ("verify-ca", "verify-full")
"""The values of sslmode with which the server's certificate is verified."""


async def check_deployment(where: Settings, components: Components) -> AsyncIterator[CheckResult]:
    """The results of all checks."""
    url = database_url(where.database_url.get_secret_value())
    if url.get_backend_name() != "sqlite":
        yield _database_tls(url)
        if (finding := await _database_hosts(url)) is not None:
            yield finding
    for finding in _listeners(where):
        yield finding
    yield _trusted_proxies(where)
    with suppress(LedgerUnavailable):  # which the check of the ledger reports
        for found in await components.ledger.push.expiring_objects(MAX_PUSH_OBJECTS):
            if (finding := _push_expiry(found, components)) is not None:
                yield finding
    for finding in _rotations(where):
        yield finding


def _database_tls(url: URL) -> CheckResult:
    about = "database address"
    if url.query.get("sslmode") in VERIFIED:
        return CheckResult(about, CheckVerdict.OK, "the server's TLS certificate is verified")
    hosts = [host for host, _ in endpoints(url)]
    if all(_is_local(host) for host in hosts):
        return CheckResult(about, CheckVerdict.OK, "the server is on this machine")
    return CheckResult(
        about,
        CheckVerdict.WARNING,
        "the server's TLS certificate is not verified, so another server could take its place",
        "add sslmode=verify-full to DIALTONE_DATABASE_URL",
    )


def _is_local(host: str) -> bool:
    return host.startswith("/") or is_loopback(host)


async def _database_hosts(url: URL) -> CheckResult | None:
    """Whether all hosts respond, so that a failover is possible. None if the address has only one."""
    hosts = endpoints(url)
    if len(hosts) < 2:
        return None
    respond = await asyncio.gather(*(_responds(host, port) for host, port in hosts))
    if all(respond):
        return CheckResult("database hosts", CheckVerdict.OK, f"all {len(hosts)} respond")
    # Not by name: with a password that is not encoded, a host of the address may be a part of the password.
    return CheckResult(
        "database hosts",
        CheckVerdict.WARNING,
        f"{respond.count(False)} of {len(hosts)} do not respond (by position: {_positions(respond)})",
        "start these servers, or remove them from DIALTONE_DATABASE_URL",
    )


def _positions(respond: list[bool]) -> str:
    return ", ".join(str(number) for number, is_up in enumerate(respond, start=1) if not is_up)


async def _responds(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(HOST_SECONDS):
            if host.startswith("/"):
                _, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return True


def _listeners(where: Settings) -> Iterator[CheckResult]:
    for about, setting, hosts in (
        ("public listener", "host", where.host),
        ("admin listener", "admin_host", where.admin_hosts),
    ):
        faults = [fault for host in hosts if (fault := _host_fault(host)) is not None]
        if faults:
            fix = f"set {variable_of(setting)} to addresses of this machine, or to a socket in an existing folder"
            yield CheckResult(about, CheckVerdict.FAILED, "; ".join(faults), fix)
        elif hosts:
            yield CheckResult(about, CheckVerdict.OK, f"can listen on {', '.join(hosts)}")
        else:
            yield CheckResult(about, CheckVerdict.OK, "none: the public listener serves operators and probes too")


def _host_fault(host: str) -> str | None:
    """Why Dialtone cannot listen there. The port is not checked, because the running service uses it."""
    if host.startswith(UNIX):
        folder = Path(host.removeprefix(UNIX)).parent
        return (
            None if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} does not exist or is not writable"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except socket.gaierror:
        return f"{host} cannot be resolved"
    except OSError as error:
        is_elsewhere = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        return (
            f"{host} is not an address of this machine" if is_elsewhere else f"{host}: {os.strerror(error.errno or 0)}"
        )
    return None


def _trusted_proxies(where: Settings) -> CheckResult:
    is_reachable = any(not host.startswith(UNIX) and not is_loopback(host) for host in where.host)
    if "*" in where.trusted_proxies and is_reachable:
        return CheckResult(
            "trusted proxies",
            CheckVerdict.WARNING,
            "any client may send its address in X-Forwarded-For, and so evade the limit of rejected tokens",
            "set DIALTONE_TRUSTED_PROXIES to the addresses of your proxies",
        )
    return CheckResult("trusted proxies", CheckVerdict.OK, ", ".join(where.trusted_proxies) or "none")


def _push_expiry(found: PushObject, components: Components) -> CheckResult | None:
    """None if it expires later. The first 16 digits of the fingerprint identify it in `dialtone push ls`."""
    if found.not_after is None or (left := found.not_after - components.clock()) > EXPIRY_WARNING:
        return None
    about = f"push credential {found.fingerprint_sha256[:16]}"
    fix = "create a new certificate, and replace the old one with PUT /v1/push-credentials/{id}"
    if left <= timedelta(0):
        seen = f"the certificate of {found.app_id} has expired: calls do not wake the app"
        return CheckResult(about, CheckVerdict.FAILED, seen, fix)
    return CheckResult(
        about, CheckVerdict.WARNING, f"the certificate of {found.app_id} expires in {counted(left.days, 'day')}", fix
    )


def _rotations(where: Settings) -> Iterator[CheckResult]:
    """Rotations that were begun and not completed."""
    for name in where.rotating:
        fix = f"complete the rotation, and remove DIALTONE_PREVIOUS_{name.upper()}"
        yield CheckResult(variable_of(name), CheckVerdict.WARNING, "the previous value is accepted too", fix)
    for table, _ in where.identity().issuers if where.config is not None else ():
        settings = ("previous_secret_env", "previous_secret_file")
        setting = next((name for name in settings if getattr(table, name) is not None), None)
        if setting is not None:
            fix = f"complete the rotation, and remove {setting}"
            seen = "the previous shared secret is accepted too"
            yield CheckResult(f"issuer {table.issuer}", CheckVerdict.WARNING, seen, fix)
    if where.tag_key is None:
        fix = "set DIALTONE_TAG_KEY to a random text of at least 32 characters"
        seen = "it is derived from the API key, so that a rotation of the API key changes users' tags"
        yield CheckResult("tag key", CheckVerdict.WARNING, seen, fix)
    elif not where.rotating:
        yield CheckResult("rotation", CheckVerdict.OK, "none in progress")
