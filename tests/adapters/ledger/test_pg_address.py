"""Addresses of PostgreSQL as libpq and managed services write them."""

from pathlib import Path

import pytest

from app.adapters.ledger.engines import database_url
from app.adapters.ledger.pg_address import endpoints

CANARY = "S3cretCanary"


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("postgresql://app:pw@db.example.com/dial", [("db.example.com", 5432)]),
        ("postgres://app:pw@db.example.com:6432/dial?sslmode=require", [("db.example.com", 6432)]),
        ("postgresql://app@[2001:db8::7]:5433/dial", [("2001:db8::7", 5433)]),
        ("postgresql://app:pw@one:5432,two:5433/dial", [("one", 5432), ("two", 5433)]),
        ("postgresql://app:pw@one,two:5433/dial", [("one", 5432), ("two", 5433)]),
        ("postgresql:///dial?host=one,two&port=6000", [("one", 6000), ("two", 6000)]),
        ("postgresql:///dial?host=one,two&port=6000,6001", [("one", 6000), ("two", 6001)]),
        ("postgresql:///dial?host=/var/run/postgresql", [("/var/run/postgresql", 5432)]),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/dial", [("/var/run/postgresql", 5432)]),
        ("postgresql://app@/dial?host=::1", [("::1", 5432)]),
        ("postgresql:///dial", []),
        ("postgresql+asyncpg://app:pw@db/dial", [("db", 5432)]),
    ],
)
def test_hosts_and_ports_are_read_as_libpq_reads_them(address: str, hosts: list[tuple[str, int]]) -> None:
    url = database_url(address)

    assert endpoints(url) == hosts
    assert url.database == "dial"


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40q%3Ar%2Fs%3Ft%23u%25", "p@q:r/s?t#u%"),
        ("p:q", "p:q"),
        ("p/q", "p/q"),
        ("p?q=1", "p?q=1"),
        ("p#q", "p#q"),
        ("p+q", "p+q"),
        ("100%", "100%"),
        ("", ""),
    ],
)
def test_password_is_decoded(written: str, password: str) -> None:
    url = database_url(f"postgresql://app:{written}@db:5432/dial?application_name=x")

    assert (url.username, url.password, url.host, url.database) == ("app", password, "db", "dial")


def test_user_password_and_database_may_be_parameters() -> None:
    url = database_url("postgresql://db?user=app@tenant&password=p%2Bq+r&dbname=dial")

    assert (url.username, url.password, url.host, url.database) == ("app@tenant", "p+q+r", "db", "dial")


def test_zone_of_an_ipv6_address_is_decoded() -> None:
    assert database_url("postgresql://app:pw@[fe80::1%25eth0]:5433/dial").host == "fe80::1%eth0"


def test_several_hosts_are_searched_for_the_one_that_accepts_writes() -> None:
    assert database_url("postgresql://one,two/dial").query["target_session_attrs"] == "read-write"
    assert database_url("postgresql://one,two/dial?target_session_attrs=any").query["target_session_attrs"] == "any"
    assert "target_session_attrs" not in database_url("postgresql://one/dial").query


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=disable&application_name=a&connect_timeout=10",
        "sslmode=allow&fallback_application_name=a",
        "sslmode=prefer&client_encoding=UTF8&gssencmode=disable",
        "sslmode=require&channel_binding=prefer",
        "sslmode=verify-full&sslrootcert=system",
        "sslrootcert=system",
        "options=-c%20statement_timeout%3D5000%20-c%20search_path%3Dx",
        "target_session_attrs=read-write",
        "sslmode=require&sslnegotiation=direct",
        "sslmode=&sslrootcert=",
        "sslmode=require&",
    ],
)
def test_parameters_of_libpq_are_accepted(parameters: str) -> None:
    assert database_url(f"postgresql://app:pw@db/dial?{parameters}").database == "dial"


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        (
            "channel_binding=require",
            "not supported: this value of channel_binding; remove it, and use sslmode=verify-full",
        ),
        ("keepalives_idle=5", "not supported: keepalives_idle"),
        ("hostaddr=127.0.0.1", "not supported: hostaddr"),
        ("service=x", "not supported: service"),
        ("gssencmode=require", "not supported: this value of gssencmode"),
        ("load_balance_hosts=random", "not supported: this value of load_balance_hosts"),
        (
            "target_session_attrs=standby",
            "not supported: this value of target_session_attrs; Dialtone requires",
        ),
        ("pgbouncer=true", "not supported: pgbouncer; remove it"),
        ("schema=public", "not supported: schema; use options"),
        ("ssl=true", "not supported: ssl; use sslmode"),
        (f"sslmode={CANARY}", "invalid sslmode; it is one of disable, allow"),
        (f"connect_timeout={CANARY}", "invalid connect_timeout"),
        (f"port={CANARY}", "invalid port"),
        ("port=1,2", "another number of ports than of hosts"),
        (f"{CANARY}=1", "not one of libpq's"),
        (f"sslrootcert=/{CANARY}", "cannot be read: sslrootcert"),
        (f"sslcert=/{CANARY}", "cannot be read: sslcert"),
        (f"sslkey=/{CANARY}", "cannot be read: sslkey"),
        ("sslmode=require&sslrootcert=system", "requires sslmode=verify-full"),
        ("sslnegotiation=direct", "requires sslmode=require"),
        (CANARY, "malformed list of parameters"),
        ("sslmode=verify-full", "no sslrootcert"),
    ],
)
def test_parameter_that_is_not_supported_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameters: str, line: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(ValueError, match=r"\w") as refusal:
        database_url(f"postgresql://app:pw@db/dial?{parameters}")

    assert line in str(refusal.value)
    assert CANARY not in str(refusal.value)


def test_file_that_is_not_pem_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")

    with pytest.raises(ValueError, match="not PEM: sslrootcert"):
        database_url(f"postgresql://db/dial?sslmode=verify-ca&sslrootcert={tmp_path}/ca.pem")
    with pytest.raises(ValueError, match="sslcert and sslkey"):
        database_url(f"postgresql://db/dial?sslmode=require&sslcert={tmp_path}/ca.pem&sslkey={tmp_path}/ca.pem")


FAULTY = [
    f"postgresql://app:p@q:{CANARY}@127.0.0.1:5432/dial",
    f"postgresql://app:{CANARY}@@127.0.0.1/dial",
    f"postgresql://app:pw@db:{CANARY}/dial",
    f"postgresql://app:{CANARY}@db:99999/dial",
    f"postgresql://app:{CANARY}@db:0/dial",
    f"postgresql://app:{CANARY}@db:-1/dial",
    f"postgresql://app:{CANARY}@:5432/dial",
    f"postgresql://app:{CANARY}@one,,two/dial",
    f"postgresql://app:{CANARY}@[::1/dial",
    f"postgresql://app:{CANARY}@[{CANARY}]:5432/dial",
    f"postgresql://app:{CANARY}@::1/dial",
    f"postgresql://app:{CANARY}@d b/dial",
    f"postgresql://app:{CANARY} x@db/dial",
    f"postgresql://app:{CANARY}\n@db/dial",
    f"postgresql://app:{CANARY}\x00@db/dial",
    f"postgresql://app:{CANARY}%00@db/dial",
    f"postgresql://app:{CANARY}@d%00b/dial",
    f"postgresql://app:{CANARY}@db%3Bx/dial",
    f"postgresql://app:12/{CANARY}@db/dial",
    f"postgresql://app:12?{CANARY}@db/dial",
    f"postgresql://{CANARY}?x@db/dial",
    f"postgresql://one:5432,two:5433/dial?user=a@b&password={CANARY}",
    f"postgresql://[::1]:5432/dial?user=a@b&password={CANARY}",
    f"postgresql://one:5432/dial?user=a@b&password={CANARY}",
    f"postgresql://app:{CANARY}#x",
    f"postgresql://app:{CANARY}?x",
    f"postgresql://app:{CANARY}/x",
    f"postgresql:app:{CANARY}@db/dial",
    f"postgresql:/app:{CANARY}@db/dial",
    f"POSTGRESQL://app:{CANARY}@db/dial",
    f"jdbc:postgresql://db/dial?password={CANARY}",
    f"mysql://app:{CANARY}@db/dial",
    f"{CANARY}://app:{CANARY}@db/dial",
    f"host=db password={CANARY}",
    f"sqlite://app:{CANARY}@db:x{CANARY}/dial",
    f"sqlite://app:{CANARY}@db/dial",
    f"sqlite:///dial.db?{CANARY}=1",
    CANARY,
]


@pytest.mark.parametrize("address", FAULTY, ids=range(len(FAULTY)))
def test_error_is_one_line_without_a_part_of_the_address(address: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refusal:
        database_url(address)

    assert CANARY not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
