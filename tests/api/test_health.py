"""Liveness, readiness and version endpoints, and readiness during a graceful stop."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from app import __version__
from app.adapters.ledger.engines import database_url, open_engine
from app.api.readiness import CheckStatus, Readiness, ReadinessCheck, TelnyxCheck
from app.vending.errors import LedgerUnavailable, TelnyxKeyRejected, TelnyxUnreachable
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.waiting import eventually


async def test_healthy_service_is_live_ready_and_reports_its_version(service: Service) -> None:
    assert (await service.client.get("/livez")).json() == {"status": "alive"}
    assert (await service.client.get("/readyz")).json() == {
        "status": "ready",
        "checks": {"ledger": "ok", "identity": "ok", "telnyx": "ok"},
    }
    assert (await service.client.get("/version")).json() == {"name": "dialtone", "version": __version__}


async def test_ledger_outage_makes_the_service_unready_but_live(telnyx: Telnyx, database: str) -> None:
    async with running_service(telnyx, database) as service:
        await service.client.get("/readyz")
        engine = open_engine(database_url(database))
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE alembic_version RENAME TO hidden"))
        await asyncio.sleep(2.1)

        lost = await service.client.get("/readyz")
        alive = await service.client.get("/livez")
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE hidden RENAME TO alembic_version"))
        await engine.dispose()
        await asyncio.sleep(1.1)
        healed = await service.client.get("/readyz")

        assert (lost.status_code, lost.json()["checks"]["ledger"]) == (503, "failed")
        assert alive.status_code == 200
        assert healed.status_code == 200


async def test_telnyx_outage_keeps_the_service_ready(telnyx: Telnyx, sqlite: str) -> None:
    telnyx.fail("status", path="credential_connections", status=503, times=100)
    async with running_service(telnyx, sqlite) as service:
        answer = await service.client.get("/readyz")

    assert (answer.status_code, answer.json()["checks"]["telnyx"]) == (200, "degraded")


@pytest.mark.parametrize("change", [{"telnyx_api_key": "KEY_WRONG"}, {"telnyx_connection_id": "999"}], ids=str)
async def test_invalid_key_or_connection_is_never_ready(telnyx: Telnyx, sqlite: str, change: dict[str, Any]) -> None:
    async with running_service(telnyx, sqlite, **change) as service:
        ready = await service.client.get("/readyz")
        answer = await service.issue("laptop")

    assert (ready.status_code, ready.json()["checks"]["telnyx"]) == (503, "failed")
    assert answer.status_code == 502
    assert answer.json()["code"] in ("telnyx_key_rejected", "telnyx_rejected")
    assert "www-authenticate" not in answer.headers


async def test_single_rejection_of_a_working_key_keeps_the_service_ready() -> None:
    outcomes: list[Exception | None] = [None, TelnyxKeyRejected(), TelnyxKeyRejected(), TelnyxKeyRejected()]

    async def check() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    probe = TelnyxCheck(check)

    assert [await probe() for _ in range(3)] == [CheckStatus.OK, CheckStatus.DEGRADED, CheckStatus.DEGRADED]
    with pytest.raises(TelnyxKeyRejected):
        await probe()


async def test_concurrent_probes_share_one_check_and_cache_its_result() -> None:
    looks = 0

    async def look() -> CheckStatus:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.01)
        return CheckStatus.OK

    readiness = Readiness({"ledger": ReadinessCheck(look, fresh_seconds=60)})
    await asyncio.gather(*(readiness.check() for _ in range(50)))

    assert looks == 1


async def test_failing_or_hanging_probe_reports_only_failed() -> None:
    async def unavailable() -> CheckStatus:
        raise LedgerUnavailable

    async def degraded() -> None:
        raise TelnyxUnreachable(may_have_happened=False)

    readiness = Readiness(
        {"ledger": ReadinessCheck(unavailable, 1), "telnyx": ReadinessCheck(TelnyxCheck(degraded), 1)}
    )

    assert await readiness.check() == (False, {"ledger": "failed", "telnyx": "degraded"})


async def test_draining_service_is_not_ready() -> None:
    readiness = Readiness({})
    readiness.is_draining = True

    assert await readiness.check() == (False, {})


async def test_login_in_progress_is_finished_before_the_stop(telnyx: Telnyx, sqlite: str) -> None:
    telnyx.fail("delay", method="POST", path="telephony_credentials$", seconds=0.5)
    async with running_service(telnyx, sqlite, telnyx_call_seconds=30.0) as service:
        asking = asyncio.create_task(service.issue("laptop"))
        await eventually(lambda: telnyx.calls("POST"))
        asking.cancel()

    async with running_service(telnyx, sqlite) as service:
        (device,) = (await service.ask("GET")).json()["data"]

    assert device["state"] == "active"
    assert telnyx.created() == 1
