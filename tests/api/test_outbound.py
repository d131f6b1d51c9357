"""Outbound requirements of policy rules: logins on a connection that does not meet them get 503."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from app.config.settings import SettingsError
from app.sandbox.account import DEMO_CONNECTION
from app.vending.upkeep.outbound_guard import RECHECK_INTERVAL
from tests.support.configuration import configured_by
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service, settings_for
from tests.support.tokens import ISSUER, pem, token

Serve = Callable[[str], AbstractAsyncContextManager[Service]]

LIMITED: dict[str, Any] = {"daily_spend_limit": "50.00", "daily_spend_limit_enabled": True}
MINUTE = timedelta(minutes=1)


def file(folder: Path, requirement: str) -> dict[str, Any]:
    """Settings with a rule `staff` that has this requirement, and a rule `contractors` that has none."""
    return configured_by(
        folder,
        f"""
        [[issuers]]
        issuer = "{ISSUER}"
        audiences = ["dialtone"]
        pem = '''{pem()}'''
        [[policy.rules]]
        name = "contractors"
        claims.kind = "contractor"
        [[policy.rules]]
        name = "staff"
        outbound = "{requirement}"
        """,
    )


@pytest.fixture
def serve(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def under(requirement: str) -> AsyncIterator[Service]:
        async with running_service(telnyx, sqlite, **file(tmp_path, requirement)) as service:
            yield service

    return under


async def issue(service: Service, device: str, **claims: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('alice', **claims)}"}
    return await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


async def check(service: Service, telnyx: Telnyx, after: timedelta = MINUTE) -> None:
    telnyx.clock.advance(after)
    await service.components.telnyx.outbound_guard.check()


CASES: list[tuple[str, dict[str, Any] | None, bool]] = [
    ("none", None, True),
    ("none", LIMITED, False),
    ("none", {"enabled": False}, True),
    ("limited", None, True),
    ("limited", LIMITED, True),
    ("limited", {"enabled": False}, True),
    ("limited", {}, False),
    ("limited", {"daily_spend_limit": "50.00", "daily_spend_limit_enabled": False}, False),
    ("limited", {"daily_spend_limit": None, "daily_spend_limit_enabled": True}, False),
    ("limited", {"daily_spend_limit": "NaN", "daily_spend_limit_enabled": True}, False),
    ("limited", {"daily_spend_limit": "-1", "daily_spend_limit_enabled": True}, False),
    ("limited", {"daily_spend_limit": 50, "daily_spend_limit_enabled": True}, True),
    ("limited", {"daily_spend_limit": "50.00", "daily_spend_limit_enabled": "true"}, False),
    ("limited", {"concurrent_call_limit": 1, "max_destination_rate": 0.01}, False),
    ("any", {}, True),
]


@pytest.mark.parametrize(("requirement", "profile", "is_met"), CASES)
async def test_login_requires_the_limits_of_its_rule(
    serve: Serve, telnyx: Telnyx, requirement: str, profile: dict[str, Any] | None, is_met: bool
) -> None:
    if profile is not None:
        telnyx.limit_outbound(**profile)
    async with serve(requirement) as service:
        answer = await issue(service, "laptop")

        if is_met:
            assert answer.status_code == 201
        else:
            assert_problem(answer, 503, "outbound_requirement_not_met")
            assert answer.json()["retryable"] is True
            assert telnyx.created() == 0
        assert (await issue(service, "tab", kind="contractor")).status_code == 201, "other rules are not affected"


async def test_shortfall_that_is_found_later_denies_logins_until_it_is_corrected(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with serve("limited") as service:
        assert (await issue(service, "laptop")).status_code == 201
        assert (await issue(service, "laptop")).status_code == 200
        telnyx.limit_outbound()
        await check(service, telnyx, 5 * MINUTE)

        assert_problem(await issue(service, "laptop"), 503, "outbound_requirement_not_met")
        metrics = (await service.client.get("/metrics")).text
        assert f'dialtone_outbound_rules_unmet{{connection="{DEMO_CONNECTION}"}} 1.0' in metrics
        assert f'dialtone_outbound_spend_unlimited{{connection="{DEMO_CONNECTION}"}} 1.0' in metrics
        assert 'dialtone_denials_total{reason="OutboundRequirementNotMet"} 1.0' in metrics

        telnyx.limit_outbound(**LIMITED)
        await check(service, telnyx)

        assert (await issue(service, "laptop")).status_code == 200
        metrics = (await service.client.get("/metrics")).text
        assert f'dialtone_outbound_rules_unmet{{connection="{DEMO_CONNECTION}"}} 0.0' in metrics


OUTBOUND = "/v2/(credential_connections|outbound_voice_profiles)"


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_telnyx_outage_denies_no_login_of_a_connection_that_was_good(
    serve: Serve, telnyx: Telnyx, status: int
) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with serve("limited") as service:
        assert (await issue(service, "laptop")).status_code == 201
        telnyx.fail("status", status=status, path=OUTBOUND, times=999)
        await check(service, telnyx, 10 * MINUTE)
        telnyx.sandbox.faults.plans.clear()

        assert (await issue(service, "laptop")).status_code == 200


async def test_login_is_not_created_while_the_limits_are_unknown(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound(**LIMITED)
    telnyx.fail("status", status=500, path=OUTBOUND, times=999)
    async with serve("limited") as service:
        assert_problem(await issue(service, "laptop"), 503, "telnyx_unavailable")
        assert telnyx.created() == 0
        assert (await issue(service, "tab", kind="contractor")).status_code == 201
        telnyx.sandbox.faults.plans.clear()

        assert (await issue(service, "laptop")).status_code == 201


@pytest.mark.parametrize("outbound", [None, {}, [], {"outbound_voice_profile_id": 7}], ids=str)
async def test_connection_without_a_readable_profile_does_not_count_as_safe(
    serve: Serve, telnyx: Telnyx, outbound: Any
) -> None:
    telnyx.sandbox.account.connections[DEMO_CONNECTION]["outbound"] = outbound
    async with serve("none") as service:
        assert_problem(await issue(service, "laptop"), 503, "telnyx_unavailable")


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
async def test_login_gets_503_if_telnyx_rejects_reading_the_limits(serve: Serve, telnyx: Telnyx, status: int) -> None:
    telnyx.limit_outbound(**LIMITED)
    telnyx.fail("status", status=status, path=OUTBOUND, times=999)
    async with serve("limited") as service:
        answer = await issue(service, "laptop")

        assert_problem(answer, 503, "outbound_limits_unknown")
        assert answer.json()["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 60
        assert telnyx.created() == 0
        assert (await issue(service, "tab", kind="contractor")).status_code == 201


async def test_logins_do_not_repeat_a_read_that_telnyx_rejected(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=404, path=OUTBOUND, times=999)
    async with serve("limited") as service:
        assert_problem(await issue(service, "laptop"), 503, "outbound_limits_unknown")
        telnyx.sandbox.journal.clear()

        answers = [await issue(service, f"tab-{number}") for number in range(5)]

        assert {answer.json()["code"] for answer in answers} == {"outbound_limits_unknown"}
        assert not telnyx.sandbox.journal.entries


async def test_login_works_a_minute_after_the_connection_was_corrected(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=404, path=OUTBOUND, times=999)
    async with serve("limited") as service:
        assert_problem(await issue(service, "laptop"), 503, "outbound_limits_unknown")
        telnyx.sandbox.faults.plans.clear()
        telnyx.clock.advance(RECHECK_INTERVAL)

        assert (await issue(service, "laptop")).status_code == 201


async def test_clock_that_is_set_back_delays_neither_logins_nor_reads(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=404, path=OUTBOUND, times=999)
    telnyx.clock.advance(timedelta(hours=1))
    async with serve("limited") as service:
        assert_problem(await issue(service, "laptop", exp=4_000_000_000), 503, "outbound_limits_unknown")
        await service.components.telnyx.outbound_guard.check()
        telnyx.sandbox.faults.plans.clear()
        telnyx.clock.advance(-timedelta(hours=1))

        assert (await issue(service, "laptop")).status_code == 201
        telnyx.sandbox.journal.clear()
        await service.components.telnyx.outbound_guard.check()

        assert any("credential_connections" in entry.path for entry in telnyx.sandbox.journal.entries)


UNREAD = "outbound_limits_unknown", "outbound_limits_outdated"


def failed_reads(logs: list[Any]) -> list[dict[str, Any]]:
    return [line for line in logs if line["event"] in UNREAD]


async def test_connection_that_cannot_be_read_at_the_start_is_logged_once_a_day(
    serve: Serve, telnyx: Telnyx, capsys: pytest.CaptureFixture[str]
) -> None:
    telnyx.fail("status", status=404, path=OUTBOUND, times=999)
    async with serve("limited") as service:
        for _ in range(3):
            await check(service, telnyx)
            await issue(service, "laptop")
        await check(service, telnyx, timedelta(days=1))

    logged = failed_reads([json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")])
    assert len(logged) == 2
    for line in logged:
        assert (line["event"], line["level"]) == ("outbound_limits_unknown", "error")
        assert (line["connection_id"], line["rules"]) == (DEMO_CONNECTION, ["staff"])
        assert line["reason"] == "the connection or its outbound voice profile does not exist at Telnyx"


async def test_connection_that_can_no_longer_be_read_is_logged_as_a_warning(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with serve("limited") as service:
        await check(service, telnyx)
        with capture_logs() as logs:
            for status in (500, 429, 503):
                telnyx.sandbox.faults.plans.clear()
                telnyx.fail("status", status=status, path=OUTBOUND, times=999)
                await check(service, telnyx, 6 * MINUTE)

    (line,) = failed_reads(logs)
    assert (line["event"], line["log_level"]) == ("outbound_limits_outdated", "warning")
    assert (line["connection_id"], line["rules"]) == (DEMO_CONNECTION, ["staff"])


async def test_failed_read_of_a_connection_without_a_requirement_is_not_logged(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=403, path=OUTBOUND, times=999)
    async with serve("any") as service:
        with capture_logs() as logs:
            await check(service, telnyx)

    assert failed_reads(logs) == []


# -- lifetime changes ------------------------------------------------------------------------------------------------


async def change(service: Service, lease_id: str, **changes: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('alice')}"}
    return await service.client.patch(f"/v1/telephony-credentials/{lease_id}", headers=headers, json=changes)


async def test_lifetime_is_not_extended_while_the_requirement_is_not_met(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with serve("limited") as service:
        lease = (await issue(service, "laptop")).json()
        assert (await change(service, lease["id"], ttl_seconds=3600)).status_code == 200
        telnyx.limit_outbound()
        await check(service, telnyx, 5 * MINUTE)
        telnyx.sandbox.journal.clear()

        assert_problem(await change(service, lease["id"], ttl_seconds=7200), 503, "outbound_requirement_not_met")
        assert telnyx.calls("PATCH") == []
        assert (await change(service, lease["id"], label="Desk")).status_code == 200
        assert (await change(service, lease["id"], ttl_seconds=600)).status_code == 200


async def test_lifetime_is_not_extended_while_the_limits_are_unknown(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        lease = (await issue(service, "laptop")).json()
        assert (await change(service, lease["id"], ttl_seconds=3600)).status_code == 200
    telnyx.fail("status", status=404, path=OUTBOUND, times=999)
    async with running_service(telnyx, sqlite, **file(tmp_path, "limited")) as service:
        assert_problem(await change(service, lease["id"], ttl_seconds=7200), 503, "outbound_limits_unknown")


async def test_lifetime_on_a_former_connection_is_not_extended(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    other = other_connection(telnyx)
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        lease = (await issue(service, "laptop")).json()
        shortened = (await change(service, lease["id"], ttl_seconds=3600)).json()
        moved = file(tmp_path, 'any"\nconnection_id = "' + other)
        await service.components.reload(settings_for(telnyx.url, sqlite, **moved))

        extended = await change(service, lease["id"], ttl_seconds=7200)

        assert (extended.status_code, extended.json()["expires_at"]) == (200, shortened["expires_at"])


# -- findings ----------------------------------------------------------------------------------------------------------


async def test_findings_are_logged_when_they_change_and_daily(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound()
    async with serve("limited") as service:
        await check(service, telnyx)
        with capture_logs() as first:
            for _ in range(10):
                await check(service, telnyx)
        with capture_logs() as next_day:
            await check(service, telnyx, timedelta(days=1))
        telnyx.limit_outbound(max_destination_rate=0.5, concurrent_call_limit=2)
        with capture_logs() as changed:
            await check(service, telnyx)

    def reports(logs: list[Any]) -> list[str]:
        return [line["event"] for line in logs if line["event"].startswith("outbound_")]

    assert reports(first) == []
    assert reports(next_day) == ["outbound_requirement_not_met"]
    assert reports(changed) == ["outbound_requirement_not_met"]
    assert changed[-1]["rule"] == "staff"
    assert "up to 1440.00 USD a day" in changed[-1]["exposure"]


async def test_unlimited_connection_without_a_requirement_is_a_warning(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound()
    async with serve("any") as service:
        await service.components.telnyx.outbound_guard.check()
        with capture_logs() as logs:
            await check(service, telnyx, timedelta(days=2))

    assert [line["event"] for line in logs if line["event"].startswith("outbound_")] == ["outbound_spend_not_limited"]


async def test_check_waits_for_a_check_in_progress(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with telnyx.held("GET", OUTBOUND) as read, serve("limited") as service:
        guard = service.components.telnyx.outbound_guard
        await read.arrived.wait()  # the check at the start
        second = asyncio.create_task(guard.check())
        await asyncio.sleep(0.1)
        assert not second.done()
        read.released.set()

        await second
        assert [status.connection_id for status in guard.statuses()] == [DEMO_CONNECTION]


async def test_good_connection_is_read_every_five_minutes(serve: Serve, telnyx: Telnyx) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with serve("limited") as service:
        await service.components.telnyx.outbound_guard.check()
        telnyx.sandbox.journal.clear()
        for _ in range(10):
            await check(service, telnyx)

    paths = [entry.path for entry in telnyx.sandbox.journal.entries]
    assert sum("outbound_voice_profiles" in path for path in paths) == 2


async def test_reload_rejects_a_new_requirement_that_is_not_met(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    telnyx.limit_outbound()
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        changed = settings_for(telnyx.url, sqlite, **file(tmp_path, "limited"))

        with pytest.raises(SettingsError, match=f"rule staff: connection {DEMO_CONNECTION} is not `limited`"):
            await service.components.reload(changed)

        assert (await issue(service, "laptop")).status_code == 201, "nothing was changed"


async def test_new_requirement_is_checked_with_the_result_of_the_reload(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    telnyx.limit_outbound()
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        await service.components.telnyx.outbound_guard.check()
        assert (await issue(service, "laptop")).status_code == 201
        telnyx.limit_outbound(**LIMITED)

        await service.components.reload(settings_for(telnyx.url, sqlite, **file(tmp_path, "limited")))

        assert (await issue(service, "laptop")).status_code == 200, "not denied because of the result before the reload"


@pytest.mark.parametrize("is_telnyx_available", [True, False])
async def test_reload_applies_other_changes_while_a_requirement_is_not_met(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, is_telnyx_available: bool
) -> None:
    async with running_service(telnyx, sqlite, **file(tmp_path, "limited")) as service:
        telnyx.limit_outbound()
        if not is_telnyx_available:
            telnyx.fail("status", status=500, path=OUTBOUND, times=99)
        changed = settings_for(telnyx.url, sqlite, max_devices=3, **file(tmp_path, "limited"))

        await service.components.reload(changed)

        assert service.components.identity.policy.policy.rules[1].allowance.max_devices == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [404, 422])
async def test_reload_rejects_a_new_requirement_of_a_connection_that_telnyx_rejects(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, status: int
) -> None:
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        telnyx.fail("status", status=status, path=OUTBOUND, times=99)
        changed = settings_for(telnyx.url, sqlite, **file(tmp_path, "limited"))

        with (
            capture_logs() as logs,
            pytest.raises(SettingsError, match=f"rule staff: the outbound limits of connection {DEMO_CONNECTION}"),
        ):
            await service.components.reload(changed)

        assert failed_reads(logs) == [], "the log event of the rejected reload has the reason"
        assert (await issue(service, "laptop")).status_code == 201, "nothing was changed"


@pytest.mark.parametrize("status", [403, 500])
async def test_reload_with_an_unread_connection_is_logged_and_denies_new_logins_until_it_is_read(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, status: int
) -> None:
    telnyx.limit_outbound(**LIMITED)
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        assert (await issue(service, "old")).status_code == 201
        telnyx.fail("status", status=status, path=OUTBOUND, times=99)

        with capture_logs() as logs:
            await service.components.reload(settings_for(telnyx.url, sqlite, **file(tmp_path, "limited")))

        (line,) = failed_reads(logs)
        assert (line["event"], line["log_level"]) == ("outbound_limits_unknown", "error")
        assert (line["connection_id"], line["rules"]) == (DEMO_CONNECTION, ["staff"])
        assert (await issue(service, "new")).status_code == 503
        assert (await issue(service, "old")).status_code == 200, "its login was returned before"
        assert telnyx.created() == 1

        telnyx.sandbox.faults.plans.clear()
        telnyx.clock.advance(RECHECK_INTERVAL)
        assert (await issue(service, "new")).status_code == 201


async def test_login_reads_the_limits_again_after_a_reload(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """The reload may have applied an API key that can read them."""
    telnyx.limit_outbound(**LIMITED)
    telnyx.fail("status", status=403, path=OUTBOUND, times=999)
    async with running_service(telnyx, sqlite, **file(tmp_path, "limited")) as service:
        assert_problem(await issue(service, "laptop"), 503, "outbound_limits_unknown")
        telnyx.sandbox.faults.plans.clear()

        await service.components.reload(settings_for(telnyx.url, sqlite, **file(tmp_path, "limited")))

        assert (await issue(service, "laptop")).status_code == 201


def other_connection(telnyx: Telnyx) -> str:
    return str(
        telnyx.sandbox.account.create_connection(
            {"connection_name": "desk", "user_name": "desklines", "password": "long enough"}
        )["id"]
    )


async def test_outage_returns_no_login_of_a_former_connection(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    other = other_connection(telnyx)
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        assert (await issue(service, "laptop")).status_code == 201
        telnyx.fail("status", status=500, times=999)
        moved = file(tmp_path, 'limited"\nconnection_id = "' + other)
        await service.components.reload(settings_for(telnyx.url, sqlite, **moved))

        assert_problem(await issue(service, "laptop"), 503, "telnyx_unavailable")


async def test_lost_create_is_not_continued_on_a_former_connection(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    other = other_connection(telnyx)
    async with running_service(telnyx, sqlite, **file(tmp_path, "any")) as service:
        telnyx.fail("status", method="POST", path="telephony_credentials$", status=500)
        assert_problem(await issue(service, "laptop"), 503, "telnyx_unavailable")
        moved = file(tmp_path, 'limited"\nconnection_id = "' + other)
        await service.components.reload(settings_for(telnyx.url, sqlite, **moved))

        assert (await issue(service, "laptop")).status_code == 201
        assert {item.connection_id for item in telnyx.sandbox.account.credentials.values()} == {other}
