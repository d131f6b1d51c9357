"""Leases as a state machine: any order of events on two replicas keeps the invariants.

Hypothesis draws the steps: devices request logins, on one replica or on both at once, and log out; time passes; leases
expire; the pool is filled and claimed; sweepers run; Telnyx fails, responds late or loses a credential; a replica
crashes during a create.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from app.vending.errors import DialtoneError, LeaseEnded, LeaseNotFound, TelnyxRateLimited, TelnyxUnreachable
from app.vending.models import IssueRequest
from app.vending.telephony.lease import LIVE, Lease, LeaseState
from app.vending.telephony.login_cache import Login
from tests.support.databases import fresh_postgres, fresh_sqlite
from tests.support.leases import read_leases
from tests.support.load import PREFIX, LoadGenerator, check_invariants
from tests.support.state_machine import CLAIM, CREATE, REPLICAS, ReplicaMachine, Result, run_machine
from tests.support.tokens import principal
from tests.support.waiting import DAY, HOUR

MARGIN = timedelta(seconds=10)
"""A lease this close to its expiry may already have been replaced."""

FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500, **CREATE},
    {"kind": "status", "status": 500, "after_commit": True, **CREATE},
    {"kind": "drop", "after_commit": True, **CREATE},
    {"kind": "hang", "after_commit": True, **CREATE},
    {"kind": "status", "status": 422, **CREATE},
    {"kind": "status", "status": 500, "method": "POST", "path": "/token$"},
    {"kind": "status", "status": 500, "method": "PATCH"},
    {"kind": "drop", "after_commit": True, "method": "PATCH"},
    {"kind": "status", "status": 500, "method": "DELETE", "times": 4},
    {"kind": "drop", "after_commit": True, "method": "DELETE"},
    {"kind": "status", "status": 500, "method": "GET", "times": 4},
]

Device = tuple[str, str]
DEVICES = st.tuples(st.sampled_from(["alice", "bob"]), st.sampled_from(["tab-1", "tab-2"]))
TIMES = st.sampled_from([timedelta(seconds=10), timedelta(minutes=11), 12 * HOUR, 20 * HOUR, 2 * DAY, 8 * DAY])


@dataclass
class Held:
    """The model's state of a device that got a login and was not logged out since."""

    lease: Lease
    may_change: bool = False
    """The credential was deleted at Telnyx, or a fault left its state unknown."""


class LifeCycle(ReplicaMachine):
    def __init__(self) -> None:
        super().__init__()
        self.held: dict[Device, Held] = {}
        self.dead: set[str] = set()
        """SIP identities of logged-out devices, which must never be issued again."""
        self.given: list[tuple[Device, dict[str, Any]]] = []

    @initialize()
    def begin(self) -> None:
        self.run(self.start(warm_pool_size=1))

    # -- steps --------------------------------------------------------------------------------------------------

    @rule(device=DEVICES, replica=REPLICAS)
    def ask(self, device: Device, replica: int) -> None:
        self.run(self._ask(device, replica))

    @rule(device=DEVICES)
    def ask_both_replicas_at_once(self, device: Device) -> None:
        async def both() -> None:
            is_open = (
                device in self.held and self.held[device].may_change
            )  # one replica may know of the change, the other not
            first, second = await asyncio.gather(self._ask(device, 0), self._ask(device, 1))
            assert is_open or first.lease.sip_username == second.lease.sip_username

        self.run(both())

    @rule(device=DEVICES, replica=REPLICAS, faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=2))
    def ask_while_telnyx_fails(self, device: Device, replica: int, faults: list[dict[str, Any]]) -> None:
        for fault in faults:
            self.telnyx.fail(**fault)
        try:
            self.run(self._ask(device, replica))
        except DialtoneError:
            if device in self.held:
                self.held[device].may_change = True
        self.telnyx.sandbox.faults.plans.clear()
        # Hanging calls have timed out, and any Retry-After has passed.
        self.telnyx.clock.advance(CLAIM)

    @rule(device=DEVICES, replica=REPLICAS)
    def log_out(self, device: Device, replica: int) -> None:
        if (held := self.held.pop(device, None)) is not None:
            self.run(self._log_out(device, held, replica))

    @rule(device=DEVICES)
    def log_out_while_the_other_replica_is_asked(self, device: Device) -> None:
        async def race() -> None:
            held = self.held.get(device)
            if held is None:
                return
            await asyncio.gather(self._log_out(device, held, 0), self._issue(device, 1), return_exceptions=True)
            await self.poll_changes()
            live = await self._live(device)
            self.held.pop(device)
            if live is not None:
                self.held[device] = Held(live, may_change=live.state is LeaseState.PENDING)

        self.run(race())

    @rule(user=st.sampled_from(["alice", "bob"]), replica=REPLICAS)
    def log_out_everywhere(self, user: str, replica: int) -> None:
        async def everywhere() -> None:
            await self.components[replica].telephony.revoker.revoke_all(principal(user))
            await self.components[1 - replica].upkeep.change_poller.poll()

        self.run(everywhere())
        for device in [device for device in self.held if device[0] == user]:
            self._is_dead(self.held.pop(device).lease)

    @rule(device=DEVICES)
    def credential_is_deleted_at_telnyx(self, device: Device) -> None:
        if device in self.held:
            self.telnyx.sandbox.account.credentials.pop(str(self.held[device].lease.credential_id), None)
            self.held[device].may_change = True

    @rule(step=TIMES)
    def time_passes(self, step: timedelta) -> None:
        self.telnyx.clock.advance(step)
        self.run(self.poll_changes())

    @rule(replica=REPLICAS)
    def sweep(self, replica: int) -> None:
        self.run(self.components[replica].upkeep.sweeper.sweep())

    @rule()
    def both_sweep_at_once(self) -> None:
        async def both() -> None:
            await asyncio.gather(*(components.upkeep.sweeper.sweep() for components in self.components))

        self.run(both())

    @rule(replica=REPLICAS, device=DEVICES)
    def sweep_while_a_device_asks(self, replica: int, device: Device) -> None:
        async def both() -> None:
            await asyncio.gather(self.components[replica].upkeep.sweeper.sweep(), self._ask(device, 1 - replica))

        self.run(both())

    @rule(replica=REPLICAS)
    def refill_the_pool(self, replica: int) -> None:
        self.run(retry(self.components[replica].upkeep.warm_pool.refill))

    @rule(replica=REPLICAS)
    def reconcile(self, replica: int) -> None:
        found = self.run(retry(lambda: self.components[replica].upkeep.reconciler.reconcile(deletes=True)))
        for orphan in found.orphans:
            assert not any(orphan.credential_id == held.lease.credential_id for held in self.held.values())

    @rule(device=DEVICES, replica=REPLICAS, after_commit=st.booleans())
    def crash_in_a_create(self, device: Device, replica: int, *, after_commit: bool) -> None:
        self.run(self.crash(replica, partial(self._issue, device), after_commit=after_commit))
        self.telnyx.clock.advance(CLAIM)

    # -- invariants ---------------------------------------------------------------------------------------------

    @invariant()
    def every_credential_is_written_down_and_made_once(self) -> None:
        if not self.is_started:
            return
        rows = self.run(read_leases(self.database))
        names = [item.name for item in self.telnyx.sandbox.account.credentials.values()]
        assert {name.removeprefix(PREFIX) for name in names} <= set(rows), "a credential without a row"
        assert len(names) == len(set(names)), "two credentials of one name"
        alive = {row.sip_username for row in rows.values() if row.state in (*LIVE, LeaseState.POOLED)}
        assert not alive & self.dead, "the SIP identity of a logged-out device was issued again"

    # -- helpers ------------------------------------------------------------------------------------------------

    async def _issue(self, device: Device, replica: int) -> Login:
        user, name = device
        return await self.components[replica].telephony.issuer.issue(principal(user), IssueRequest(name))

    async def _ask(self, device: Device, replica: int) -> Login:
        await self.components[replica].upkeep.change_poller.poll()  # a running service does this every second
        before = self.held.get(device)
        login = await retry(lambda: self._issue(device, replica), 0 if self.telnyx.sandbox.faults.plans else 5)
        username = str(login.lease.sip_username)
        assert username not in self.dead, "a login of a device that was logged out"
        assert login.expires_at > self.telnyx.clock()
        if before and not before.may_change and not before.lease.has_expired(self.telnyx.clock() + MARGIN):
            assert username == before.lease.sip_username, "the SIP identity is kept"
        # A cached login does not show the state of its credential at Telnyx.
        is_open = before is not None and before.may_change and before.lease.sip_username == username
        self.held[device] = Held(login.lease, is_open)
        answer = {"id": login.lease.id, "sip_username": username, "expires_at": login.expires_at.isoformat()}
        self.given.append((device, answer))
        return login

    async def _log_out(self, device: Device, held: Held, replica: int) -> None:
        with suppress(LeaseNotFound, LeaseEnded):  # the lease ended long ago and its row was removed
            await self.components[replica].telephony.revoker.revoke(principal(device[0]), held.lease.id)
        await self.components[1 - replica].upkeep.change_poller.poll()
        self._is_dead(held.lease)

    def _is_dead(self, lease: Lease) -> None:
        self.dead.add(str(lease.sip_username))

    async def _live(self, device: Device) -> Lease | None:
        rows = (await read_leases(self.database)).values()
        mine = [row for row in rows if (row.subject, row.device_id) == device and row.state in LIVE]
        assert len(mine) <= 1, "a device with two live leases"
        return mine[0] if mine else None

    async def check_after_faults(self) -> None:
        """Every device gets a login, ended credentials are deleted, and no others exist at Telnyx."""
        await self.poll_changes()
        for device in list(self.held):
            await self._ask(device, 0)
        await self.delete_ended()
        await check_invariants(self.telnyx, self.database, LoadGenerator([], random.Random(0)))  # noqa: S311 - not used
        rows = await read_leases(self.database)
        now = self.telnyx.clock()
        standing = {row.credential_id for row in rows.values() if row.state in (LeaseState.ACTIVE, LeaseState.POOLED)}
        living = {i.id for i in self.telnyx.sandbox.account.credentials.values() if not i.is_expired(now)}
        assert living <= standing, "a credential without a lease"
        for (user, _), answer in self.given:
            row = rows.get(answer["id"])
            assert row is None or row.subject == user, "a row of another user"


async def retry(work: Callable[[], Awaitable[Result]], seconds: float = 5) -> Result:
    """Retry as a client does, for example while the circuit breaker is open."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await work()
        except (TelnyxUnreachable, TelnyxRateLimited):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)


def test_any_order_of_events_keeps_the_invariants_on_sqlite(tmp_path: Path) -> None:
    run_machine(LifeCycle, fresh_sqlite(tmp_path), tmp_path, max_examples=8, max_steps=30)


def test_any_order_of_events_keeps_the_invariants_on_postgresql(postgres_server: str, tmp_path: Path) -> None:
    run_machine(LifeCycle, fresh_postgres(postgres_server), tmp_path, max_examples=8, max_steps=30)
