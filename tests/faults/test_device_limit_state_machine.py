"""The device limit as a state machine: one user's devices request logins on two replicas while creates fail.

At every moment, no more leases are live than the limit allows. A device is rejected only while that many are ACTIVE.
"""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.composition.build import build_components
from app.composition.components import Components, Overrides
from app.vending.errors import AccessDenied, DeviceLimitReached, DialtoneError
from app.vending.models import IssueRequest, Platform
from app.vending.policy import DeviceLimitAction
from app.vending.single_flight import TASK_NAME
from app.vending.telephony.lease import LIVE, Lease, LeaseState
from app.vending.telephony.login_cache import Login
from app.vending.telephony.revoke import MAX_RETRY_DELAY
from tests.support.databases import FreshDatabase, fresh_postgres, fresh_sqlite
from tests.support.leases import read_leases
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import settings_for
from tests.support.tokens import principal
from tests.support.waiting import eventually

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
"""`make faults` draws hundreds of random examples; otherwise the same few run each time."""

CALL_SECONDS = 0.4
CLAIM = timedelta(seconds=CALL_SECONDS + 4)
"""After this time the claim of a killed replica has expired."""

CREATE = {"method": "POST", "path": "telephony_credentials$"}
FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 503, **CREATE},
    {"kind": "status", "status": 503, "after_commit": True, **CREATE},
    {"kind": "drop", "after_commit": True, **CREATE},
    {"kind": "drop", **CREATE},
    {"kind": "hang", "after_commit": True, **CREATE},
    {"kind": "delay", "seconds": 0.2, **CREATE},
    {"kind": "delay", "seconds": 0.2, "after_commit": True, **CREATE},
    {"kind": "status", "status": 500, "method": "POST", "path": "/token$"},
    {"kind": "status", "status": 500, "method": "GET", "times": 4},
    {"kind": "status", "status": 500, "method": "DELETE", "times": 4},
]

Result = TypeVar("Result")
Device = tuple[str, Platform]
DEVICES = st.sampled_from([*((f"tab-{n}", Platform.BROWSER) for n in range(4)), ("phone", Platform.IOS)])
REPLICAS = st.sampled_from([0, 1])
REQUESTS = st.tuples(DEVICES, REPLICAS)
MANY_FAULTS = st.lists(st.sampled_from(FAULTS), max_size=2)


class DeviceLimits(RuleBasedStateMachine):
    """Subclasses define how to get an empty database."""

    fresh_database: FreshDatabase
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    @initialize(action=st.sampled_from([None, *DeviceLimitAction]), limit=st.integers(1, 2))
    def begin(self, action: DeviceLimitAction | None, limit: int) -> None:
        self.action, self.limit = action, limit
        self.run(self._begin())

    async def _begin(self) -> None:
        self.stack = AsyncExitStack()
        self.database = await type(self).fresh_database(self.folder)
        self.telnyx: Telnyx = await self.stack.enter_async_context(telnyx_sandbox())
        self.components = [self._replica(), self._replica()]

    def _replica(self) -> Components:
        wanted = settings_for(
            self.telnyx.url,
            self.database,
            max_devices=self.limit,
            at_device_limit=self.action,
            telnyx_call_seconds=CALL_SECONDS,
            retention_days=3650,
        )
        return build_components(wanted, Overrides(self.telnyx.clock, jitter=lambda: 0.5))

    # -- steps --------------------------------------------------------------------------------------------------

    @rule(device=DEVICES, replica=REPLICAS, faults=MANY_FAULTS)
    def ask(self, device: Device, replica: int, faults: list[dict[str, Any]]) -> None:
        (outcome,) = self.run(self._ask([(device, replica)], faults))
        if isinstance(outcome, DeviceLimitReached):
            active = [lease for lease in self.run(self._live()) if lease.state is LeaseState.ACTIVE]
            assert len(active) >= self.limit, "I10"
            assert not self._is_replaceable(device, active)

    @rule(requests=st.lists(REQUESTS, min_size=2, max_size=5, unique_by=lambda request: request[0]), faults=MANY_FAULTS)
    def ask_at_once(self, requests: list[tuple[Device, int]], faults: list[dict[str, Any]]) -> None:
        outcomes = self.run(self._ask(requests, faults))
        refused = [outcome for outcome in outcomes if isinstance(outcome, DeviceLimitReached)]
        assert not (refused and self.action is DeviceLimitAction.EVICT_OLDEST), "I10"
        if refused and self.action is DeviceLimitAction.REJECT:  # nothing ends an ACTIVE lease meanwhile
            assert sum(lease.state is LeaseState.ACTIVE for lease in self.run(self._live())) >= self.limit, "I10"

    @rule(device=DEVICES, replica=REPLICAS, after_commit=st.booleans(), is_claim_over=st.booleans())
    def crash_in_a_create(self, device: Device, replica: int, *, after_commit: bool, is_claim_over: bool) -> None:
        self.run(self._crash(device, replica, after_commit=after_commit))
        if is_claim_over:
            self.telnyx.clock.advance(CLAIM)

    @rule(replica=REPLICAS)
    def log_out_everywhere(self, replica: int) -> None:
        with suppress(DialtoneError):
            self.run(self.components[replica].telephony.revoker.revoke_all(principal()))

    @rule(replica=REPLICAS)
    def sweep(self, replica: int) -> None:
        self.run(self.components[replica].upkeep.sweeper.sweep())

    @rule(step=st.sampled_from([timedelta(seconds=10), timedelta(minutes=11), timedelta(hours=12)]))
    def time_passes(self, step: timedelta) -> None:
        self.telnyx.clock.advance(step)

    # -- invariants ---------------------------------------------------------------------------------------------

    @invariant()
    def limit_is_kept(self) -> None:
        if hasattr(self, "components"):
            assert len(self.run(self._live())) <= self.limit

    def teardown(self) -> None:
        try:
            if hasattr(self, "components"):
                self.run(self._settle())
        finally:
            if hasattr(self, "stack"):
                self.run(self._close())
            self.runner.close()

    # -- helpers ------------------------------------------------------------------------------------------------

    async def _ask(
        self, requests: list[tuple[Device, int]], faults: list[dict[str, Any]]
    ) -> list[Login | DialtoneError]:
        """Send the requests at once. They return a login or an error that a client can handle."""
        for components in self.components:
            await components.upkeep.change_poller.poll()  # a running service does this every second
        for fault in faults:
            self.telnyx.fail(**fault)
        asking = asyncio.gather(*(self._issue(*request) for request in requests), return_exceptions=True)
        while not asking.done():
            assert len(await self._live()) <= self.limit
            await asyncio.sleep(0.02)
        outcomes = []
        for outcome in await asking:
            assert isinstance(outcome, Login | DialtoneError), repr(outcome)
            assert not isinstance(outcome, AccessDenied) or isinstance(outcome, DeviceLimitReached)
            outcomes.append(outcome)
        for components in self.components:
            await components.telephony.issuer.drain()
        self.telnyx.sandbox.faults.plans.clear()
        return outcomes

    async def _issue(self, device: Device, replica: int) -> Login:
        return await self.components[replica].telephony.issuer.issue(principal(), IssueRequest(*device))

    async def _live(self) -> list[Lease]:
        now = self.telnyx.clock()
        rows = (await read_leases(self.database)).values()
        return [lease for lease in rows if lease.state in LIVE and not lease.has_expired(now)]

    def _is_replaceable(self, device: Device, active: list[Lease]) -> bool:
        """Whether the policy lets the device replace one of these."""
        if self.action is None:
            is_browser = device[1] is Platform.BROWSER
            return is_browser and sum(lease.platform is not Platform.BROWSER for lease in active) < self.limit
        return self.action is DeviceLimitAction.EVICT_OLDEST

    async def _crash(self, device: Device, replica: int, *, after_commit: bool) -> None:
        calls = len(self.telnyx.calls("POST"))
        self.telnyx.fail("hang", **CREATE, after_commit=after_commit)
        asking = asyncio.create_task(self._issue(device, replica))
        await eventually(lambda: asking.done() or len(self.telnyx.calls("POST")) > calls, 10)
        components = self.components[replica]
        for task in asyncio.all_tasks():
            if task.get_name() == TASK_NAME:
                task.cancel()  # as in a process that was killed: nothing continues, nothing is cleaned up
        await asyncio.gather(asking, return_exceptions=True)
        async with components.open():
            pass
        self.components[replica] = self._replica()
        self.telnyx.sandbox.faults.plans.clear()

    async def _settle(self) -> None:
        """After all faults: a new device is rejected only as the policy says, and ended credentials are deleted."""
        self.telnyx.clock.advance(CLAIM)
        device = ("new", Platform.BROWSER)
        for _ in range(20):
            (outcome,) = await self._ask([(device, 0)], [])
            if isinstance(outcome, Login | DeviceLimitReached):
                break
            await asyncio.sleep(0.3)  # the circuit breaker is open
        live = await self._live()
        active = [lease for lease in live if lease.state is LeaseState.ACTIVE]
        if isinstance(outcome, Login):
            assert any(lease.device_id == "new" for lease in active)
        else:
            assert isinstance(outcome, DeviceLimitReached), repr(outcome)
            assert len(active) >= self.limit
            assert not self._is_replaceable(device, active)
        self.telnyx.clock.advance(timedelta(minutes=11))
        for _ in range(4):
            await asyncio.gather(*(components.upkeep.sweeper.sweep() for components in self.components))
            self.telnyx.clock.advance(MAX_RETRY_DELAY)
        rows = await read_leases(self.database)
        standing = {row.credential_id for row in rows.values() if row.state is LeaseState.ACTIVE}
        assert set(self.telnyx.live()) <= standing, "a credential without a lease"

    async def _close(self) -> None:
        for components in self.components:
            async with components.open():
                pass
        await self.stack.aclose()


def machine(fresh: FreshDatabase, folder: Path) -> type[DeviceLimits]:
    return type("DeviceLimitsHere", (DeviceLimits,), {"fresh_database": staticmethod(fresh), "folder": folder})


RUN = settings(
    max_examples=EXAMPLES or 12,
    derandomize=not EXAMPLES,
    stateful_step_count=20,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_device_limit_holds_for_any_order_of_events_on_sqlite(tmp_path: Path) -> None:
    run_state_machine_as_test(machine(fresh_sqlite(tmp_path), tmp_path), settings=RUN)


def test_device_limit_holds_for_any_order_of_events_on_postgresql(postgres_server: str, tmp_path: Path) -> None:
    run_state_machine_as_test(machine(fresh_postgres(postgres_server), tmp_path), settings=RUN)
