"""New devices that need not wait: credentials from the pool log in on the signalling half at once."""

import time
from datetime import timedelta

from app.sandbox.account import DEMO_CONNECTION
from tests.sandbox.test_signalling import page
from tests.stage import eventually, service_in_front_of, telnyx_sandbox

PROPAGATION = timedelta(seconds=5)


async def test_fifty_new_devices_in_a_row_log_in_at_once(sqlite: str) -> None:
    async with (
        telnyx_sandbox(propagation=PROPAGATION) as telnyx,
        service_in_front_of(telnyx, sqlite, pool_size=50, propagation_seconds=5) as service,
    ):
        for _ in range(6):
            await service.components.upkeep.warm_pool.tend()
        await eventually(lambda: service.components.upkeep.warm_pool.ready == {DEMO_CONNECTION: 50})
        telnyx.clock.advance(PROPAGATION)
        spent = []
        for number in range(50):
            began = time.monotonic()
            answer = await service.issue(f"tab-{number % 5}", user=f"user-{number}")
            async with page(telnyx) as phone:
                heard = await phone.ask("login", login_token=answer.json()["login_token"])
            spent.append(time.monotonic() - began)
            assert answer.status_code == 201
            assert heard["result"]["message"] == "logged in"

    assert sorted(spent)[25] < 0.5


async def test_without_a_pool_a_brand_new_credential_is_refused_for_a_while(sqlite: str) -> None:
    async with (
        telnyx_sandbox(propagation=PROPAGATION) as telnyx,
        service_in_front_of(telnyx, sqlite, propagation_seconds=5) as service,
    ):
        answer = (await service.issue("laptop")).json()
        async with page(telnyx) as phone:
            heard = await phone.ask("login", login_token=answer["login_token"])

    assert "error" in heard
    assert answer["usable_at"] > answer["server_time"]
