"""The service behind a real socket, connected to the sandbox."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from app.composition.build import build_components
from app.composition.components import Components, Overrides
from app.config.settings import Settings
from app.config.variables import Variables
from app.main import build_server_app
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY, Clock
from app.serving.admission import ConnectionLimiter
from app.vending.ids import new_id
from app.vending.telephony.presence import LOOKUP_SECONDS
from tests.support.databases import migrate_database
from tests.support.http_server import http_client, serve
from tests.support.sandbox import Telnyx
from tests.support.tokens import AUDIENCE, ISSUER, pem, token


@dataclass
class Service:
    """The service behind a real socket, and a client that sends requests as any user."""

    url: str
    client: httpx.AsyncClient
    telnyx: Telnyx
    clock: Clock
    app: "RequestCounter" = field(repr=False)
    limiter: ConnectionLimiter = field(repr=False)
    components: Components = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    async def ask(self, method: str, path: str = "", *, user: str = "alice", **content: Any) -> httpx.Response:
        """Send a request below /v1/telephony-credentials."""
        headers = {"Authorization": f"Bearer {token(user)}"} | content.pop("headers", {})
        return await self.client.request(method, f"/v1/telephony-credentials{path}", headers=headers, **content)

    async def issue(self, device: str = "laptop", *, user: str = "alice", **wishes: Any) -> httpx.Response:
        return await self.ask("POST", user=user, json={"device_id": device, **wishes})

    async def issue_with_retries(self, device: str, **wishes: Any) -> httpx.Response:
        """Retry as a client does. A refusal that is not retryable ends the retries."""
        for _ in range(40):
            answer = await self.issue(device, **wishes)
            if answer.status_code != 503:
                break
            assert answer.json()["retryable"]
            assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.2)
        return answer


def settings_for(telnyx_url: str, database: str, **changes: Any) -> Settings:
    """Settings for a test; a change to `...` removes a setting."""
    wanted = {
        "telnyx_api_key": DEMO_KEY,
        "telnyx_connection_id": DEMO_CONNECTION,
        "telnyx_base_url": telnyx_url,
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "issuer_pem": pem(),
        "database_url": database,
        "warm_pool_size": 0,
        "cors_origins": "https://app.example.com",
    } | changes
    given = {name: value for name, value in wanted.items() if value is not ...}
    return Settings.load(Variables(dict(os.environ), {}, ""), **given)


@asynccontextmanager
async def running_service(
    telnyx: Telnyx,
    database: str,
    *,
    ids: Callable[[], str] = new_id,
    monotonic: Callable[[], float] = time.monotonic,
    lookup_seconds: float = LOOKUP_SECONDS,
    **changes: Any,
) -> AsyncIterator[Service]:
    """Run one replica with the sandbox's clock, which tests can advance."""
    await migrate_database(database)
    outside = Overrides(telnyx.clock, monotonic, ids, jitter=lambda: 0.5, lookup_seconds=lookup_seconds)
    settings = settings_for(telnyx.url, database, **changes)
    components = build_components(settings, outside)
    limiter, fronted_app, _ = build_server_app(settings, components)
    app = RequestCounter(fronted_app)
    async with serve(app, limiter) as url, http_client(url, timeout=60) as client:
        yield Service(url, client, telnyx, telnyx.clock, app, limiter, components)


class RequestCounter:
    """Counts the requests that the fast path has left to the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += scope["type"] == "http"
        await self._app(scope, receive, send)


@asynccontextmanager
async def running_components(
    telnyx: Telnyx, database: str, *, ids: Callable[[], str] = new_id, **changes: Any
) -> AsyncIterator[Components]:
    """Run the components of one replica without HTTP, with the sandbox's clock."""
    await migrate_database(database)
    components = build_components(
        settings_for(telnyx.url, database, **changes), Overrides(telnyx.clock, new_id=ids, jitter=lambda: 0.5)
    )
    async with components.run():
        yield components


@asynccontextmanager
async def idle_components(telnyx: Telnyx, database: str, **changes: Any) -> AsyncIterator[Components]:
    """The same without background tasks, for tests that call a task themselves.

    Otherwise, the first run of the sweeper, which begins with the service, may do what the test's run should do.
    """
    await migrate_database(database)
    overrides = Overrides(telnyx.clock, jitter=lambda: 0.5)
    components = build_components(settings_for(telnyx.url, database, **changes), overrides)
    async with components.open():
        yield components
        await components.telephony.issuer.drain()
