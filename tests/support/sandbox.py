"""The Telnyx sandbox behind a real socket, with access to its state."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.sandbox.account import DEMO_CONNECTION, Account, Clock
from app.sandbox.rest import TelnyxSandbox
from tests.support.http_server import serve


@dataclass
class HeldCall:
    """A call without a response so far. With `after_commit`, it is executed at once, otherwise before the response."""

    method: str
    path: str
    after_commit: bool
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def is_for(self, scope: Scope) -> bool:
        return (
            not self.arrived.is_set() and scope["method"] == self.method and bool(re.search(self.path, scope["path"]))
        )


class HoldingSandbox:
    """The sandbox behind a gate for single calls."""

    def __init__(self, sandbox: TelnyxSandbox) -> None:
        self._sandbox = sandbox
        self.held: list[HeldCall] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = next((call for call in self.held if call.is_for(scope)), None) if scope["type"] == "http" else None
        if call is None:
            await self._sandbox(scope, receive, send)
            return
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        if call.after_commit:
            await self._sandbox(scope, receive, keep)
        call.arrived.set()
        await call.released.wait()
        if not call.after_commit:
            await self._sandbox(scope, receive, keep)
        for message in messages:
            await send(message)


@dataclass
class Telnyx:
    """The sandbox's URL and its state."""

    sandbox: TelnyxSandbox
    url: str
    gate: HoldingSandbox

    @property
    def clock(self) -> Clock:
        return self.sandbox.clock

    def live(self) -> list[str]:
        """Ids of the credentials that exist and have not expired."""
        now = self.clock()
        return [item.id for item in self.sandbox.account.credentials.values() if not item.is_expired(now)]

    def calls(self, method: str = "", path: str = "") -> list[str]:
        """Received calls on credentials, as `METHOD /path`."""
        entries = self.sandbox.journal.entries
        return [
            f"{entry.method} {entry.path}"
            for entry in entries
            if entry.path.startswith("/v2/telephony_credentials")
            and entry.method.startswith(method)
            and path in entry.path
        ]

    def created(self) -> int:
        """Number of committed creates, with or without a response."""
        return sum((entry.committed or "").startswith("create") for entry in self.sandbox.journal.entries)

    def limit_outbound(self, connection_id: str = DEMO_CONNECTION, **fields: Any) -> None:
        """Give the connection a new outbound voice profile with these fields."""
        profile_id = self.sandbox.billing.add_outbound_profile(**fields)
        self.sandbox.account.connections[connection_id]["outbound"] = {"outbound_voice_profile_id": profile_id}

    def lookups(self) -> int:
        """Number of received requests for a registration status."""
        return sum(entry.path == "/v2/sip_registration_status" for entry in self.sandbox.journal.entries)

    def fail(self, kind: str, **plan: Any) -> None:
        from app.sandbox.faults import Fault

        self.sandbox.faults.plans.append(Fault.from_json({"kind": kind, **plan}))

    @asynccontextmanager
    async def held(self, method: str, path: str, *, after_commit: bool = False) -> AsyncIterator[HeldCall]:
        """The next such call gets its response when the context ends."""
        call = HeldCall(method, path, after_commit)
        self.gate.held.append(call)
        try:
            yield call
        finally:
            self.gate.held.remove(call)
            call.released.set()


@asynccontextmanager
async def telnyx_sandbox(**options: Any) -> AsyncIterator[Telnyx]:
    clock = Clock()
    account = Account(clock)
    account.add_demo_connection()
    sandbox = TelnyxSandbox(account, clock, **options)
    gate = HoldingSandbox(sandbox)
    async with serve(gate) as base:
        yield Telnyx(sandbox, f"{base}/v2", gate)
