"""Commands and the service name the reason if they cannot use the database, without a part of its address."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.http_server import refusing_port
from tests.support.pgbouncer import PASSWORD, needs_pgbouncer, pgbouncer
from tests.support.replicas import command, replica, replica_environment
from tests.support.sandbox import Telnyx
from tests.support.waiting import eventually

CANARY = "S3cretCanary"
AMBIGUOUS = f"postgresql://app:p@q:{CANARY}@127.0.0.1:5432/dial"


async def run(telnyx: Telnyx, database: str, *arguments: str) -> tuple[int, str]:
    """The exit status and all output of a command in its own process."""
    done = await asyncio.to_thread(
        subprocess.run,
        command(*arguments),
        env=replica_environment(telnyx.url, database),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", ["serve", "migrate", "doctor", "config check", "config show", "sweep"])
async def test_command_names_the_setting_with_the_invalid_address(telnyx: Telnyx, arguments: str) -> None:
    status, output = await run(telnyx, AMBIGUOUS, *arguments.split())

    assert status == 1
    assert "DIALTONE_DATABASE_URL: is ambiguous; write special characters of the password" in output


def refused(_: str) -> str:
    return f"postgresql://app:{CANARY}@127.0.0.1:{refusing_port()}/dial"


def unresolved(_: str) -> str:
    return f"postgresql://app:{CANARY}@{CANARY}.invalid/dial"


def without_socket(_: str) -> str:
    return f"postgresql://app:{CANARY}@/dial?host=/{CANARY}"


def without_database(server: str) -> str:
    return server.replace("postgres:@/", f"postgres:{CANARY}@/{CANARY}-")


def without_user(server: str) -> str:
    return server.replace("postgres:@/", f"{CANARY}:{CANARY}@/")


def with_unknown_setting(server: str) -> str:
    return f"{server}&options=-c%20{CANARY}%3D1"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (refused, "the server refuses connections"),
        (unresolved, "the host name cannot be resolved"),
        (without_socket, "the server's Unix socket does not exist"),
        (without_database, "the database does not exist"),
        (without_user, "the server rejects the user"),
        (with_unknown_setting, "the server rejects a parameter of the address"),
    ],
)
async def test_migrate_and_doctor_give_the_reason(
    telnyx: Telnyx, postgres: str, address: Callable[[str], str], reason: str
) -> None:
    database = address(postgres.replace("postgresql+asyncpg", "postgresql"))

    status, output = await run(telnyx, database, "migrate")
    assert status == 1
    assert f"The migration failed: {reason}" in output

    status, output = await run(telnyx, database, "doctor", "--json")
    assert status == 1
    assert any(reason in finding["seen"] for finding in json.loads(output))


@pytest.mark.parametrize("place", ["other.db", "missing/other.db"])
async def test_command_on_a_ledger_that_was_not_migrated_leads_to_migrate(
    telnyx: Telnyx, tmp_path: Path, place: str
) -> None:
    database = f"sqlite:///{tmp_path / place}"

    status, output = await run(telnyx, database, "leases", "ls")
    assert status == 1
    assert "The ledger is unavailable" in output
    assert "`dialtone doctor` prints the reason." in output

    _, output = await run(telnyx, database, "doctor", "--json")
    (finding,) = (finding for finding in json.loads(output) if finding["about"] == "ledger")
    assert finding["fix"] == "run `dialtone migrate`"


@needs_pgbouncer
async def test_doctor_and_migrate_work_through_a_pooler(telnyx: Telnyx, postgres: str) -> None:
    with pgbouncer(postgres) as address:
        assert (await run(telnyx, address, "migrate"))[0] == 0
        _, output = await run(telnyx, address, "doctor", "--json")

        seen = {finding["about"]: finding["seen"] for finding in json.loads(output)}
        reachable = "postgresql: reachable, writable and migrated"
        assert seen["ledger"] == f"{reachable}, through a connection pooler: replicas poll for each other's changes"

        direct = postgres.replace("postgresql+asyncpg", "postgresql")
        _, output = await run(telnyx, direct, "doctor", "--json")
        seen = {finding["about"]: finding["seen"] for finding in json.loads(output)}
        assert seen["ledger"] == f"{reachable}; replicas use LISTEN for each other's changes"

        wrong = address.replace(quote(PASSWORD, safe=""), CANARY)
        _, output = await run(telnyx, wrong, "migrate")
        assert "rejects" in output


@needs_pgbouncer
async def test_log_and_answers_have_no_part_of_the_address(telnyx: Telnyx, postgres: str, tmp_path: Path) -> None:
    with pgbouncer(postgres) as address:
        wrong = address.replace(quote(PASSWORD, safe=""), CANARY)
        file = tmp_path / "database-url"
        file.write_text(wrong)
        changes = {"DIALTONE_DATABASE_URL": "", "DIALTONE_DATABASE_URL_FILE": str(file)}
        async with replica(telnyx.url, wrong, tmp_path, changes, is_ready=False, migrate=False) as service:
            answers = [await service.issue(), await service.client.get("/readyz")]
            file.write_text(AMBIGUOUS)
            service.process.send_signal(signal.SIGHUP)
            await eventually(lambda: "reload_rejected" in service.log.read_text(), 30)
            log = service.log.read_text()

    assert [answer.status_code for answer in answers] == [503, 503]
    assert CANARY not in log + "".join(answer.text for answer in answers)
    assert "DIALTONE_DATABASE_URL: is ambiguous" in log
