"""The device limit as a state machine: one user's devices request logins on two replicas while creates fail.

At every moment, no more leases are live than the limit allows. A device is rejected only while that many are ACTIVE.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from app.vending.errors import AccessDenied, DeviceLimitReached, DialtoneError
from app.vending.models import IssueRequest, Platform
from app.vending.policy import DeviceLimitAction
from app.vending.telephony.lease import LIVE, Lease, LeaseState
from app.vending.telephony.login_cache import Login
from tests.support.databases import fresh_postgres, fresh_sqlite
from tests.support.leases import read_leases
from tests.support.state_machine import CLAIM, CREATE, REPLICAS, ReplicaMachine, run_machine
from tests.support.tokens import principal

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

Device = tuple[str, Platform]
DEVICES = st.sampled_from([*((f"tab-{n}", Platform.BROWSER) for n in range(4)), ("phone", Platform.IOS)])
REQUESTS = st.tuples(DEVICES, REPLICAS)
MANY_FAULTS = st.lists(st.sampled_from(FAULTS), max_size=2)


class DeviceLimits(ReplicaMachine):
    @initialize(action=st.sampled_from([None, *DeviceLimitAction]), limit=st.integers(1, 2))
    def begin(self, action: DeviceLimitAction | None, limit: int) -> None:
        self.action, self.limit = action, limit
        self.run(self.start(max_devices=limit, at_device_limit=action))

    # -- steps --------------------------------------------------------------------------------------------------

    @rule(device=DEVICES, replica=REPLICAS, faults=MANY_FAULTS)
    def ask(self, device: Device, replica: int, faults: list[dict[str, Any]]) -> None:
        (outcome,) = self.run(self._ask([(device, replica)], faults))
        if isinstance(outcome, DeviceLimitReached):
            active = [lease for lease in self.run(self._live()) if lease.state is LeaseState.ACTIVE]
            assert len(active) >= self.limit
            assert not self._is_replaceable(device, active)

    @rule(requests=st.lists(REQUESTS, min_size=2, max_size=5, unique_by=lambda request: request[0]), faults=MANY_FAULTS)
    def ask_at_once(self, requests: list[tuple[Device, int]], faults: list[dict[str, Any]]) -> None:
        outcomes = self.run(self._ask(requests, faults))
        refused = [outcome for outcome in outcomes if isinstance(outcome, DeviceLimitReached)]
        assert not (refused and self.action is DeviceLimitAction.EVICT_OLDEST)
        if refused and self.action is DeviceLimitAction.REJECT:  # nothing ends an ACTIVE lease meanwhile
            assert sum(lease.state is LeaseState.ACTIVE for lease in self.run(self._live())) >= self.limit

    @rule(device=DEVICES, replica=REPLICAS, after_commit=st.booleans(), is_claim_over=st.booleans())
    def crash_in_a_create(self, device: Device, replica: int, *, after_commit: bool, is_claim_over: bool) -> None:
        self.run(self.crash(replica, partial(self._issue, device), after_commit=after_commit))
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
        if self.is_started:
            assert len(self.run(self._live())) <= self.limit

    # -- helpers ------------------------------------------------------------------------------------------------

    async def _ask(
        self, requests: list[tuple[Device, int]], faults: list[dict[str, Any]]
    ) -> list[Login | DialtoneError]:
        """Send the requests at once. They return a login or an error that a client can handle."""
        await self.poll_changes()
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

    async def check_after_faults(self) -> None:
        """A new device is rejected only as the policy says, and ended credentials are deleted."""
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
        await self.delete_ended()
        rows = await read_leases(self.database)
        standing = {row.credential_id for row in rows.values() if row.state is LeaseState.ACTIVE}
        assert set(self.telnyx.live()) <= standing, "a credential without a lease"


def test_device_limit_holds_for_any_order_of_events_on_sqlite(tmp_path: Path) -> None:
    run_machine(DeviceLimits, fresh_sqlite(tmp_path), tmp_path, max_examples=12, max_steps=20)


def test_device_limit_holds_for_any_order_of_events_on_postgresql(postgres_server: str, tmp_path: Path) -> None:
    run_machine(DeviceLimits, fresh_postgres(postgres_server), tmp_path, max_examples=12, max_steps=20)
