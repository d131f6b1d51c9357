"""A load generator with several users and devices, and a check of the ledger and the sandbox afterwards."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from app.sandbox.account import StoredCredential
from app.vending.telephony.lease import AWAITING_DELETION, LIVE, LeaseState
from app.vending.telephony.revoke import MAX_RETRY_DELAY
from tests.support.leases import read_leases
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_components
from tests.support.tokens import token
from tests.support.waiting import eventually

PREFIX = "dialtone-"
Device = tuple[str, str]


@dataclass
class LoadGenerator:
    """Users that request logins, log out, and request logins again."""

    clients: list[httpx.AsyncClient]
    rng: random.Random
    users: int = 8
    devices: int = 2
    answers: list[tuple[Device, dict[str, Any]]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    requests: Counter[Device] = field(default_factory=Counter)

    async def run(self, requests: int) -> None:
        """Send concurrent requests; a tenth of them log a user out. Connection errors count as status 0."""
        await asyncio.gather(*(self._one() for _ in range(requests)))

    async def settle(self, seconds: float = 60.0) -> None:
        """Send requests until every device has a login, as clients that honour `retryable` do."""
        deadline = asyncio.get_running_loop().time() + seconds
        waiting = {(f"user-{u}", f"tab-{d}") for u in range(self.users) for d in range(self.devices)}
        while waiting:
            assert asyncio.get_running_loop().time() < deadline, f"{len(waiting)} have no login: {self.statuses}"
            outcomes = {device: await self.ask(device) for device in sorted(waiting)}
            waiting -= {device for device, status in outcomes.items() if status in (200, 201)}
            await asyncio.sleep(0.2 if waiting else 0)

    async def ask(self, device: Device) -> int:
        user, name = device
        self.requests[device] += 1
        headers = {"Authorization": f"Bearer {token(user)}"}
        answer = await self._send("POST", "/v1/telephony-credentials", headers=headers, json={"device_id": name})
        if answer is None:
            return 0
        if answer.is_success:
            self.answers.append((device, answer.json()))
        else:
            assert answer.status_code in (429, 502, 503), answer.text
            assert answer.json()["code"] != "internal_error"
            assert answer.status_code != 503 or 1 <= int(answer.headers["retry-after"]) <= 60
        return answer.status_code

    async def _one(self) -> None:
        device = (f"user-{self.rng.randrange(self.users)}", f"tab-{self.rng.randrange(self.devices)}")
        if self.rng.random() < 0.1:
            headers = {"Authorization": f"Bearer {token(device[0])}"}
            await self._send("DELETE", "/v1/telephony-credentials", headers=headers)
        else:
            await self.ask(device)

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response | None:
        try:
            answer = await self.rng.choice(self.clients).request(method, path, **content)
        except httpx.TransportError:
            self.statuses[0] += 1
            return None
        self.statuses[answer.status_code] += 1
        assert answer.status_code != 500, answer.text
        return answer


async def finish_deletions(telnyx: Telnyx, database: str) -> None:
    """Sweep, with the clock advanced to every retry, until the credentials of all ended leases are deleted."""
    async with running_components(telnyx, database) as components:
        for _ in range(3):
            telnyx.clock.advance(MAX_RETRY_DELAY)
            await components.upkeep.sweeper.sweep()
    left = [row for row in (await read_leases(database)).values() if row.state in AWAITING_DELETION]
    assert left == [], "a deletion that is not confirmed"


async def finish_sweeps(services: Sequence[Service]) -> None:
    """Let running services finish their work, with the clock advanced to every retry of a deletion."""
    for service in services:
        await eventually(lambda: not service.components.telephony.issuer.in_flight)  # noqa: B023 - called at once
    for _ in range(6):
        await asyncio.gather(*(service.components.upkeep.sweeper.sweep() for service in services))
        services[0].clock.advance(MAX_RETRY_DELAY)
    for service in services:
        await eventually(lambda: not service.components.telephony.issuer.in_flight)  # noqa: B023


async def check_invariants(telnyx: Telnyx, database: str, load: LoadGenerator, *, forgets: bool = False) -> None:
    """Compare ledger, sandbox and responses when no request is in flight.

    With `forgets`, rows of ended leases may have been removed.
    """
    before, created = live_credentials(telnyx), created_names(telnyx)  # background tasks may run meanwhile
    rows = await read_leases(database)
    live = {credential_id: item for credential_id, item in live_credentials(telnyx).items() if credential_id in before}
    by_device: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for item in live.values():
        row = rows.get(item.name.removeprefix(PREFIX))
        assert row is not None, f"{item.name} has no row"
        assert row.state in (*LIVE, *AWAITING_DELETION, LeaseState.POOLED), (
            f"{item.name} exists although its lease is {row.state}"
        )
        if row.state is LeaseState.ACTIVE:
            assert row.credential_id == item.id, f"{item.name} has a duplicate"
        if row.state is not LeaseState.POOLED:
            by_device[row.issuer, row.subject, row.device_id].append(item.id)
    assert [found for found in by_device.values() if len(found) > 1] == [], "a device with two live credentials"

    owners: dict[str, str] = {}
    for (user, _), answer in load.answers:
        assert owners.setdefault(answer["sip_username"], user) == user, "one SIP identity for two users"
        row = rows.get(answer["id"])
        if row is None and forgets:
            continue
        assert row is not None, "a response without a row"
        assert row.sip_username == answer["sip_username"], "a response that differs from its row"
        assert row.subject == user, "a row of another user"
        held = live.get(str(row.credential_id))
        if held is not None and row.state is LeaseState.ACTIVE:
            # Expiry times at Telnyx only grow, so no response has a later one than Telnyx has now.
            assert datetime.fromisoformat(answer["expires_at"]) <= held.expires_at, (
                "a response with a later expiry than at Telnyx"
            )

    names = Counter(row.credential_name for row in rows.values())
    assert forgets or set(created) <= set(names), "a create without a row"
    assert max(created.values(), default=0) <= 1, "a repeated create"


def live_credentials(telnyx: Telnyx) -> dict[str, StoredCredential]:
    now = telnyx.clock()
    credentials = telnyx.sandbox.account.credentials.values()
    return {item.id: item for item in credentials if item.name.startswith(PREFIX) and not item.is_expired(now)}


def created_names(telnyx: Telnyx) -> Counter[str]:
    """The names of created credentials, with the number of creates."""
    return Counter(
        str((entry.body or {}).get("name"))
        for entry in telnyx.sandbox.journal.entries
        if (entry.committed or "").startswith("create") and entry.path.endswith("/telephony_credentials")
    )
