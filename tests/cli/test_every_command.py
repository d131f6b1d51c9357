"""Every command: on a terminal of 80 columns, in a pipe, as JSON, with wrong arguments, and with nothing to list."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from app.cli import app
from app.sandbox.account import DEMO_CONNECTION
from app.vending.events.models import DELIVERY_PERIOD
from app.vending.models import IssueRequest
from app.vending.operators.lease_admin import LeaseCriteria
from tests.support.databases import sqlite_url
from tests.support.http_server import refusing_port
from tests.support.push_material import android, same_ios
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.terminals import Outcome, on_terminal, piped
from tests.support.tokens import ISSUER, principal, token
from tests.support.waiting import eventually
from tests.support.webhooks import Receiver, add_events, numbered_event, outbox_of

ID = "{lease}"
UNKNOWN_ID = "0" * 32
DEVICE = "tab-" + "7f3a" * 15
SUBJECT = "google-oauth2|" + "1234567890" * 4


class Case(NamedTuple):
    """A command that ends by itself: arguments with which it succeeds, and others that are wrong."""

    good: str
    has_json: bool = True
    exit_code: int = 0
    wrong: tuple[str, ...] = ()
    """Arguments behind the name of the command that are a usage error."""
    fails: tuple[str, ...] = ()
    """Arguments with which the command fails: what they name does not exist."""
    empty: str | None = None
    """Arguments with which the list has no rows."""
    uses_ledger: bool = True


CASES = {
    "sweep": Case("--dry-run"),
    "warm-pool": Case(""),
    "grants revoke": Case(
        "--everything --confirm dialtone", wrong=("", "--everything", "--backend shop"), fails=(UNKNOWN_ID,)
    ),
    "doctor": Case("", uses_ledger=False),
    "migrate": Case("", uses_ledger=False),
    "errors": Case("", has_json=False, uses_ledger=False),
    "openapi": Case("--api user", has_json=False, uses_ledger=False, wrong=("--api neither",)),
    "token explain": Case("-", uses_ledger=False, wrong=("/nonexistent",)),
    "policy check": Case("", uses_ledger=False),
    "policy test": Case("-", uses_ledger=False, wrong=("",)),
    "config check": Case("", uses_ledger=False, fails=("/nonexistent.toml",)),
    "config show": Case("", uses_ledger=False),
    "config schema": Case("", has_json=False, uses_ledger=False),
    "push lint": Case("{folder}/cert.pem {folder}/key.pem", uses_ledger=False, wrong=("", "/nonexistent", "a b c")),
    "push convert": Case(
        "{folder}/cert.pem {folder}/key.pem --out-dir {folder}/new",
        has_json=False,
        uses_ledger=False,
        wrong=("", "/nonexistent --out-dir new", "a b c --out-dir new"),
    ),
    "push ls": Case("", wrong=("--limit 0",), empty=""),
    "push attach": Case(
        f"{DEMO_CONNECTION} --detach ios",
        wrong=("", DEMO_CONNECTION, "77x --detach ios", f"{DEMO_CONNECTION} --detach windows"),
        fails=(f"{DEMO_CONNECTION} --ios {UNKNOWN_ID}", "77 --detach ios"),
    ),
    "leases ls": Case("", wrong=("--state lost-and-found", "--limit 0", "--device a=b"), empty="--user none"),
    "leases show": Case(ID, wrong=("", "xyz", "0123"[:3], ID + "0"), fails=(UNKNOWN_ID, UNKNOWN_ID[:8])),
    "leases revoke": Case(
        f"--issuer {ISSUER} --user none",
        wrong=(
            "",
            "0123abcd",
            "--everything",
            f"--connection {DEMO_CONNECTION}",
            "--user alice",
            f"--issuer {ISSUER}",
            f"{ID} --everything --confirm dialtone",
        ),
        fails=(UNKNOWN_ID, "--everything --confirm other"),
    ),
    "keys refresh": Case("", fails=("https://other.example.com",)),
    "tokens refuse": Case(
        f"{ISSUER} --session none",
        wrong=("", f"{ISSUER} --user a --session b", f"{ISSUER} --before yesterday"),
        fails=("https://other.example.com", f"{ISSUER} --before 2999-01-01"),
    ),
    "users erase": Case(
        f"--issuer {ISSUER} --user none --confirm dialtone",
        wrong=("", f"--issuer {ISSUER} --user none", "--user none --dry-run"),
        fails=(f"--issuer {ISSUER} --user none --confirm other",),
    ),
    "events ls": Case("", wrong=("--limit 0", "--state delivered"), empty=""),
    "events replay": Case("--endpoint none", wrong=("", "xyz", f"{UNKNOWN_ID} --all"), fails=(UNKNOWN_ID,)),
    "audit tail": Case("", wrong=("--action none", "-n -1", "--since now", "--lease xyz"), empty="--user none"),
}

ENDLESS = {"serve", "dev", "sandbox telnyx", "sandbox identity", "sandbox page"}
"""Commands that run until they are stopped."""

OF_SANDBOX = {"sandbox token"}
"""Requires the simulated identity provider."""


OF_SERVICE = {"push renew"}
"""Requires a service at DIALTONE_URL."""


def all_commands(command: Any = None, name: str = "") -> Iterator[str]:
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for part, below in inner.items():
        yield from all_commands(below, f"{name} {part}".strip())


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service with leases of long names, and the environment of a shell on its machine."""
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)
    async with running_service(telnyx, sqlite) as service:
        for user, device in ((SUBJECT, DEVICE), ("alice", "laptop"), ("bob", "[red]tab")):
            await service.components.telephony.issuer.issue(principal(user), IssueRequest(device))
        await eventually(lambda: not service.components.audit.queued)
        yield service


@pytest.fixture
async def push_credential(service: Service) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    made = await service.client.post("/v1/push-credentials", headers=headers, json=android())
    assert made.status_code == 201


@pytest.fixture
async def dead_letter(service: Service) -> None:
    ledger = service.components.ledger
    await add_events(ledger.database, outbox_of(ledger.database, [Receiver().endpoint()]), [numbered_event(1, DEVICE)])
    await ledger.deliveries.bury_expired("backend", service.clock() + DELIVERY_PERIOD)


@pytest.fixture
def material(tmp_path: Path) -> Path:
    wanted = same_ios()
    (tmp_path / "cert.pem").write_text(wanted["certificate"])
    (tmp_path / "key.pem").write_text(wanted["private_key"])
    return tmp_path


async def run(kind: Any, line: str, folder: Path, *, lease: str = "") -> Outcome:
    words = [word.format(folder=folder, lease=lease) for word in line.split()]
    outcome: Outcome = await asyncio.to_thread(kind, *words, typed=token("alice"))
    return outcome


async def any_lease(service: Service) -> str:
    return (await service.components.operators.leases.search(LeaseCriteria(), None, 1))[0].id


def test_each_command_has_a_case() -> None:
    assert set(all_commands()) == CASES.keys() | ENDLESS | OF_SANDBOX | OF_SERVICE


@pytest.mark.parametrize("name", CASES)
async def test_output_of_a_pipe_is_plain_and_whole(name: str, service: Service, material: Path) -> None:
    lease = await any_lease(service)

    done = await run(piped, f"{name} {CASES[name].good}", material, lease=lease)

    assert done.exit_code == CASES[name].exit_code, done.stderr
    assert not re.search("[\x1b\u2500-\u257f\u2026]", done.stdout), "no colours, no box drawing, nothing shortened"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("push_credential", "dead_letter")
async def test_terminal_of_80_columns_gets_the_same_result(name: str, service: Service, material: Path) -> None:
    lease = await any_lease(service)

    done = await run(on_terminal, f"{name} {CASES[name].good}", material, lease=lease)

    assert done.exit_code == CASES[name].exit_code, done.stderr
    assert done.stdout
    assert not re.search("[\u2500-\u257f]", done.stdout)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.has_json])
async def test_json_is_one_document(name: str, service: Service, material: Path) -> None:
    lease = await any_lease(service)

    done = await run(piped, f"{name} {CASES[name].good} --json", material, lease=lease)

    assert done.exit_code == CASES[name].exit_code, done.stderr
    documents = done.stdout.splitlines() if name == "audit tail" else [done.stdout]
    assert documents
    assert all(isinstance(json.loads(text), dict | list) for text in documents)


@pytest.mark.parametrize("name", sorted(set(all_commands())))
@pytest.mark.parametrize("kind", [piped, on_terminal], ids=["pipe", "terminal"])
def test_unknown_option_is_a_usage_error(name: str, kind: Any) -> None:
    done = kind(*name.split(), "--no-such-option")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such option: --no-such-option" in done.stderr
    assert not re.search("[\u2500-\u257f]", done.stderr)


@pytest.mark.parametrize("name", sorted(set(all_commands())))
@pytest.mark.parametrize("kind", [piped, on_terminal], ids=["pipe", "terminal"])
def test_help_fits_80_columns(name: str, kind: Any) -> None:
    done = kind(*name.split(), "--help")

    assert done.exit_code == 0
    assert max(map(len, done.lines)) <= 80
    assert not re.search("[\x1b\u2500-\u257f]", done.stdout)


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, case in CASES.items() for arguments in case.wrong]
)
async def test_wrong_arguments_exit_with_2(name: str, arguments: str, service: Service, material: Path) -> None:
    lease = await any_lease(service)
    words = [word.format(lease=lease) for word in arguments.split()]

    done = await asyncio.to_thread(piped, *name.split(), *words, typed="")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, case in CASES.items() for arguments in case.fails]
)
@pytest.mark.parametrize("form", ["", "--json"])
async def test_what_does_not_exist_exits_with_1(
    name: str, arguments: str, form: str, service: Service, material: Path
) -> None:
    done = await run(piped, f"{name} {arguments} {form if CASES[name].has_json else ''}", material)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.empty is not None])
@pytest.mark.parametrize("kind", [piped, on_terminal], ids=["pipe", "terminal"])
async def test_empty_list_is_said_on_standard_error(name: str, kind: Any, service: Service, material: Path) -> None:
    done = await run(kind, f"{name} {CASES[name].empty}", material)
    as_json = await run(kind, f"{name} {CASES[name].empty} --json", material)

    assert (done.exit_code, done.stdout) == (0, "")
    assert re.fullmatch(r"(No|There are no) [a-z ]+\.\n", done.stderr)
    assert as_json.exit_code == 0
    assert as_json.stdout == ("" if name == "audit tail" else "[]\n")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.uses_ledger])
async def test_unreachable_database_exits_with_1(
    name: str, telnyx: Telnyx, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"postgresql://app:CANARY@127.0.0.1:{refusing_port()}/dial"
    for variable, value in replica_variables(telnyx.url, database).items():
        monkeypatch.setenv(variable, value)

    done = await run(piped, f"{name} {CASES[name].good}", material, lease="ab" * 16)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "The ledger is unavailable." in done.stderr
    assert done.stderr.count("\n") == 1
    assert "CANARY" not in done.stderr


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("config schema", "openapi", "errors")])
async def test_invalid_configuration_exits_with_1(
    name: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIALTONE_ENV_FILE", "")
    monkeypatch.setenv("DIALTONE_DATABASE_URL", sqlite_url(tmp_path))

    done = await run(piped, f"{name} {CASES[name].good}", material, lease="ab" * 16)

    expected = (0, "") if name in ("push lint", "push convert") else (1, "Configuration: TELNYX_API_KEY")
    assert done.exit_code == expected[0]
    assert done.stderr.startswith(expected[1])
