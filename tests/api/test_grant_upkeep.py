"""Deletion of grants from the ledger by the sweeper and by erasures."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.adapters.ledger.tables import not_before_marks
from app.vending.grants.models import MAX_GRANT_TTL
from tests.support.admin_api import admin_request
from tests.support.grants import audit_events, call, grant_rows, granting_service, minted, revoke_grants, use
from tests.support.sandbox import Telnyx
from tests.support.service import Service
from tests.support.tokens import ISSUER


@pytest.fixture
async def granting(telnyx: Telnyx, database: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with granting_service(telnyx, database, tmp_path) as service:
        yield service


async def test_sweeper_deletes_expired_grants_without_a_live_login(granting: Service) -> None:
    used = await minted(granting)
    await use(granting, used)
    await minted(granting, subject="frank")

    granting.clock.advance(timedelta(minutes=30))
    await granting.components.upkeep.sweeper.sweep()
    assert [row["id"] for row in await grant_rows(granting)] == [used["id"]]
    granting.clock.advance(timedelta(days=2))
    await granting.components.upkeep.sweeper.sweep()
    await granting.components.upkeep.sweeper.sweep()

    assert await grant_rows(granting) == []


async def not_before_names(service: Service) -> list[str]:
    rows = await service.components.ledger.database.rows(sa.select(not_before_marks))
    return sorted(row["name"] for row in rows)


async def test_sweeper_deletes_not_before_entries_that_reject_no_valid_grant(granting: Service) -> None:
    revoked = await minted(granting)
    await revoke_grants(granting, grant_id=revoked["id"])
    for target in (
        {"issuer": "dialtone:users", "subject": "erin"},
        {"issuer": "dialtone:guests"},
        {"issuer": ISSUER, "subject": "alice"},
    ):
        await admin_request(granting, "PUT", "/not-before", target)

    granting.clock.advance(MAX_GRANT_TTL + timedelta(minutes=14))
    await granting.components.upkeep.sweeper.sweep()
    assert await not_before_names(granting) == sorted(["", "alice", "erin", revoked["id"]])
    granting.clock.advance(timedelta(minutes=8))
    await granting.components.upkeep.sweeper.sweep()

    assert await not_before_names(granting) == ["alice"]


async def test_rejected_grant_with_the_longest_lifetime_stays_rejected(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, grant_ttl_seconds=3600) as service:
        grant = await minted(service)
        service.clock.advance(timedelta(seconds=2))
        await admin_request(service, "PUT", "/not-before", {"issuer": "dialtone:users", "subject": "erin"})

        service.clock.advance(timedelta(minutes=59))
        await service.components.upkeep.sweeper.sweep()

    async with granting_service(telnyx, sqlite, tmp_path, grant_ttl_seconds=3600) as restarted:
        assert (await use(restarted, grant)).status_code == 401
        (denied,) = await audit_events(restarted, action="denied")
        assert denied["reason"] == "not_before"


async def test_erasure_removes_the_grants_of_the_user(granting: Service) -> None:
    mine, other = await minted(granting), await minted(granting, subject="frank")
    body = {"issuer": "dialtone:users", "subject": "erin", "confirm": "dialtone"}

    await admin_request(granting, "POST", "/erasures", body)

    assert [row["id"] for row in await grant_rows(granting)] == [other["id"]]
    assert (await use(granting, mine)).status_code == 401
    assert (await call(granting, mine, "GET", "/v1/push-credentials")).status_code == 401
    assert (await call(granting, other, "GET", "/v1/push-credentials")).status_code == 200
