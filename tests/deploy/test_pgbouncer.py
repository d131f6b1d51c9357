"""Replicas behind PgBouncer."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.adapters.ledger.engines import database_url
from app.adapters.ledger.migrate import migrate
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.replicas import replica
from tests.support.sandbox import Telnyx
from tests.support.tokens import token
from tests.support.waiting import promptly

CALLERS, LOGINS = 20, int(os.environ.get("PGBOUNCER_LOGINS", "200"))


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, postgres: str) -> Iterator[str]:
    # In session mode, each connection of a replica has a server connection.
    with pgbouncer(postgres, request.param, pool_size=8 if request.param == "transaction" else 40) as address:
        yield address


@needs_pgbouncer
async def test_two_replicas_serve_all_logins_of_concurrent_callers(telnyx: Telnyx, pooled: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(telnyx.url, pooled, tmp_path)) for _ in range(2)]

        async def call(caller: int) -> list[int]:
            answers = [
                # Each user has two devices, whose logins are created, renewed and read from both replicas.
                await replicas[n % 2].issue(f"tab-{n % 4 // 2}", f"user-{caller}-{n // 10}")
                for n in range(LOGINS // CALLERS)
            ]
            return [answer.status_code for answer in answers]

        statuses = await asyncio.gather(*map(call, range(CALLERS)))

    counts = Counter(itertools.chain.from_iterable(statuses))
    assert counts.keys() <= {200, 201}, counts
    assert counts.total() == LOGINS
    assert telnyx.created() == LOGINS // 10 * 2


@needs_pgbouncer
async def test_change_reaches_another_replica_within_three_seconds(telnyx: Telnyx, pooled: str, tmp_path: Path) -> None:
    async with replica(telnyx.url, pooled, tmp_path) as here, replica(telnyx.url, pooled, tmp_path) as there:
        lease_id = (await here.issue()).json()["id"]
        former = (await there.issue()).json()["expires_at"]
        headers = {"Authorization": f"Bearer {token()}"}
        path = f"/v1/telephony-credentials/{lease_id}"

        async def is_shortened() -> bool:
            return bool((await there.issue()).json()["expires_at"] != former)

        changed = await here.client.patch(path, headers=headers, json={"ttl_seconds": 60})
        await promptly(is_shortened, 3)

    assert changed.status_code == 200


@needs_pgbouncer
async def test_migrations_of_several_replicas_run_one_after_another(pooled: str) -> None:
    await asyncio.gather(*(migrate(database_url(pooled)) for _ in range(3)))
