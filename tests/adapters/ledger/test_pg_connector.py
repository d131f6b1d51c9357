"""Connections to a real server through PgBouncer, which also provides TLS, and directly."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import sqlalchemy as sa

from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.pg_connector import PgConnector
from tests.support.certificates import certificate_authority
from tests.support.http_server import free_port
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer, write_tls_files
from tests.support.tcp_proxy import tcp_proxy
from tests.support.waiting import LoopClock


@pytest.fixture
def plain(postgres: str) -> Iterator[str]:
    with pgbouncer(postgres) as address:
        yield address


@pytest.fixture
def encrypted(postgres: str) -> Iterator[str]:
    with pgbouncer(postgres, tls="require") as address:
        yield address


async def is_encrypted(address: str) -> bool:
    connection = await PgConnector(database_url(address)).open()
    try:
        # asyncpg has no public name for its transport.
        return connection._transport.get_extra_info("ssl_object") is not None  # noqa: SLF001
    finally:
        await connection.close()


async def setting(address: str, name: str) -> str:
    engine = open_engine(database_url(address))
    async with engine.connect() as connection:
        value = await connection.scalar(sa.text(f"SHOW {name}"))
    await engine.dispose()
    return str(value)


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
async def test_sslmode_that_allows_tls_connects_to_a_server_that_requires_it(encrypted: str, mode: str) -> None:
    assert await is_encrypted(f"{encrypted}?sslmode={mode}")


@needs_pgbouncer
async def test_sslmode_disable_is_not_encrypted(encrypted: str, plain: str) -> None:
    assert not await is_encrypted(f"{plain}?sslmode=disable")
    with pytest.raises(asyncpg.PostgresError):
        await is_encrypted(f"{encrypted}?sslmode=disable")


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["allow", "prefer"])
async def test_sslmode_that_does_not_require_tls_connects_without_it(plain: str, mode: str) -> None:
    assert not await is_encrypted(f"{plain}?sslmode={mode}")


@needs_pgbouncer
async def test_sslmode_require_does_not_connect_without_tls(plain: str) -> None:
    with pytest.raises(OSError, match="SSL"):
        await is_encrypted(f"{plain}?sslmode=require")


@needs_pgbouncer
async def test_verify_modes_accept_the_authoritys_certificate(encrypted: str, tmp_path: Path) -> None:
    root = f"sslrootcert={write_tls_files(tmp_path)['sslrootcert']}"

    assert await is_encrypted(f"{encrypted}?sslmode=verify-ca&{root}")
    assert await is_encrypted(f"{encrypted}?sslmode=verify-full&{root}")


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_certificate_of_another_authority_is_rejected(encrypted: str, tmp_path: Path, mode: str) -> None:
    (tmp_path / "other.crt").write_text(certificate_authority("other").pem)

    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        await is_encrypted(f"{encrypted}?sslmode={mode}&sslrootcert={tmp_path}/other.crt")


@needs_pgbouncer
async def test_only_verify_full_compares_the_host_name(encrypted: str, tmp_path: Path) -> None:
    root = f"sslrootcert={write_tls_files(tmp_path)['sslrootcert']}"
    other = encrypted.replace("127.0.0.1", "127.1")  # this machine, by a name that is not in the certificate

    assert await is_encrypted(f"{other}?sslmode=verify-ca&{root}")
    with pytest.raises(OSError, match="not valid for"):
        await is_encrypted(f"{other}?sslmode=verify-full&{root}")


@needs_pgbouncer
async def test_system_authorities_are_used_for_sslrootcert_system(
    encrypted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        await is_encrypted(f"{encrypted}?sslrootcert=system")

    monkeypatch.setenv("SSL_CERT_FILE", write_tls_files(tmp_path)["sslrootcert"])

    assert await is_encrypted(f"{encrypted}?sslrootcert=system")


@needs_pgbouncer
async def test_client_certificate_is_presented(postgres: str, tmp_path: Path) -> None:
    files = write_tls_files(tmp_path)
    both = f"sslcert={files['sslcert']}&sslkey={files['sslkey']}"
    with pgbouncer(postgres, tls="verify-full") as address:
        assert await is_encrypted(f"{address}?sslmode=require&{both}")
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await is_encrypted(f"{address}?sslmode=require")


async def test_session_parameters_reach_the_server(postgres: str) -> None:
    address = f"{postgres}&application_name=dial&options=-c%20statement_timeout%3D5000%20-c%20search_path%3Dx"

    assert await setting(address, "application_name") == "dial"
    assert await setting(address, "statement_timeout") == "5s"
    assert await setting(address, "search_path") == "x"


async def test_connections_are_named_after_the_service(postgres: str) -> None:
    assert await setting(postgres, "application_name") == "dialtone"
    assert await setting(f"{postgres}&fallback_application_name=other", "application_name") == "other"


async def test_next_host_is_used_if_one_refuses_or_does_not_respond(postgres: str) -> None:
    async with tcp_proxy(postgres) as silent, tcp_proxy(postgres) as good:
        silent.pause()
        ports = [free_port(), urlsplit(silent.url).port, urlsplit(good.url).port]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        connector = PgConnector(database_url(f"postgresql://postgres@{hosts}/postgres?connect_timeout=3"))

        connection = await connector.open()
        await connection.close()
        connected_to = silent.connections
        again = await connector.open()

        assert await again.fetchval("SELECT 1") == 1
        assert silent.connections == connected_to == 1
        await again.close()


async def test_connect_timeout_limits_the_time_of_a_host(postgres: str) -> None:
    async with tcp_proxy(postgres) as silent:
        silent.pause()
        async with LoopClock() as took:
            with pytest.raises(TimeoutError):
                await PgConnector(database_url(f"{silent.url}?connect_timeout=1")).open()

    assert took.seconds < 2


async def test_host_that_is_read_only_is_skipped(postgres: str) -> None:
    name = database_url(postgres).database
    socket = database_url(postgres).query["host"]
    engine = open_engine(database_url(postgres))
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await engine.dispose()

    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await PgConnector(database_url(f"postgresql://postgres@/{name}?host={socket},{socket}")).open()
