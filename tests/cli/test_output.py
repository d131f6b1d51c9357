"""Output of commands: tables of a terminal, lines of a pipe, ids, interruptions, and start-up time."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.cli.output import Column, table
from app.vending.models import IssueRequest
from app.vending.operators.lease_admin import LeaseCriteria
from tests.support.command_line import RemoteShell, operator_shell
from tests.support.raw_server import raw_server
from tests.support.replicas import command, environment, replica_variables, take_interrupts
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.terminals import on_terminal, piped
from tests.support.tokens import ISSUER, principal
from tests.support.waiting import eventually

ID = re.compile(r"\b[0-9a-f]{32}\b")
DEVICE = "tab-" + "7f3a" * 15
SUBJECT = "google-oauth2|" + "1234567890" * 4

COLUMNS = (
    Column("ID", lambda row: row["id"], is_whole=True),
    Column("NAME", lambda row: row["name"]),
    Column("STATE", lambda row: row["state"], is_whole=True),
)


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service with leases, and the environment of a shell on its machine."""
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)
    ids = (f"feed{number:04x}{'0' * 24}" for number in count())
    async with running_service(telnyx, sqlite, ids=lambda: next(ids)) as service:
        for user, device in ((SUBJECT, DEVICE), ("alice", "laptop"), ("\u6771\u4eac\u202e\x1b[31m", "laptop")):
            await service.components.telephony.issuer.issue(principal(user), IssueRequest(device))
        await eventually(lambda: not service.components.audit.queued)
        yield service


async def lease_ids(service: Service) -> list[str]:
    return [lease.id for lease in await service.components.operators.leases.search(LeaseCriteria(), None, 100)]


# -- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "lines", "omitted"),
    [
        (80, ["ID    NAME              STATE", "0001  alice@example.com  active"], []),
        (24, ["ID    NAME      STATE", "0001  alice@exa…  active"], []),
        (14, ["ID    NAME", "0001  alice@e…"], ["STATE"]),
        (5, ["ID", "0001"], ["NAME", "STATE"]),
        (1, ["ID", "0001"], ["NAME", "STATE"]),
    ],
)
def test_table_fits_the_terminal_and_keeps_ids_whole(width: int, lines: list[str], omitted: list[str]) -> None:
    shown, missing = table(COLUMNS, [["0001", "alice@example.com", "active"]], width)

    assert [" ".join(line.split()) for line in shown] == [" ".join(line.split()) for line in lines]
    assert missing == omitted
    assert all(len(line) <= max(width, 4) for line in shown)


def test_wide_characters_are_counted_by_the_columns_they_take() -> None:
    shown, _ = table(COLUMNS, [["1", "東京東京東京", "a"], ["2", "bob", "b"]], 80)

    assert shown[1].index("a") + 6 == shown[2].index("  b", 8) + 2


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
async def test_lines_of_leases_fit_the_terminal(service: Service, columns: int) -> None:
    done = await asyncio.to_thread(on_terminal, "leases", "ls", columns=columns)

    ids = await lease_ids(service)
    assert [line.split()[0] for line in done.lines[1:]] == ids
    assert max(map(len, done.lines)) <= columns
    assert ("Not shown on this narrow terminal" in done.stderr) == (columns < 200)


async def test_pipe_gets_whole_values_with_tabs(service: Service) -> None:
    done = await asyncio.to_thread(piped, "leases", "ls")

    rows = [line.split("\t") for line in done.lines]
    assert [row[0] for row in rows] == await lease_ids(service)
    assert {row[1] for row in rows} == {SUBJECT, "alice", "東京\\u202e\\x1b[31m"}
    assert {row[2] for row in rows} == {DEVICE, "laptop"}
    assert {len(row) for row in rows} == {8}


@pytest.mark.parametrize("extra", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
async def test_process_in_a_terminal_prints_a_table(
    service: Service, telnyx: Telnyx, sqlite: str, extra: dict[str, str]
) -> None:
    """In a process, with a real terminal on every stream."""
    text = await asyncio.to_thread(_in_terminal, "leases ls", replica_variables(telnyx.url, sqlite) | extra)

    assert ID.findall(text) == await lease_ids(service)
    assert max(len(line) for line in text.splitlines() if ID.search(line)) <= 80
    assert "\x1b" not in text


@pytest.mark.parametrize(("extra", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
async def test_doctor_has_colours_unless_the_environment_forbids_them(
    service: Service, telnyx: Telnyx, sqlite: str, extra: dict[str, str], has_colours: bool
) -> None:
    text = await asyncio.to_thread(_in_terminal, "doctor", replica_variables(telnyx.url, sqlite) | extra)

    assert ("\x1b" in text) == has_colours


@pytest.mark.parametrize("columns", [20, 80])
async def test_event_is_one_line_with_whole_values(service: Service, columns: int) -> None:
    """The terminal wraps a long line itself. The program neither breaks nor shortens it, so ids can be copied."""
    done = await asyncio.to_thread(on_terminal, "audit", "tail", columns=columns)

    assert len(done.lines) == 3
    (long,) = [line for line in done.lines if SUBJECT in line]
    assert DEVICE in long
    assert len(long) > 80
    assert "…" not in done.stdout


@pytest.mark.parametrize("columns", [20, 80])
async def test_ids_that_a_command_prints_are_whole(service: Service, telnyx: Telnyx, columns: int) -> None:
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    (lease,) = [one for one in await lease_ids(service) if one.startswith("feed0001")]
    erase = ("users", "erase", "--issuer", ISSUER, "--user", SUBJECT, "--confirm", "dialtone")

    shown = await asyncio.to_thread(on_terminal, "leases", "show", lease, columns=columns)
    erased = await asyncio.to_thread(on_terminal, *erase, columns=columns)

    assert lease in shown.stdout.splitlines()[0]
    assert re.search(
        r"^not deleted yet: dialtone-[0-9a-f]{32} \(revoking; deletion attempts: \d\)$", erased.stdout, re.MULTILINE
    )
    assert re.search(r" erased-[0-9a-f]{32}\.$", erased.stdout, re.MULTILINE)


def _in_terminal(line: str, variables: dict[str, str]) -> str:
    program = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))"
    wanted = environment(**{"TERM": "xterm", "COLUMNS": "80", **variables})
    done = subprocess.run(
        [sys.executable, "-c", program, *command(*line.split())], env=wanted, capture_output=True, check=False
    )
    return done.stdout.decode().replace("\r\n", "\n")


# -- ids ----------------------------------------------------------------------------------------------------------


async def test_unique_prefix_names_a_lease(service: Service) -> None:
    lease = (await lease_ids(service))[0]

    done = await asyncio.to_thread(piped, "leases", "show", lease[:8].upper())

    assert done.exit_code == 0, done.stderr
    assert f"id\t{lease}" in done.lines


async def test_ambiguous_prefix_lists_the_candidates(service: Service) -> None:
    done = await asyncio.to_thread(piped, "leases", "show", "feed")

    assert (done.exit_code, done.stdout) == (2, "")
    assert set(ID.findall(done.stderr)) == set(await lease_ids(service))
    assert "3 IDs begin with feed. Give more characters." in done.stderr


async def test_prefix_selects_events_of_a_lease(service: Service) -> None:
    lease = (await lease_ids(service))[0]

    done = await asyncio.to_thread(piped, "audit", "tail", "--lease", lease[:8], "--json")

    assert done.exit_code == 0
    assert f'"lease_id": "{lease}"' in done.stdout


async def test_prefix_does_not_revoke(service: Service, telnyx: Telnyx) -> None:
    lease = (await lease_ids(service))[0]

    done = await asyncio.to_thread(piped, "leases", "revoke", lease[:31])

    assert (done.exit_code, done.stdout) == (2, "")
    assert "requires the whole ID of 32 characters" in done.stderr
    assert f"`dialtone leases show {lease[:31]}` prints it." in done.stderr
    assert len(telnyx.live()) == 3


@pytest.mark.parametrize("prefix", ["fee", "feed%", "feed_", "FEED", "feed" + "0" * 29, "feeg"])
async def test_api_rejects_prefixes_that_no_id_has(service: Service, prefix: str, tmp_path: Path) -> None:
    shell: RemoteShell = operator_shell(service, tmp_path)
    headers = {"Authorization": f"Bearer {shell.token_file.read_text().strip()}"}

    answer = await service.client.get("/v1/admin/leases", params={"id_prefix": prefix}, headers=headers)

    assert answer.status_code == 422


# -- interruptions ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_full_disk_ends_a_command_with_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--version"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == "The output cannot be written: No space left on device.\n"


async def test_closed_pipe_ends_a_command_without_a_traceback(service: Service, telnyx: Telnyx, sqlite: str) -> None:
    line = f"{' '.join(command('leases', 'ls', '--json'))} | true"
    shell = await asyncio.create_subprocess_shell(
        line, env=environment(**replica_variables(telnyx.url, sqlite)), stderr=subprocess.PIPE
    )
    _, noted = await shell.communicate()

    assert noted == b""


async def test_interrupt_ends_a_request_with_130(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    arrived = asyncio.Event()
    async with raw_server(None, arrived=arrived) as port:
        variables = environment(DIALTONE_URL=f"http://127.0.0.1:{port}", DIALTONE_TOKEN_FILE=str(tmp_path / "token"))
        process = await asyncio.create_subprocess_exec(
            *command("leases", "ls"),
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=take_interrupts,
        )
        await arrived.wait()
        process.send_signal(signal.SIGINT)
        shown, noted = await process.communicate()

    assert (process.returncode, shown, noted) == (130, b"", b"")


async def test_characters_that_the_output_cannot_encode_are_escaped(
    service: Service, telnyx: Telnyx, sqlite: str
) -> None:
    variables = environment(**replica_variables(telnyx.url, sqlite), PYTHONIOENCODING="latin-1")
    done: Any = await asyncio.to_thread(
        subprocess.run, command("leases", "ls"), env=variables, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert rb"\u6771\u4eac" in done.stdout


# -- start-up -----------------------------------------------------------------------------------------------------

HEAVY = ("fastapi", "sqlalchemy", "app.sandbox", "app.config", "app.composition", "aiohttp", "cryptography")


@pytest.mark.parametrize("line", ["--help", "--version", "leases --help", "leases ls --help", "--show-completion"])
def test_command_without_work_imports_no_library_of_the_service(line: str) -> None:
    assert _imported(line, environment(SHELL=os.environ.get("SHELL", "/bin/sh"))) == []


async def test_remote_command_imports_only_the_http_client(service: Service, tmp_path: Path) -> None:
    shell = operator_shell(service, tmp_path)
    variables = environment(DIALTONE_URL=service.url, DIALTONE_TOKEN_FILE=str(shell.token_file))

    imported = await asyncio.to_thread(_imported, "leases ls", variables)

    assert imported == ["aiohttp"]


def _imported(line: str, variables: dict[str, str]) -> list[str]:
    """The heavy packages that a command imports."""
    program = (
        "import sys, atexit\n"
        "from app.cli import app\n"
        f"atexit.register(lambda: print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))\n"
        f"app({line.split()!r}, prog_name='dialtone')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    return done.stderr.splitlines()[-1].split()
