"""Concurrent requests across processes, and processes that are killed."""

import asyncio
import signal
import subprocess
import time
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import aiohttp
import httpx
import pytest

from tests.support.outages import readiness
from tests.support.push_material import same_ios
from tests.support.replicas import STOP_SECONDS, command, environment, replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token
from tests.support.waiting import eventually, promptly

CREATE: dict[str, Any] = {"method": "POST", "path": "telephony_credentials$"}
IMPATIENT = {"TELNYX_CALL_SECONDS": "2"}


@pytest.mark.parametrize(("database", "count"), [("sqlite", 1), ("postgres", 3)], indirect=["database"])
async def test_a_thousand_requests_for_one_device_cause_one_create(
    telnyx: Telnyx, database: str, tmp_path: Path, count: int
) -> None:
    async with AsyncExitStack() as stack:
        # The sandbox runs in this busy process, so its responses are slower than Telnyx's.
        patient = {"TELNYX_CALL_SECONDS": "10", "DIALTONE_REQUEST_TIMEOUT_SECONDS": "60"}
        replicas = [
            await stack.enter_async_context(replica(telnyx.url, database, tmp_path, patient)) for _ in range(count)
        ]
        everybody = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=everybody))

        async def ask(number: int) -> tuple[int, dict[str, Any]]:
            url = replicas[number % count].client.base_url.join("/v1/telephony-credentials")
            headers = {"Authorization": f"Bearer {bearer}"}
            async with session.post(str(url), headers=headers, json={"device_id": "laptop"}) as answer:
                return answer.status, await answer.json()

        bearer = token()
        answers = await asyncio.gather(*map(ask, range(1000)))

    assert {status for status, _ in answers} <= {200, 201}
    assert len({body["sip_username"] for _, body in answers}) == 1
    assert telnyx.created() == 1
    assert len(telnyx.live()) == 1


async def test_two_processes_on_one_sqlite_file_do_not_race(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with replica(telnyx.url, sqlite, tmp_path) as one, replica(telnyx.url, sqlite, tmp_path) as two:
        answers = await asyncio.gather(*((one, two)[n % 2].issue(f"tab-{n // 10}") for n in range(100)))

    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["sip_username"] for answer in answers}) == 10
    assert telnyx.created() == 10


async def test_shortened_lifetime_applies_to_another_process_within_two_seconds(
    telnyx: Telnyx, postgres: str, tmp_path: Path
) -> None:
    async with replica(telnyx.url, postgres, tmp_path) as here, replica(telnyx.url, postgres, tmp_path) as there:
        lease_id = (await here.issue()).json()["id"]
        former = (await there.issue()).json()["expires_at"]
        assert (await there.issue()).json()["expires_at"] == former, "cached at both"

        headers = {"Authorization": f"Bearer {token()}"}
        path = f"/v1/telephony-credentials/{lease_id}"

        async def is_shortened() -> bool:
            return bool((await there.issue()).json()["expires_at"] != former)

        changed = await here.client.patch(path, headers=headers, json={"ttl_seconds": 60})
        await promptly(is_shortened, 2)
        answers = [await service.issue() for service in (here, there)]

    assert changed.status_code == 200
    (credential,) = telnyx.sandbox.account.credentials.values()
    assert credential.expires_at is not None
    for answer in answers:
        assert datetime.fromisoformat(answer.json()["expires_at"]) <= credential.expires_at


async def test_credential_of_an_unanswered_create_is_returned_to_the_retry(
    telnyx: Telnyx, postgres: str, tmp_path: Path
) -> None:
    telnyx.fail("hang", **CREATE, after_commit=True)
    async with replica(telnyx.url, postgres, tmp_path, IMPATIENT) as service:
        first = await service.issue()
        retry = await service.issue()

    assert retry.is_success
    assert telnyx.created() == 1
    assert len(telnyx.live()) == 1
    if first.is_success:
        assert first.json()["sip_username"] == retry.json()["sip_username"]


async def test_kill_during_an_upload_leaves_one_push_credential(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    wanted, users = same_ios(), {"Authorization": f"Bearer {token()}"}
    telnyx.fail("hang", method="POST", path="mobile_push_credentials", after_commit=True)
    async with replica(telnyx.url, database, tmp_path, IMPATIENT) as doomed:
        asking = asyncio.create_task(doomed.client.post("/v1/push-credentials", headers=users, json=wanted))
        await eventually(lambda: telnyx.sandbox.account.push_credentials)
        doomed.kill()
        with suppress(httpx.TransportError):
            await asking

    async with replica(telnyx.url, database, tmp_path, IMPATIENT) as restarted:
        answer = await restarted.client.post("/v1/push-credentials", headers=users, json=wanted)

    assert answer.status_code == 201
    assert len(telnyx.sandbox.account.push_credentials) == 1


async def test_sixty_users_on_two_replicas_cause_one_upload(telnyx: Telnyx, postgres: str, tmp_path: Path) -> None:
    async with (
        replica(telnyx.url, postgres, tmp_path) as here,
        replica(telnyx.url, postgres, tmp_path) as there,
    ):

        async def register(number: int) -> int:
            headers = {"Authorization": f"Bearer {token(f'user-{number}')}"}
            client = (here, there)[number % 2].client
            return (await client.post("/v1/push-credentials", headers=headers, json=same_ios())).status_code

        statuses = await asyncio.gather(*(register(number) for number in range(60)))

    assert set(statuses) == {201}
    assert len(telnyx.sandbox.account.push_credentials) == 1
    uploaded = [entry for entry in telnyx.sandbox.journal.entries if entry.method == "POST"]
    assert len(uploaded) == 1


async def test_sigterm_lets_a_login_in_progress_finish(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """The drain is long enough for a check of the readiness, and shorter than the login takes."""
    telnyx.fail("delay", **CREATE, seconds=8)
    settings = {"DIALTONE_DRAIN_SECONDS": "6", "TELNYX_CALL_SECONDS": "20", "DIALTONE_REQUEST_TIMEOUT_SECONDS": "30"}
    async with replica(telnyx.url, sqlite, tmp_path, settings) as service:
        asking = asyncio.create_task(service.issue())
        await eventually(lambda: telnyx.calls("POST"))
        service.process.send_signal(signal.SIGTERM)
        await readiness(service.client, 503)
        draining = await service.client.get("/readyz")
        answer = await asking
        status = await asyncio.to_thread(service.process.wait, STOP_SECONDS)

    assert draining.json()["status"] == "draining"
    assert answer.status_code == 201
    assert status in (0, -signal.SIGTERM)


async def test_service_is_ready_within_seconds(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """The goal is 1.5 s, which the benchmark measures; a loaded test machine needs longer, as for another command."""
    began = time.monotonic()
    await asyncio.to_thread(subprocess.run, command("serve", "--help"), env=environment(), check=True, stdout=DEVNULL)
    command_took = time.monotonic() - began
    began = time.monotonic()
    async with replica(telnyx.url, sqlite, tmp_path):
        took = time.monotonic() - began

    assert took < 6 + 4 * command_took
