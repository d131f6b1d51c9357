"""Sweeps that operators start."""

import asyncio
from datetime import timedelta

from app.vending.models import IssueRequest
from tests.support.sandbox import Telnyx
from tests.support.service import running_components
from tests.support.tokens import principal


async def test_sweep_of_an_operator_starts_after_the_one_in_progress(telnyx: Telnyx, database: str) -> None:
    async with running_components(telnyx, database) as components:
        sweeper = components.upkeep.sweeper
        await components.telephony.issuer.issue(principal(), IssueRequest("laptop"))
        await sweeper.sweep()  # the sweep at the start must not find the lease
        telnyx.clock.advance(timedelta(days=2))
        async with telnyx.held("DELETE", "telephony_credentials") as deletion:
            running = asyncio.create_task(sweeper.sweep())
            await deletion.arrived.wait()
            requested = asyncio.create_task(components.upkeep.sweep_jobs.run(dry_run=False))
            await asyncio.sleep(0.3)
            assert not requested.done()

        assert (await running).deleted == 1
        assert ((await requested).ended, (await requested).due) == (0, [])
        assert telnyx.live() == []
