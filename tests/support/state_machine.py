"""The base of state machines: two replicas with one ledger and one sandbox. Either may crash during a create."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from app.composition.build import build_components
from app.composition.components import Components, Overrides
from app.vending.single_flight import TASK_NAME
from app.vending.telephony.revoke import MAX_RETRY_DELAY
from tests.support.databases import FreshDatabase
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import settings_for
from tests.support.waiting import eventually

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
"""`make faults` draws hundreds of random examples; otherwise the same few run each time."""

CALL_SECONDS = 0.4
CLAIM = timedelta(seconds=CALL_SECONDS + 4)
"""After this time the claim of a killed replica has expired."""

CREATE = {"method": "POST", "path": "telephony_credentials$"}
REPLICAS = st.sampled_from([0, 1])

Result = TypeVar("Result")


class ReplicaMachine(RuleBasedStateMachine):
    """Subclasses define the steps, and call `start` in their first one."""

    fresh_database: FreshDatabase
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.is_started = False

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    async def start(self, **changes: Any) -> None:
        """Start both replicas, with an empty database and these settings."""
        self.changes = changes
        self.stack = AsyncExitStack()
        self.database = await type(self).fresh_database(self.folder)
        self.telnyx: Telnyx = await self.stack.enter_async_context(telnyx_sandbox())
        self.components = [self._replica(), self._replica()]
        self.is_started = True

    def _replica(self) -> Components:
        wanted = settings_for(
            self.telnyx.url, self.database, telnyx_call_seconds=CALL_SECONDS, retention_days=3650, **self.changes
        )
        return build_components(wanted, Overrides(self.telnyx.clock, jitter=lambda: 0.5))

    async def poll_changes(self) -> None:
        """Poll at both replicas, as a running service does every second."""
        for components in self.components:
            await components.upkeep.change_poller.poll()

    async def crash(
        self, replica: int, request: Callable[[int], Coroutine[Any, Any, object]], *, after_commit: bool
    ) -> None:
        """Replace a replica while its call to Telnyx for this request hangs."""
        calls = len(self.telnyx.calls("POST"))
        self.telnyx.fail("hang", **CREATE, after_commit=after_commit)
        asking = asyncio.create_task(request(replica))
        await eventually(lambda: asking.done() or len(self.telnyx.calls("POST")) > calls)
        for task in asyncio.all_tasks():
            if task.get_name() == TASK_NAME:
                task.cancel()  # as in a process that was killed: nothing continues, nothing is cleaned up
        await asyncio.gather(asking, return_exceptions=True)
        await _close(self.components[replica])
        self.components[replica] = self._replica()
        self.telnyx.sandbox.faults.plans.clear()

    async def delete_ended(self) -> None:
        """Sweep until every deletion was retried."""
        for _ in range(4):
            await asyncio.gather(*(components.upkeep.sweeper.sweep() for components in self.components))
            self.telnyx.clock.advance(MAX_RETRY_DELAY)

    async def check_after_faults(self) -> None:
        """Called at the end, when Telnyx works again."""
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            if self.is_started:
                self.run(self.check_after_faults())
        finally:
            if self.is_started:
                self.run(self._stop())
            self.runner.close()

    async def _stop(self) -> None:
        for components in self.components:
            await _close(components)
        await self.stack.aclose()


async def _close(components: Components) -> None:
    async with components.open():
        pass


def run_machine(
    machine: type[ReplicaMachine], fresh: FreshDatabase, folder: Path, *, max_examples: int, max_steps: int
) -> None:
    """Run examples of the machine, each with a new database. EXAMPLES overrides `max_examples`."""
    kind = type(f"{machine.__name__}Here", (machine,), {"fresh_database": staticmethod(fresh), "folder": folder})
    wanted = settings(
        max_examples=EXAMPLES or max_examples,
        derandomize=not EXAMPLES,
        stateful_step_count=max_steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(kind, settings=wanted)
