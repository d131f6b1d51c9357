"""Orphaned credentials: found by name, reported, deleted only on request; other credentials are left alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.composition.components import Components
from app.sandbox.account import DEMO_CONNECTION
from app.vending.errors import LedgerMismatch
from app.vending.models import IssueRequest
from app.vending.upkeep.reconciler import MIN_ORPHAN_AGE
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import idle_components, running_components
from tests.support.tokens import principal
from tests.support.waiting import eventually

ALICE, LAPTOP = principal("alice"), IssueRequest("laptop")
OURS = "dialtone-" + "ab" * 16


@pytest.fixture
async def components(telnyx: Telnyx, database: str) -> AsyncIterator[Components]:
    async with idle_components(telnyx, database) as components:
        yield components


def made(telnyx: Telnyx, name: str) -> str:
    expires = (telnyx.clock() + timedelta(days=30)).isoformat()
    found = telnyx.sandbox.account.create_credential(
        {"connection_id": DEMO_CONNECTION, "name": name, "expires_at": expires}
    )
    return str(found["id"])


async def test_orphan_is_reported_and_deleted_on_request(components: Components, telnyx: Telnyx) -> None:
    mine = (await components.telephony.issuer.issue(ALICE, LAPTOP)).lease.credential_id
    orphan = made(telnyx, OURS)
    telnyx.clock.advance(MIN_ORPHAN_AGE)

    report = await components.upkeep.reconciler.reconcile()
    assert [found.credential_id for found in report.orphans] == [orphan]
    assert set(telnyx.live()) == {mine, orphan}

    deleted = await components.upkeep.reconciler.reconcile(deletes=True)
    assert deleted.deleted == 1
    assert telnyx.live() == [mine]
    assert components.upkeep.reconciler.orphans == 0


@pytest.mark.parametrize(
    "name",
    ["", "foreign", "dialtone", "dialtone-", "dialtone-prod-" + "ab" * 16, OURS + "0", OURS.upper(), "x" + OURS],
)
async def test_credentials_with_other_names_are_left_alone(components: Components, telnyx: Telnyx, name: str) -> None:
    await components.telephony.issuer.issue(ALICE, LAPTOP)
    foreign = made(telnyx, name)
    telnyx.clock.advance(MIN_ORPHAN_AGE * 20)

    outcome = await components.upkeep.reconciler.reconcile(deletes=True, force=True)

    assert outcome.foreign == 1
    assert foreign in telnyx.live()


async def test_recent_credentials_are_left_alone(components: Components, telnyx: Telnyx) -> None:
    await components.telephony.issuer.issue(ALICE, LAPTOP)
    young = made(telnyx, OURS)
    telnyx.clock.advance(MIN_ORPHAN_AGE / 2)

    outcome = await components.upkeep.reconciler.reconcile(deletes=True)

    assert (outcome.young, outcome.deleted) == (2, 0)
    assert young in telnyx.live()


async def test_duplicate_of_a_live_lease_is_deleted_and_the_lease_stays(components: Components, telnyx: Telnyx) -> None:
    lease = (await components.telephony.issuer.issue(ALICE, LAPTOP)).lease
    twin = made(telnyx, lease.credential_name)
    telnyx.clock.advance(MIN_ORPHAN_AGE)

    outcome = await components.upkeep.reconciler.reconcile(deletes=True)

    assert [found.why for found in outcome.orphans] == ["its lease has another credential"]
    assert twin not in telnyx.live()
    assert (await components.telephony.issuer.issue(ALICE, LAPTOP)).lease.credential_id in telnyx.live()


async def test_credential_of_an_ended_lease_is_deleted(components: Components, telnyx: Telnyx) -> None:
    lease = (await components.telephony.issuer.issue(ALICE, LAPTOP)).lease
    await components.telephony.revoker.revoke(ALICE, lease.id)
    ghost = made(telnyx, lease.credential_name)
    telnyx.clock.advance(MIN_ORPHAN_AGE)

    outcome = await components.upkeep.reconciler.reconcile(deletes=True)

    assert [found.why for found in outcome.orphans] == ["its lease is revoked"]
    assert ghost not in telnyx.live()


async def test_empty_ledger_deletes_nothing(components: Components, telnyx: Telnyx) -> None:
    orphan = made(telnyx, OURS)
    telnyx.clock.advance(MIN_ORPHAN_AGE)

    with pytest.raises(LedgerMismatch):
        await components.upkeep.reconciler.reconcile(deletes=True)

    assert telnyx.live() == [orphan]
    await components.upkeep.reconciler.reconcile(deletes=True, force=True)
    assert telnyx.live() == []


async def test_warm_pool_does_not_make_a_ledger_the_right_one(telnyx: Telnyx, database: str) -> None:
    orphan = made(telnyx, OURS)
    telnyx.clock.advance(MIN_ORPHAN_AGE)
    async with running_components(telnyx, database, warm_pool_size=1) as components:
        await eventually(lambda: components.upkeep.warm_pool.ready == {DEMO_CONNECTION: 1})

        with pytest.raises(LedgerMismatch):
            await components.upkeep.reconciler.reconcile(deletes=True)

    assert orphan in telnyx.live()


@pytest.mark.timeout(180)
async def test_long_list_is_walked_to_its_end(components: Components, telnyx: Telnyx) -> None:
    await components.telephony.issuer.issue(ALICE, LAPTOP)
    for number in range(600):
        made(telnyx, f"dialtone-{number:032x}")
    telnyx.clock.advance(MIN_ORPHAN_AGE)

    outcome = await components.upkeep.reconciler.reconcile(deletes=True)

    assert (outcome.walked, outcome.deleted) == (601, 600)
    assert len(telnyx.live()) == 1


async def test_dry_run_shows_what_would_be_deleted(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_components(telnyx, sqlite) as components:
        await components.telephony.issuer.issue(ALICE, LAPTOP)
    orphan = telnyx.sandbox.account.credentials[made(telnyx, OURS)]
    orphan.created_at -= timedelta(days=1)
    monkeypatch.chdir(tmp_path)
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)

    async def run(*options: str) -> Any:
        said = await asyncio.to_thread(CliRunner().invoke, app, ["sweep", *options])
        assert said.exit_code == 0, said.output
        return said.output

    dry = await run("--dry-run")
    assert f"would delete orphan: {OURS} (no lease of that name)" in dry
    assert len(telnyx.live()) == 2
    done = json.loads(await run("--json"))

    assert done["deleted_orphans"] == 1
    assert len(telnyx.live()) == 1
