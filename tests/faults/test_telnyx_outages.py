"""Telnyx fails in every known way under load; afterwards all invariants hold and every device has a login."""

import os
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.load import LoadGenerator, check_invariants, finish_sweeps
from tests.support.sandbox import Telnyx
from tests.support.service import running_service

CREATE = {"method": "POST", "path": "telephony_credentials$"}
MINT = {"method": "POST", "path": "/token$"}
DELETE = {"method": "DELETE", "path": "telephony_credentials"}
READ = {"method": "GET", "path": "telephony_credentials"}

PLANS: dict[str, list[dict[str, Any]]] = {
    "no fault": [],
    "creates committed without a response": [{**CREATE, "kind": "hang", "after_commit": True, "times": 3}],
    "creates committed and disconnected": [{**CREATE, "kind": "drop", "after_commit": True, "times": 5}],
    "creates disconnected before the commit": [{**CREATE, "kind": "drop", "times": 5}],
    "creates committed and answered 500": [{**CREATE, "kind": "status", "after_commit": True, "times": 5}],
    "creates answered with HTML": [{**CREATE, "kind": "garbage", "body": "<html>502</html>", "times": 5}],
    "creates answered in an unknown format": [{**CREATE, "kind": "garbage", "body": '{"data":{"uuid":1}}', "times": 5}],
    "creates answered byte by byte": [{**CREATE, "kind": "drip", "seconds": 0.2, "times": 3}],
    "creates answered with an endless body": [{**CREATE, "kind": "huge", "times": 3}],
    "failing mints": [{**MINT, "kind": "status", "times": 6}, {**MINT, "kind": "garbage", "body": "{}", "times": 3}],
    "mints answered 404": [{**MINT, "kind": "status", "status": 404, "times": 4}],
    "unconfirmed deletions": [{**DELETE, "kind": "drop", "after_commit": True, "times": 4}],
    "failing deletions": [{**DELETE, "kind": "status", "status": 503, "times": 6}],
    "failing reads": [{**READ, "kind": "status", "status": 502, "times": 6}],
    "everything throttled": [{"kind": "status", "status": 429, "headers": {"retry-after": "1"}, "times": 10}],
    "everything throttled with invalid headers": [
        {"kind": "status", "status": 429, "headers": {"x-ratelimit-reset": odd}, "times": 2}
        for odd in ("-1", "nan", "1e99", "Mon, 23 Nov 2026 12:00:00 GMT")
    ],
    "all calls fail for some time": [{"kind": "status", "status": 500, "times": 25}],
    "key rejected for some time": [{"kind": "status", "status": 401, "times": 8}],
}


ON = [("sqlite", 1), ("postgres", 3)]
if "KILLS" in os.environ:  # the long form
    ON += [("sqlite", 3), ("postgres", 1)]


@pytest.mark.parametrize(("database", "replicas"), ON, indirect=["database"])
@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
async def test_telnyx_faults_lose_nothing_and_every_device_gets_a_login(
    telnyx: Telnyx, database: str, plans: list[dict[str, Any]], replicas: int
) -> None:
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                running_service(telnyx, database, telnyx_call_seconds=0.8, request_timeout_seconds=4)
            )
            for _ in range(replicas)
        ]
        load = LoadGenerator([service.client for service in services], random.Random(7))  # noqa: S311 - reproducible load
        await load.run(15)
        for plan in plans:
            telnyx.fail(**plan)
        await load.run(40)
        telnyx.sandbox.faults.plans.clear()
        await load.settle()
        await finish_sweeps(services)

        await check_invariants(telnyx, database, load)
        for service in services:
            assert (await service.client.get("/livez")).status_code == 200
