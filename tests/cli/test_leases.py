"""`dialtone leases` on the ledger of a running service."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.composition.components import Components
from app.sandbox.account import DEMO_CONNECTION
from app.vending.errors import TokenRejected
from app.vending.models import IssueRequest
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import running_components
from tests.support.signalling import open_page
from tests.support.tokens import ISSUER, principal, token
from tests.support.waiting import HOUR


@pytest.fixture
async def components(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Components]:
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)
    async with running_components(telnyx, sqlite) as components:
        for user, device in (("alice", "laptop"), ("alice", "[red]tab"), ("bob", "laptop")):
            await components.telephony.issuer.issue(principal(user), IssueRequest(device))
        yield components


async def leases(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, app, ["leases", *arguments])


async def listed(*arguments: str) -> list[dict[str, Any]]:
    said = await leases("ls", "--json", *arguments)
    assert said.exit_code == 0, said.output
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


async def test_leases_are_listed_as_a_table_and_json(components: Components) -> None:
    table = (await leases("ls")).output
    found = await listed("--issuer", ISSUER, "--user", "alice")

    assert all(word in table for word in ("alice", "bob", "laptop", "[red]tab", "active"))
    assert {lease["device_id"] for lease in found} == {"laptop", "[red]tab"}
    shown = await leases("show", found[0]["id"])
    assert found[0]["credential_name"] in shown.output
    assert (await leases("show", "0" * 32)).exit_code == 1


async def test_last_use_of_a_device_is_listed_and_shown(components: Components, telnyx: Telnyx) -> None:
    telnyx.clock.advance(HOUR)
    await components.telephony.issuer.issue(principal("bob"), IssueRequest("laptop"))
    await components.telephony.last_uses.flush()

    (lease,) = await listed("--user", "bob")

    assert datetime.fromisoformat(lease["last_used_at"]) > telnyx.clock() - HOUR / 60
    assert f"{lease['last_used_at'][:19]}Z" in (await leases("ls", "--user", "bob")).output
    assert f"{lease['last_used_at'][:19]}Z" in (await leases("show", lease["id"])).output


async def test_presence_of_a_device_is_listed_and_shown(components: Components, telnyx: Telnyx) -> None:
    login = await components.telephony.issuer.issue(principal("bob"), IssueRequest("laptop"))
    assert login.token is not None
    async with open_page(telnyx) as page:
        await page.ask("login", login_token=login.token.secret)

        row = (await leases("ls", "--user", "bob", "--presence")).stdout.split("\t")
        shown = (await leases("show", row[0], "--presence")).stdout

    assert row[3:5] == ["active", "yes"]
    assert "online\tyes" in shown
    assert [lease["online"] for lease in await listed("--user", "bob")] == [None], "not looked up"


async def test_unknown_presence_is_a_dash(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("status", method="GET", path="sip_registration_status", status=503, times=1000)

    row = (await leases("ls", "--user", "bob", "--presence")).stdout.split("\t")

    assert row[3:5] == ["active", "-"]


async def test_one_lease_is_revoked_and_deleted_at_telnyx(components: Components, telnyx: Telnyx) -> None:
    (lease,) = await listed("--user", "bob")

    said = await leases("revoke", lease["id"])

    assert (said.exit_code, said.output) == (0, "1 device logged out. Telnyx has confirmed the deletion.\n")
    assert len(telnyx.live()) == 2


async def test_user_is_revoked_with_their_tokens(components: Components, telnyx: Telnyx) -> None:
    said = await leases("revoke", "--issuer", ISSUER, "--user", "alice", "--refuse-tokens")

    assert (said.exit_code, said.output) == (0, "2 devices logged out. Telnyx has confirmed the deletion.\n")
    assert len(telnyx.live()) == 1
    await components.upkeep.change_poller.poll()
    early = token("alice", iat=int((telnyx.clock() - HOUR).timestamp()))
    with pytest.raises(TokenRejected) as refusal:
        await components.identity.verifier.verify(early)
    assert refusal.value.reason == "not_before"


async def test_revocation_of_a_user_without_devices_reports_no_device(components: Components) -> None:
    said = await leases("revoke", "--issuer", ISSUER, "--user", "carol")

    assert (said.exit_code, said.output) == (0, "No device was logged in.\n")


async def test_unconfirmed_deletion_exits_with_3(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("status", method="DELETE", status=500, times=1000)

    said = await leases("revoke", "--everything", "--confirm", "dialtone")

    assert (said.exit_code, said.output) == (3, "3 devices logged out. Telnyx has not yet confirmed the deletion.\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 2),
        (("--everything",), 2),
        (("--everything", "--confirm", "yes"), 1),
        (("--connection", DEMO_CONNECTION), 2),
        (("--user", "alice"), 2),
        (("--issuer", ISSUER, "--user", "alice", "--everything"), 2),
        (("--everything", "--confirm", "dialtone", "--refuse-tokens"), 2),
    ],
    ids=str,
)
async def test_ambiguous_or_unconfirmed_revocation_changes_nothing(
    components: Components, telnyx: Telnyx, arguments: tuple[str, ...], status: int
) -> None:
    said = await leases("revoke", *arguments)

    assert said.exit_code == status, said.output
    assert len(telnyx.live()) == 3


async def test_user_without_an_issuer_is_explained(components: Components) -> None:
    said = await leases("revoke", "--user", "alice")

    assert "--issuer and --user must be given together. `dialtone leases show ID` prints the issuer" in said.output


async def test_command_without_settings_names_the_remote_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    said = await leases("ls")

    assert said.exit_code == 1
    assert said.output == (
        "Configuration: TELNYX_API_KEY is not set; .env.example describes it. To use a service on another machine, set "
        "DIALTONE_URL and DIALTONE_TOKEN_FILE.\n"
    )
