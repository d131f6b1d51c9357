"""`dialtone users erase` on the ledger of a running service."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.composition.components import Components
from app.vending.audit import AuditCriteria
from app.vending.models import IssueRequest
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import running_components
from tests.support.tokens import ISSUER, principal


@pytest.fixture
async def components(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Components]:
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)
    async with running_components(telnyx, sqlite) as components:
        for user, device in (("alice", "laptop"), ("alice", "tab"), ("bob", "laptop")):
            await components.telephony.issuer.issue(principal(user), IssueRequest(device))
        await asyncio.sleep(0.5)  # the audit events are written
        yield components


async def erase(*arguments: str, user: str = "alice") -> Result:
    command = ["users", "erase", "--issuer", ISSUER, "--user", user, *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command)


async def test_dry_run_prints_the_counts(components: Components, telnyx: Telnyx) -> None:
    said = await erase("--dry-run")

    assert said.exit_code == 0, said.output
    assert said.output == (
        "Would erase 2 leases (2 with a credential at Telnyx), 0 push registrations and 2 audit events.\n"
    )
    assert len(telnyx.live()) == 3


async def test_user_is_erased_and_their_credentials_are_deleted(components: Components, telnyx: Telnyx) -> None:
    said = await erase("--confirm", "dialtone")

    assert said.exit_code == 0, said.output
    assert "Deletion of the credentials confirmed by Telnyx." in said.output
    assert len(telnyx.live()) == 1
    assert await components.operators.leases.audit(AuditCriteria(subject="alice"), None, 10) == []


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("--confirm", "yes"), 1)], ids=str)
async def test_erasure_requires_the_namespace(
    components: Components, telnyx: Telnyx, arguments: tuple[str, ...], status: int
) -> None:
    said = await erase(*arguments)

    assert said.exit_code == status
    assert len(telnyx.live()) == 3


async def test_unconfirmed_deletion_exits_with_3(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("status", method="DELETE", status=500, times=1000)

    said = await erase("--confirm", "dialtone", "--json")

    assert said.exit_code == 3
    assert not json.loads(said.stdout)["confirmed"]


async def test_repeated_erasure_reports_what_telnyx_has_not_confirmed(components: Components, telnyx: Telnyx) -> None:
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    await erase("--confirm", "dialtone")

    again = await erase("--confirm", "dialtone", "--json")

    assert again.exit_code == 3
    assert json.loads(again.stdout)["leases"] == 0


async def test_empty_user_is_rejected(components: Components) -> None:
    assert (await erase("--confirm", "dialtone", user="")).exit_code == 2


@pytest.mark.parametrize("user", ["--help", "a b'\"%_*", "erased-1"])
async def test_user_may_have_any_characters(components: Components, user: str) -> None:
    said = await erase(f"--user={user}", "--dry-run")

    assert said.exit_code == 0, said.output
    assert said.output.startswith("Would erase 0 leases")
