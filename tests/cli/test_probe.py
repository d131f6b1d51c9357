"""`dialtone doctor --probe` measures propagation and presence with a real login, and leaves no credential behind."""

import asyncio
import json
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.probe import POLL_SECONDS
from app.sandbox.account import DEMO_CONNECTION
from tests.support.databases import migrate_database
from tests.support.http_server import refusing_port
from tests.support.replicas import command, environment, replica_variables, take_interrupts
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.waiting import eventually

STATUS = "/v2/sip_registration_status"
LONG_PROPAGATION = timedelta(minutes=5)
"""Longer than a probe takes. Tests move the sandbox's clock past it, after a login that was too early."""

MEASUREMENTS = (
    r"Telnyx created a credential in (\d+\.\d\d) s",
    (
        r"a new credential could log in (\d+\.\d) s after its creation, at attempt [2-9]; "
        "DIALTONE_PROPAGATION_SECONDS is 60"
    ),
    r"presence was online after (\d+\.\d) s",
    r"presence was offline after (\d+\.\d) s",
    r"Telnyx deleted the credential in (\d+\.\d\d) s",
)


@pytest.fixture
def propagation() -> timedelta:
    return timedelta(seconds=1)


@pytest.fixture
async def telnyx(propagation: timedelta) -> AsyncIterator[Telnyx]:
    async with telnyx_sandbox(propagation=propagation) as telnyx:
        yield telnyx


@pytest.fixture
async def variables(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    await migrate_database(sqlite)
    wanted = replica_variables(telnyx.url, sqlite) | {
        "DIALTONE_RTC_HOST": telnyx.url.replace("http", "ws").removesuffix("/v2"),
        "DIALTONE_PROPAGATION_SECONDS": "60",
        "TELNYX_CALL_SECONDS": "30",
    }
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return wanted


async def probe(**changes: str) -> tuple[Result, dict[str, list[str]]]:
    """The outcome of the command, and what it measured, by verdict."""
    runner = CliRunner(env={"COLUMNS": "200", **changes})
    result = await asyncio.to_thread(runner.invoke, app, ["doctor", "--probe", "--json"])
    found: dict[str, list[str]] = {}
    for finding in json.loads(result.stdout):
        if finding["about"] == "probe":
            found.setdefault(finding["verdict"], []).append(finding["seen"])
    return result, found


async def probe_with_an_early_login(telnyx: Telnyx, **changes: str) -> tuple[Result, dict[str, list[str]]]:
    """A probe whose first login is within LONG_PROPAGATION, and whose second one is after it."""
    probing = asyncio.create_task(probe(**changes))
    await eventually(lambda: telnyx.sandbox.exchange.rejected_logins or probing.done(), 30)
    telnyx.clock.advance(LONG_PROPAGATION)
    return await probing


@pytest.mark.parametrize("propagation", [LONG_PROPAGATION], ids=["long"])
async def test_probe_measures_login_presence_and_deletion(telnyx: Telnyx, variables: dict[str, str]) -> None:
    began = time.monotonic()
    result, found = await probe_with_an_early_login(telnyx)
    took = time.monotonic() - began

    assert result.exit_code == 0, result.output
    measured = [re.fullmatch(pattern, text) for pattern, text in zip(MEASUREMENTS, found["ok"], strict=True)]
    seconds = [float(match[1]) for match in measured if match is not None]
    assert len(seconds) == len(MEASUREMENTS), found["ok"]
    assert seconds[1] >= POLL_SECONDS
    assert sum(seconds) < took + 0.25, "each number is rounded to 0.1 s or less"
    assert "warning" not in found
    assert (telnyx.created(), telnyx.live(), telnyx.sandbox.exchange.registrations()) == (1, [], [])
    assert "tel_token" not in result.output
    assert "eyJ" not in result.output, "the login token is not printed"


@pytest.mark.parametrize("propagation", [LONG_PROPAGATION], ids=["long"])
async def test_propagation_that_exceeds_the_setting_is_a_warning(telnyx: Telnyx, variables: dict[str, str]) -> None:
    _, found = await probe_with_an_early_login(telnyx, DIALTONE_PROPAGATION_SECONDS="0.4")

    assert "a new credential could log in " in found["warning"][0]
    assert telnyx.live() == []


async def test_unreachable_signalling_server_is_a_warning(telnyx: Telnyx, variables: dict[str, str]) -> None:
    _, found = await probe(DIALTONE_RTC_HOST=f"ws://127.0.0.1:{refusing_port()}")

    assert found["warning"] == [
        "a login could not be measured: the signalling server is unreachable (ClientConnectorError)"
    ]
    assert "presence was offline after" in "\n".join(found["ok"])
    assert telnyx.live() == []


async def test_login_is_not_sent_over_plain_text(telnyx: Telnyx, variables: dict[str, str]) -> None:
    _, found = await probe(DIALTONE_RTC_HOST="ws://rtc.example.com")

    assert "DIALTONE_RTC_HOST is not wss" in found["warning"][0]
    assert telnyx.live() == []


FAULTS: list[dict[str, Any]] = [
    {"kind": "drop", "method": "POST", "path": "telephony_credentials$", "after_commit": True},
    {"kind": "garbage", "method": "POST", "path": "telephony_credentials$", "body": "<html>"},
    {"kind": "status", "method": "POST", "path": "token$", "status": 500},
    {"kind": "drop", "method": "DELETE", "path": "telephony_credentials", "after_commit": True},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault['kind']} {fault['method']} {fault['path']}")
async def test_failed_probe_leaves_no_credential(
    telnyx: Telnyx, variables: dict[str, str], fault: dict[str, Any]
) -> None:
    telnyx.fail(**fault)

    await probe()

    assert telnyx.live() == []


async def test_credential_that_cannot_be_deleted_is_named(telnyx: Telnyx, variables: dict[str, str]) -> None:
    telnyx.fail("status", method="DELETE", path="telephony_credentials", status=500, times=99)

    result, found = await probe()

    assert result.exit_code == 1
    assert found["failed"] == ["the credential could not be deleted: Telnyx returned a server error."]
    (left,) = telnyx.sandbox.account.credentials.values()
    assert f"the credential {left.name} expires after 10 minutes" in result.output
    assert left.connection_id == DEMO_CONNECTION


async def test_rejected_create_leaves_nothing_to_delete(telnyx: Telnyx, variables: dict[str, str]) -> None:
    telnyx.fail("status", path="telephony_credentials", status=401, times=99)

    _, found = await probe()

    assert len(found["failed"]) == 1
    assert telnyx.calls("GET") == [], "no search for a credential that cannot exist"


ENDINGS = [("create", signal.SIGINT), ("login", signal.SIGINT), ("presence", signal.SIGINT)]
ENDINGS += [("presence", signal.SIGTERM), ("presence", signal.SIGHUP)]


@pytest.mark.parametrize(("moment", "ending"), ENDINGS)
async def test_interrupted_probe_deletes_its_credential(
    telnyx: Telnyx, variables: dict[str, str], moment: str, ending: signal.Signals
) -> None:
    if moment == "create":
        telnyx.fail("hang", method="POST", path="telephony_credentials$", after_commit=True)
    elif moment == "presence":
        telnyx.fail("hang", path=STATUS, times=99)
    own = environment(**variables)
    process = await asyncio.create_subprocess_exec(
        *command("doctor", "--probe"),
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=take_interrupts,
    )
    await eventually(lambda: telnyx.live() if moment != "presence" else telnyx.lookups(), 30)
    process.send_signal(ending)
    await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 130
    assert telnyx.live() == []
