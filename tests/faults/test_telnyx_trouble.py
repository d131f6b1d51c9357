"""Telnyx fails in every known way while a crowd asks: afterwards all invariants hold, and everybody has a login."""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.vending.telephony.revoke import LAST_RETRY
from tests.faults.crowd import Crowd, check
from tests.stage import Service, Telnyx, eventually, service_in_front_of

CREATE = {"method": "POST", "path": "telephony_credentials$"}
MINT = {"method": "POST", "path": "/token$"}
DELETE = {"method": "DELETE", "path": "telephony_credentials"}
READ = {"method": "GET", "path": "telephony_credentials"}

PLANS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "creates committed and never answered": [{**CREATE, "kind": "hang", "after_commit": True, "times": 3}],
    "creates committed and cut off": [{**CREATE, "kind": "drop", "after_commit": True, "times": 5}],
    "creates cut off before anything happened": [{**CREATE, "kind": "drop", "times": 5}],
    "creates committed and answered 500": [{**CREATE, "kind": "status", "after_commit": True, "times": 5}],
    "creates answered with HTML": [{**CREATE, "kind": "garbage", "body": "<html>502</html>", "times": 5}],
    "creates answered in a form nobody knows": [
        {**CREATE, "kind": "garbage", "body": '{"data":{"uuid":1}}', "times": 5}
    ],
    "creates answered byte by byte": [{**CREATE, "kind": "drip", "seconds": 0.2, "times": 3}],
    "creates answered without end": [{**CREATE, "kind": "huge", "times": 3}],
    "mints that fail": [{**MINT, "kind": "status", "times": 6}, {**MINT, "kind": "garbage", "body": "{}", "times": 3}],
    "mints that find nothing": [{**MINT, "kind": "status", "status": 404, "times": 4}],
    "deletions that are not confirmed": [{**DELETE, "kind": "drop", "after_commit": True, "times": 4}],
    "deletions that fail": [{**DELETE, "kind": "status", "status": 503, "times": 6}],
    "reads that fail": [{**READ, "kind": "status", "status": 502, "times": 6}],
    "everything throttled": [{"kind": "status", "status": 429, "headers": {"retry-after": "1"}, "times": 10}],
    "everything throttled oddly": [
        {"kind": "status", "status": 429, "headers": {"x-ratelimit-reset": odd}, "times": 2}
        for odd in ("-1", "nan", "1e99", "Mon, 23 Nov 2026 12:00:00 GMT")
    ],
    "everything broken for a while": [{"kind": "status", "status": 500, "times": 25}],
    "the key refused for a while": [{"kind": "status", "status": 401, "times": 8}],
}


ON = [("sqlite", 1), ("postgres", 3)]
if "KILLS" in os.environ:  # the long form
    ON += [("sqlite", 3), ("postgres", 1)]


@pytest.mark.parametrize(("database", "replicas"), ON, indirect=["database"])
@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
async def test_nothing_is_lost_and_nobody_is_left_without(
    telnyx: Telnyx, database: str, plans: list[dict[str, Any]], replicas: int
) -> None:
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                service_in_front_of(telnyx, database, telnyx_call_seconds=0.8, patience_seconds=4)
            )
            for _ in range(replicas)
        ]
        crowd = Crowd([service.client for service in services], random.Random(7))  # noqa: S311 - a crowd
        await crowd.rush(15)
        for plan in plans:
            telnyx.fail(**plan)
        await crowd.rush(40)
        telnyx.sandbox.faults.plans.clear()
        await crowd.settle()
        await quiet(services)

        await check(telnyx, database, crowd)
        for service in services:
            assert (await service.client.get("/livez")).status_code == 200


async def quiet(services: list[Service]) -> None:
    """Let the sweepers finish what was begun, on a clock that runs ahead to every retry."""
    for _ in range(6):
        await asyncio.gather(*(service.components.upkeep.sweeper.sweep() for service in services))
        services[0].clock.advance(LAST_RETRY)
    for service in services:
        await eventually(lambda: not service.components.telephony.issuer._flights)  # noqa: B023 - asked in this very round
