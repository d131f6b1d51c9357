"""What tests stand on: servers on real sockets, an issuer whose tokens joserfc signs, the service in front of both."""

import asyncio
import atexit
import random
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.types import ASGIApp

from app.adapters.ledger import migrate as migrating
from app.adapters.ledger.engines import database_url
from app.composition.build import build_components
from app.composition.components import Components, Overrides
from app.config.settings import Settings
from app.main import build_server_app
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY, Account, Clock
from app.sandbox.rest import TelnyxSandbox
from app.vending.ids import new_id
from app.vending.models import Principal

ISSUER = "https://id.example.com"
AUDIENCE = "dialtone"


@cache
def rsa_key(name: str = "first", bits: int = 2048) -> RSAKey:
    """A key of the test issuer, made once a run."""
    return RSAKey.generate_key(bits, {"kid": name, "use": "sig", "alg": "RS256"})


@cache
def ec_key(curve: str = "P-256", name: str = "ec") -> ECKey:
    return ECKey.generate_key(curve, {"kid": name, "use": "sig"})


def claims_of(user: str = "alice", **changes: Any) -> dict[str, Any]:
    """Good claims, changed as given; a change to `...` leaves the claim out."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 3600, "scope": "phone"}
    return {name: value for name, value in (claims | changes).items() if value is not ...}


def token(user: str = "alice", *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
    """An access token of the test issuer, signed by joserfc."""
    key = key or rsa_key()
    algorithm = (header or {}).get("alg", "RS256")
    protected = {"alg": algorithm, "kid": key.kid, "typ": "at+jwt"} | (header or {})
    protected = {name: value for name, value in protected.items() if value is not ...}
    return jwt.encode(protected, claims_of(user, **changes), key, algorithms=[algorithm])


def pem() -> str:
    return rsa_key().as_pem(private=False).decode()


def principal(user: str = "alice", *scopes: str) -> Principal:
    now = datetime.now(UTC)
    return Principal(ISSUER, user, datetime.max.replace(tzinfo=UTC), frozenset(scopes or ("phone",)), issued_at=now)


def free_port() -> int:
    """A port for a process that is about to start; below those that the system gives to connections meanwhile."""
    while True:
        port = random.randrange(15_000, 32_000)  # noqa: S311 - a port
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class PromptServer(uvicorn.Server):
    """uvicorn looks ten times a second whether it should stop; a thousand tests would wait minutes for that."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            _, hanging = await asyncio.wait(self.server_state.tasks, timeout=1)
            for request in hanging:
                request.cancel()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(app: ASGIApp, http: Any = "httptools", keep_alive_seconds: int = 5) -> AsyncIterator[str]:
    """The app behind a real socket on loopback; its base URL."""
    # asyncio turns Nagle's algorithm off only for sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=http,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=1,
    )
    server = PromptServer(config)
    task = asyncio.create_task(server._serve(sockets=[listener]))  # without its signal handlers
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.001)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass
class Telnyx:
    """The sandbox at the wire, and the truth about it."""

    sandbox: TelnyxSandbox
    url: str

    @property
    def clock(self) -> Clock:
        return self.sandbox.clock

    def live(self) -> list[str]:
        """Ids of the credentials that exist and have not expired."""
        now = self.clock()
        return [item.id for item in self.sandbox.account.credentials.values() if not item.is_expired(now)]

    def calls(self, method: str = "", path: str = "") -> list[str]:
        """What was received, as `METHOD /path`, controls and health checks left out."""
        entries = self.sandbox.journal.entries
        return [
            f"{entry.method} {entry.path}"
            for entry in entries
            if entry.path.startswith("/v2/telephony_credentials")
            and entry.method.startswith(method)
            and path in entry.path
        ]

    def created(self) -> int:
        """Creates that were carried out, answered or not."""
        return sum((entry.committed or "").startswith("create") for entry in self.sandbox.journal.entries)

    def fail(self, kind: str, **plan: Any) -> None:
        from app.sandbox.faults import Fault

        self.sandbox.faults.plans.append(Fault.from_json({"kind": kind, **plan}))


@asynccontextmanager
async def telnyx_sandbox(**options: Any) -> AsyncIterator[Telnyx]:
    clock = Clock()
    account = Account(clock)
    account.add_demo_connection()
    sandbox = TelnyxSandbox(account, clock, **options)
    async with serving(sandbox) as base:
        yield Telnyx(sandbox, f"{base}/v2")


@dataclass
class Service:
    """The service behind a real socket, and a client that asks as one user or another."""

    url: str
    client: httpx.AsyncClient
    telnyx: Telnyx
    clock: Clock
    app: ASGIApp = field(repr=False)
    components: Components = field(repr=False)

    async def ask(self, method: str, path: str = "", *, user: str = "alice", **content: Any) -> httpx.Response:
        """One call below /v1/telephony-credentials."""
        headers = {"Authorization": f"Bearer {token(user)}"} | content.pop("headers", {})
        return await self.client.request(method, f"/v1/telephony-credentials{path}", headers=headers, **content)

    async def issue(self, device: str = "laptop", *, user: str = "alice", **wishes: Any) -> httpx.Response:
        return await self.ask("POST", user=user, json={"device_id": device, **wishes})


def settings_for(telnyx_url: str, database: str, **changes: Any) -> Settings:
    """Settings for a test; a change to `...` leaves one out."""
    wanted = {
        "telnyx_api_key": DEMO_KEY,
        "telnyx_connection_id": DEMO_CONNECTION,
        "telnyx_base_url": telnyx_url,
        "telnyx_call_seconds": 1.0,
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "issuer_pem": pem(),
        "database_url": database,
        "patience_seconds": 8.0,
        "cors_origins": "https://app.example.com",
    } | changes
    return Settings.load(_env_file=None, **{name: value for name, value in wanted.items() if value is not ...})


@asynccontextmanager
async def service_in_front_of(
    telnyx: Telnyx,
    database: str,
    *,
    ids: Callable[[], str] = new_id,
    monotonic: Callable[[], float] = time.monotonic,
    **changes: Any,
) -> AsyncIterator[Service]:
    """One replica. Its clock is the sandbox's, so that a test moves both."""
    await migrated(database)
    outside = Overrides(clock=telnyx.clock, monotonic=monotonic, new_id=ids, jitter=lambda: 0.5)
    settings = settings_for(telnyx.url, database, **changes)
    components = build_components(settings, outside)
    door, app, _ = build_server_app(settings, components)
    async with serving(app, door) as url, httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        yield Service(url, client, telnyx, telnyx.clock, app, components)


_template: Path | None = None
"""A migrated SQLite file, which tests get copies of."""


async def migrated(database: str) -> None:
    """The tables are there. What the migrations do is shown elsewhere; here a copy of the file does."""
    global _template
    url = database_url(database)
    file = None if url.get_backend_name() != "sqlite" else Path(str(url.database))
    if file is None or file.exists():
        await migrating.migrate(url)
        return
    if _template is None:
        made = Path(tempfile.mkdtemp(prefix="dialtone-ledger-")) / "ledger.db"
        atexit.register(shutil.rmtree, made.parent, ignore_errors=True)
        await migrating.migrate(database_url(f"sqlite:///{made}"))
        _template = made
    shutil.copyfile(_template, file)


def sqlite_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


async def eventually(check: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until `check` says yes; AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def joined(
    telnyx: Telnyx, database: str, *, ids: Callable[[], str] = new_id, **changes: Any
) -> AsyncIterator[Components]:
    """The components of one replica without HTTP in front, on the sandbox's clock."""
    await migrated(database)
    components = build_components(
        settings_for(telnyx.url, database, **changes), Overrides(telnyx.clock, new_id=ids, jitter=lambda: 0.5)
    )
    async with components.run():
        yield components


HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
