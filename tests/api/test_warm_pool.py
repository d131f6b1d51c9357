"""The warm pool end to end: pooled credentials log in on the signalling WebSocket without a propagation delay."""

from datetime import timedelta

from app.sandbox.account import DEMO_CONNECTION
from tests.support.sandbox import telnyx_sandbox
from tests.support.service import running_service
from tests.support.signalling import open_page
from tests.support.waiting import LoopClock, eventually

PROPAGATION = timedelta(seconds=5)


async def test_fifty_new_devices_log_in_without_a_delay(sqlite: str) -> None:
    async with (
        telnyx_sandbox(propagation=PROPAGATION) as telnyx,
        running_service(telnyx, sqlite, warm_pool_size=50, propagation_seconds=5) as service,
    ):
        for _ in range(6):
            await service.components.upkeep.warm_pool.refill()
        await eventually(lambda: service.components.upkeep.warm_pool.ready == {DEMO_CONNECTION: 50})
        telnyx.clock.advance(PROPAGATION)
        spent = []
        for number in range(50):
            async with LoopClock() as clock:
                answer = await service.issue(f"tab-{number % 5}", user=f"user-{number}")
                async with open_page(telnyx) as phone:
                    heard = await phone.ask("login", login_token=answer.json()["login_token"])
            spent.append(clock.seconds)
            assert answer.status_code == 201
            assert heard["result"]["message"] == "logged in"

    assert sorted(spent)[25] < 0.5


async def test_without_a_pool_a_new_credential_is_rejected_until_propagated(sqlite: str) -> None:
    async with (
        telnyx_sandbox(propagation=timedelta(minutes=1)) as telnyx,
        running_service(telnyx, sqlite, propagation_seconds=60) as service,
    ):
        answer = (await service.issue("laptop")).json()
        async with open_page(telnyx) as phone:
            heard = await phone.ask("login", login_token=answer["login_token"])

    assert "error" in heard
    assert answer["usable_at"] > answer["server_time"]
