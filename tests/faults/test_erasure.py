"""An erasure is killed, runs twice at once, and changes many rows while users log in. All with real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.engines import database_url
from app.adapters.ledger.tables import audit_events, push_registrations
from app.vending.ids import new_ordered_id
from app.vending.policy import ADMIN_SCOPE
from tests.support.databases import migrate_database
from tests.support.fresh_connection_probe import seconds_in_run_queues
from tests.support.leases import read_leases
from tests.support.push_material import same_ios
from tests.support.replicas import Replica, command, read_changes, replica, replica_environment
from tests.support.sandbox import Telnyx
from tests.support.tokens import ISSUER, token
from tests.support.waiting import eventually

EVENTS = int(os.environ.get("ERASURE_EVENTS", "6000"))
"""Audit events of the user. Set ERASURE_EVENTS=100000 for the long form (`make faults`)."""

ERASE = ("users", "erase", "--issuer", ISSUER, "--user", "alice", "--confirm", "dialtone")


async def insert_events(database: str, count: int) -> None:
    """Audit events about alice, or with her as the actor, of the last week."""
    await migrate_database(database)
    now = datetime.now(UTC)
    engine = create_async_engine(database_url(database))
    rows: list[dict[str, Any]] = [
        {
            "id": new_ordered_id(),
            "at": now - timedelta(seconds=6 * number + 60),
            "action": "reused",
            "outcome": "done",
            "issuer": ISSUER,
            "subject": "bob" if number % 10 == 0 else "alice",
            "device_id": f"canary-{number % 3}",
            "lease_id": f"{number % 3:032x}",
            "actor_issuer": ISSUER,
            "actor_subject": "alice",
            "request_id": f"request-{number}",
            "client_address": "203.0.113.7",
            "user_agent": "canary",
            "details": {},
        }
        for number in range(count)
    ]
    async with engine.begin() as connection:
        for start in range(0, count, 5000):
            await connection.execute(audit_events.insert(), rows[start : start + 5000])
    await engine.dispose()


async def counted(database: str) -> tuple[int, set[str]]:
    """The number of audit events that name alice, and the other actors of the inserted events."""
    engine = create_async_engine(database_url(database))
    at = audit_events.c
    async with engine.connect() as connection:
        named = sa.select(sa.func.count()).where(sa.or_(at.subject == "alice", at.actor_subject == "alice"))
        others = sa.select(at.actor_subject).where(at.request_id.is_not(None), at.actor_subject != "alice").distinct()
        found = await connection.scalar(named) or 0, set((await connection.scalars(others)).all())
    await engine.dispose()
    return found


async def run_erasure(telnyx: Telnyx, database: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    env = replica_environment(telnyx.url, database)
    return await asyncio.to_thread(
        subprocess.run, command(*ERASE), env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


async def erase_over_http(service: Replica) -> int:
    headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
    body = {"issuer": ISSUER, "subject": "alice", "confirm": "dialtone"}
    while True:
        answer = await service.client.post("/v1/admin/erasures", headers=headers, json=body)
        if not answer.is_success or answer.json()["complete"]:
            return answer.status_code


@pytest.mark.timeout(300)
async def test_killed_erasure_is_completed_by_the_next_one(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    await insert_events(database, EVENTS)
    async with replica(telnyx.url, database, tmp_path) as service:
        for device in ("laptop", "phone"):
            assert (await service.issue(device)).status_code == 201
        users = {"Authorization": f"Bearer {token()}"}
        assert (await service.client.post("/v1/push-credentials", headers=users, json=same_ios())).status_code == 201
    telnyx.fail("status", method="DELETE", status=500, times=5)
    before, _ = await counted(database)
    for batches in (1, EVENTS // 400):
        env = replica_environment(telnyx.url, database)
        doomed = [sys.executable, "-m", "tests.support.killed_command", "audit_events", str(batches + 1), *ERASE]
        killed = await asyncio.to_thread(subprocess.run, doomed, env=env, cwd=tmp_path, stdout=DEVNULL, check=False)
        assert killed.returncode == -signal.SIGKILL
    left, _ = await counted(database)
    assert 0 < left < before, "killed in the middle"

    finished = await run_erasure(telnyx, database, tmp_path)

    assert finished.returncode in (0, 3), finished.stderr
    named, pseudonyms = await counted(database)
    assert named == 0
    assert len({name for name in pseudonyms if name.startswith("erased-")}) == 1
    assert all(lease.subject.startswith("erased-") for lease in (await read_leases(database)).values())
    async with replica(telnyx.url, database, tmp_path) as service:
        await eventually(lambda: not telnyx.live(), 60)  # the sweeper deletes what the killed erasures left
        assert (await service.issue("laptop")).status_code == 201, "a new user"


@pytest.mark.timeout(300)
async def test_erasure_of_many_events_does_not_block_logins(
    telnyx: Telnyx, database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    await insert_events(database, EVENTS)
    took: list[float] = []
    async with replica(telnyx.url, database, tmp_path) as service:
        began = time.monotonic()
        erasing = asyncio.create_task(run_erasure(telnyx, database, tmp_path))
        number = 0
        while not erasing.done():
            number += 1
            asked, waited = time.monotonic(), seconds_in_run_queues(service.process.pid)
            answer = await service.issue(f"tab-{number % 8}", f"user-{number}")
            waited = seconds_in_run_queues(service.process.pid) - waited
            took.append(time.monotonic() - asked - waited)
            assert answer.status_code == 201, answer.text
        finished = await erasing
        seconds = time.monotonic() - began

    assert finished.returncode == 0, finished.stderr
    assert (await counted(database))[0] == 0
    took.sort()
    record_property("erasure_seconds", round(seconds, 1))
    record_property("logins", len(took))
    record_property("login_median_ms", round(took[len(took) // 2] * 1000))
    record_property("login_99_percent_ms", round(took[int(len(took) * 0.99)] * 1000))
    record_property("login_longest_ms", round(took[-1] * 1000))
    assert took[-1] < 3


@pytest.mark.timeout(300)
async def test_two_replicas_erase_the_same_user_at_once(telnyx: Telnyx, database: str, tmp_path: Path) -> None:
    await insert_events(database, 3000)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(telnyx.url, database, tmp_path)) for _ in range(2)]
        for number, service in enumerate(replicas):
            assert (await service.issue(f"tab-{number}")).status_code == 201

        statuses = await asyncio.gather(*map(erase_over_http, [*replicas, *replicas]))

        assert set(statuses) <= {200, 202}
        await eventually(lambda: not telnyx.live(), 60)
        await read_changes(replicas[0], replicas[1])
        await read_changes(replicas[1], replicas[0])
        again = [await service.issue("tab-0") for service in replicas]

    assert {answer.status_code for answer in again} <= {200, 201}
    assert len({answer.json()["sip_username"] for answer in again}) == 1
    named, names = await counted(database)
    assert named <= 2, "only the logins of the new user"
    assert len({name for name in names if name.startswith("erased-")}) == 1
    engine = create_async_engine(database_url(database))
    async with engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(push_registrations)) == 0
    await engine.dispose()
