"""A crowd of users on several devices, what they were answered, and the checker of what must hold afterwards."""

import asyncio
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.tables import lease_of, leases
from app.vending.telephony.lease import LEFTOVER, LIVE, Lease, State
from tests.stage import Telnyx, token

PREFIX = "dialtone-"
Device = tuple[str, str]


@dataclass
class Crowd:
    """Users who ask for logins, log out, and ask again."""

    clients: list[httpx.AsyncClient]
    chance: random.Random
    users: int = 8
    devices: int = 2
    answers: list[tuple[Device, dict[str, Any]]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    asked: Counter[Device] = field(default_factory=Counter)

    async def rush(self, requests: int) -> None:
        """That many requests at once; a few of them log somebody out. What the network breaks is no answer."""
        await asyncio.gather(*(self._one() for _ in range(requests)))

    async def settle(self, seconds: float = 20.0) -> None:
        """Every device asks until it has a login, as a client that honours `retryable` does. AssertionError if not."""
        deadline = asyncio.get_running_loop().time() + seconds
        waiting = {(f"user-{u}", f"tab-{d}") for u in range(self.users) for d in range(self.devices)}
        while waiting:
            assert asyncio.get_running_loop().time() < deadline, f"{len(waiting)} have no login: {self.statuses}"
            outcomes = {device: await self.ask(device) for device in sorted(waiting)}
            waiting -= {device for device, status in outcomes.items() if status in (200, 201)}
            await asyncio.sleep(0.2 if waiting else 0)

    async def ask(self, device: Device) -> int:
        user, name = device
        self.asked[device] += 1
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
        device = (f"user-{self.chance.randrange(self.users)}", f"tab-{self.chance.randrange(self.devices)}")
        if self.chance.random() < 0.1:
            headers = {"Authorization": f"Bearer {token(device[0])}"}
            await self._send("DELETE", "/v1/telephony-credentials", headers=headers)
        else:
            await self.ask(device)

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response | None:
        try:
            answer = await self.chance.choice(self.clients).request(method, path, **content)
        except httpx.TransportError:
            self.statuses[0] += 1
            return None
        self.statuses[answer.status_code] += 1
        assert answer.status_code != 500, answer.text
        return answer


async def rows_of(database: str) -> dict[str, Lease]:
    engine = open_engine(database_url(database))
    rows = await Database(engine).rows(sa.select(leases))
    await engine.dispose()
    return {lease.id: lease for lease in map(lease_of, rows)}


async def check(telnyx: Telnyx, database: str, crowd: Crowd, *, forgets: bool = False) -> None:
    """I1 to I7 over ledger, sandbox and answers, once things are quiet. AssertionErrors name the invariant.

    With `forgets`, rows of what ended may have been removed meanwhile.
    """
    rows = await rows_of(database)
    now = telnyx.clock()
    live = {
        item.id: item
        for item in telnyx.sandbox.account.credentials.values()
        if item.name.startswith(PREFIX) and not item.is_expired(now)
    }
    by_device: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for item in live.values():
        row = rows.get(item.name.removeprefix(PREFIX))
        assert row is not None, f"I1: {item.name} has no row"
        assert row.state in (*LIVE, *LEFTOVER, State.POOLED), f"I4: {item.name} lives though its lease is {row.state}"
        if row.state is State.ACTIVE:
            assert row.credential_id == item.id, f"I2: {item.name} has a twin"
        if row.state is not State.POOLED:
            by_device[row.issuer, row.subject, row.device_id].append(item.id)
    assert [found for found in by_device.values() if len(found) > 1] == [], "I2: a device with two live credentials"

    owners: dict[str, str] = {}
    for (user, _), answer in crowd.answers:
        assert owners.setdefault(answer["sip_username"], user) == user, "I7: one identity for two users"
        row = rows.get(answer["id"])
        if row is None and forgets:
            continue
        assert row is not None, "I3: an answer without a row"
        assert row.sip_username == answer["sip_username"], "I3: an answer that its row does not bear out"
        assert row.subject == user, "I7: somebody else's"
        held = live.get(str(row.credential_id))
        if held is not None and row.state is State.ACTIVE:
            # What Telnyx keeps only grows, so an answer is never later than what it keeps now.
            assert datetime.fromisoformat(answer["expires_at"]) <= held.expires_at, "I5: promised more than is kept"

    names = Counter(row.credential_name for row in rows.values())
    created = Counter(
        str((entry.body or {}).get("name"))
        for entry in telnyx.sandbox.journal.entries
        if (entry.committed or "").startswith("create") and entry.path.endswith("/telephony_credentials")
    )
    assert forgets or set(created) <= set(names), "I1: a create that was not written down before"
    assert max(created.values(), default=0) <= 1, "I6: a create that was repeated"
