"""PgBouncer in front of the tests' PostgreSQL server, with or without TLS."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import pytest

from app.adapters.ledger.engines import database_url
from app.adapters.ledger.pg_address import endpoints
from tests.support.certificates import certificate_authority
from tests.support.http_server import free_port

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
USER, PASSWORD = "app", "p@q:r/s?t#u%"

needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("REQUIRE_ALL"), reason="PgBouncer is not installed"
)

CONFIGURATION = """
[databases]
* = host={host} port={server_port} user={role}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {pool_size}
max_client_conn = 200
{tls}
"""
TLS = """
client_tls_sslmode = {tls}
client_tls_key_file = {folder}/server.key
client_tls_cert_file = {folder}/server.crt
client_tls_ca_file = {folder}/ca.crt
"""


@contextmanager
def pgbouncer(
    database: str,
    mode: str = "transaction",
    *,
    pool_size: int = 8,
    role: str = "postgres",
    tls: str | None = None,
) -> Iterator[str]:
    """Yields the database's address through PgBouncer. `tls` is a `client_tls_sslmode`.

    The files of the private authority are `ca.crt`, `server.crt` and `server.key` in the folder of `files_of`.
    """
    url = database_url(database)
    ((host, server_port),) = endpoints(url)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dialtone-pgbouncer-") as name:
        folder = Path(name)
        _write_files(folder)
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                host=host,
                server_port=server_port,
                role=role,
                port=port,
                folder=folder,
                mode=mode,
                pool_size=pool_size,
                tls=TLS.format(tls=tls, folder=folder) if tls else "",
            )
        )
        as_user: tuple[str, ...] = ()
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            as_user = ("-u", Path(host).owner())
            folder.chmod(0o755)
            (folder / "server.key").chmod(0o644)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([str(PROGRAM), *as_user, str(configuration)], stdout=log, stderr=log)
        try:
            _wait_for(port, process, folder / "log")
            yield f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/{url.database}"
        finally:
            process.terminate()
            process.wait(30)


def write_tls_files(folder: Path) -> Mapping[str, str]:
    """Write the private authority and the certificate of this machine. Returns their paths as libpq's parameters."""
    authority = certificate_authority()
    (folder / "ca.crt").write_text(authority.pem)
    (folder / "server.crt").write_text(authority.server_certificate)
    (folder / "server.key").write_text(authority.server_key)
    names = {"sslrootcert": "ca.crt", "sslcert": "server.crt", "sslkey": "server.key"}
    return MappingProxyType({parameter: str(folder / name) for parameter, name in names.items()})


def _write_files(folder: Path) -> None:
    (folder / "users.txt").write_text(f'"{USER}" "{PASSWORD}"\n')
    write_tls_files(folder)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return
