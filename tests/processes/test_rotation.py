"""The runbook's rotations of secrets, on two replicas under load: by reload and by restart, one replica at a time."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.engines import database_url
from app.adapters.ledger.tables import leases
from app.sandbox.account import DEMO_KEY
from tests.support.push_material import same_ios
from tests.support.redis_server import redis_server
from tests.support.replicas import Replica, replica
from tests.support.sandbox import Telnyx
from tests.support.shared_logins import KEY
from tests.support.tokens import token
from tests.support.waiting import eventually, promptly

Bearer = Callable[[], str]
PUSH = "/v1/push-credentials"
BOTH = pytest.mark.parametrize("how", ["reload", "restart"])


@dataclass
class Fleet:
    """Two replicas that read their secrets from files, and devices that log in all the time."""

    telnyx: Telnyx
    database: str
    folder: Path
    settings: dict[str, str]
    bearer: Bearer = token
    running: dict[int, tuple[AsyncExitStack, Replica]] = field(default_factory=dict)
    in_service: list[int] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    addresses: dict[str, set[str]] = field(default_factory=dict)
    logins: int = 0
    answered: int = 0
    in_flight: Counter[int] = field(default_factory=Counter)
    is_stopping: bool = False

    def write(self, **files: str | None) -> None:
        """Write the files of secrets. None empties the setting."""
        for name, text in files.items():
            path = self.folder / name
            variable = {"telnyx_api_key": "TELNYX_API_KEY"}.get(name, f"DIALTONE_{name.upper()}")
            if text is None:
                self.settings.pop(f"{variable}_FILE", None)
            else:
                path.write_text(text)
                self.settings[f"{variable}_FILE"] = str(path)
        lines = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        (self.folder / "dialtone.env").write_text(lines)

    async def start(self, number: int) -> None:
        stack = AsyncExitStack()
        hidden = dict.fromkeys(("TELNYX_API_KEY", "DIALTONE_ISSUER_PEM", "DIALTONE_DATABASE_URL"), "")
        if "DIALTONE_ISSUER_SECRET_FILE" in self.settings:
            self.settings["DIALTONE_ISSUER_PEM"] = ""
        kept = {name: "" for name in hidden if f"{name}_FILE" in self.settings or name in self.settings}
        env = {**kept, "DIALTONE_ENV_FILE": str(self.folder / "dialtone.env"), "DIALTONE_LOG_FORMAT": "json"}
        one = await stack.enter_async_context(replica(self.telnyx.url, self.database, self.folder, env, migrate=False))
        self.running[number] = stack, one
        self.in_service.append(number)

    async def apply(self, how: str, number: int) -> None:
        """Make one replica read the files again, as the runbook does."""
        stack, one = self.running[number]
        if how == "reload":
            before = len(_reloads(one))
            one.process.send_signal(signal.SIGHUP)
            await eventually(lambda: len(_reloads(one)) > before)
            last = _reloads(one)[-1]
            assert last["event"] == "reloaded", last
            assert last["requires_restart"] == []
            return
        self.in_service.remove(number)  # the load balancer sends nothing to it
        await eventually(lambda: not self.in_flight[number])
        await stack.aclose()
        await self.start(number)

    async def settle(self) -> None:
        """Wait until all requests that are in flight have been answered, and then two of each replica."""
        wanted = self.answered + 1 + 2 * len(self.in_service)
        await eventually(lambda: self.answered >= wanted)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name that the running replicas logged."""
        return [event for _, running in self.running.values() for event in running.events(name)]

    async def log_in(self, device: str) -> None:
        number = self.in_service[self.logins % len(self.in_service)]
        self.logins += 1
        headers = {"Authorization": f"Bearer {self.bearer()}"}
        client = self.running[number][1].client
        self.in_flight[number] += 1
        answer = await client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})
        self.in_flight[number] -= 1
        self.answered += 1
        self.statuses.add(answer.status_code)
        if answer.is_success:
            self.addresses.setdefault(device, set()).add(answer.json()["sip_username"])

    async def keep_logging_in(self) -> None:
        number = 0
        while not self.is_stopping or self.logins <= 10:
            number += 1
            await self.log_in(f"device-{number % 3}")
            if number % 10 == 0:
                await self.log_in(f"new-{number}")
            await asyncio.sleep(0.02)

    async def check_logins(self) -> None:
        """No request failed, no device has a second credential, and nothing is orphaned."""
        assert self.statuses <= {200, 201}
        assert self.logins > 10
        assert all(len(names) == 1 for names in self.addresses.values())
        engine = create_async_engine(database_url(self.database))
        async with engine.connect() as connection:
            query = sa.select(leases.c.credential_id).where(leases.c.state == "active")
            known = set((await connection.scalars(query)).all())
        await engine.dispose()
        assert set(self.telnyx.live()) == known
        assert len(known) == len(self.addresses)


@asynccontextmanager
async def fleet(
    telnyx: Telnyx, database: str, folder: Path, bearer: Bearer = token, **files: str
) -> AsyncIterator[Fleet]:
    """Start two replicas, and let devices log in until the end."""
    # Several devices of one user: the limit of devices must not evict them.
    own = Fleet(telnyx, database, folder, {"DIALTONE_MAX_DEVICES": "200"}, bearer)
    own.write(**files)
    try:
        for number in range(2):
            await own.start(number)
        load = asyncio.create_task(own.keep_logging_in())
        try:
            yield own
            await asyncio.sleep(0.3)
        finally:
            own.is_stopping = True
            await load
        await own.check_logins()
    finally:
        for stack, _ in own.running.values():
            await stack.aclose()


async def rotate(own: Fleet, how: str, between: Callable[[], Awaitable[Any]] | None = None) -> None:
    """Apply the files to one replica after the other. `between` runs while the two differ."""
    for number in (0, 1):
        await own.apply(how, number)
        await own.settle()
        if between is not None:
            await between()


def _reloads(of: Replica) -> list[dict[str, Any]]:
    return [event for event in of.events() if event["event"] in ("reloaded", "reload_rejected")]


@BOTH
async def test_tag_key_is_rotated(telnyx: Telnyx, postgres: str, tmp_path: Path, how: str) -> None:
    wanted = same_ios()
    registered: list[httpx.Response] = []
    async with fleet(telnyx, postgres, tmp_path, tag_key="old" * 20) as own:

        async def register() -> None:
            for number in own.in_service:
                headers = {"Authorization": f"Bearer {token()}"}
                client = own.running[number][1].client
                registered.append(await client.post(PUSH, headers=headers, json=wanted))

        await register()
        own.write(tag_key="new" * 20, previous_tag_key="old" * 20)
        await rotate(own, how, register)
        assert len(telnyx.sandbox.account.push_credentials) == 1, "found by the hash of the old key"
        own.write(previous_tag_key=None)
        await rotate(own, how, register)

    assert {answer.status_code for answer in registered} <= {200, 201}, [answer.text for answer in registered]
    assert len({answer.json()["id"] for answer in registered}) == 1
    tags = {tag for credential in telnyx.sandbox.account.credentials.values() for tag in [credential.tag] if tag}
    assert len(tags) == 2, "one of each key; no lookup depends on a tag"


@BOTH
async def test_telnyx_api_key_is_rotated(telnyx: Telnyx, postgres: str, tmp_path: Path, how: str) -> None:
    async with fleet(telnyx, postgres, tmp_path, telnyx_api_key=DEMO_KEY, tag_key="own" * 20) as own:
        telnyx.sandbox.account.api_keys = ("KEY_NEW", DEMO_KEY)
        own.write(telnyx_api_key="KEY_NEW")
        await rotate(own, how)
        telnyx.sandbox.account.api_keys = ("KEY_NEW",)
        await own.settle()


@BOTH
async def test_database_login_is_rotated(telnyx: Telnyx, postgres: str, tmp_path: Path, how: str) -> None:
    url = database_url(postgres)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    roles = [f"{name}_{url.database}" for name in ("one", "two")]

    def address(role: str) -> str:
        return postgres.replace("postgres:@", f"{role}:password@").replace("postgresql+asyncpg", "postgresql")

    async def grant(role: str) -> None:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'password'")
            rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
            await connection.exec_driver_sql(f"GRANT {rights} TO {role}")

    async def has_no_session() -> bool:
        async with engine.connect() as connection:
            query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role AND state <> 'idle'")
            return not await connection.scalar(query, {"role": roles[0]})

    await grant(roles[0])
    async with fleet(telnyx, postgres, tmp_path, database_url=address(roles[0])) as own:
        await grant(roles[1])
        own.write(database_url=address(roles[1]))
        await rotate(own, how)
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {roles[0]}")
        await own.settle()
        await promptly(has_no_session, 5)
    await engine.dispose()


async def test_database_login_that_the_server_rejects_is_not_applied(
    telnyx: Telnyx, postgres: str, tmp_path: Path
) -> None:
    async with fleet(telnyx, postgres, tmp_path, database_url=postgres) as own:
        own.write(database_url=postgres.replace("postgres:@", "nobody_here:CANARY@"))
        one = own.running[0][1]
        one.process.send_signal(signal.SIGHUP)
        await eventually(lambda: one.events("reload_rejected"))
        (rejected,) = one.events("reload_rejected")

    assert rejected["reason"].startswith("DIALTONE_DATABASE_URL: ")
    assert "CANARY" not in one.log.read_text()


@BOTH
async def test_shared_secret_of_an_issuer_is_rotated(telnyx: Telnyx, postgres: str, tmp_path: Path, how: str) -> None:
    old, new = (OctKey.import_key(text * 8) for text in ("old-secret-", "new-secret-"))
    signing = [old]

    def bearer() -> str:
        return token(header={"alg": "HS256", "kid": ..., "typ": "JWT"}, key=signing[0])

    secrets = {"issuer_secret": "old-secret-" * 8}
    async with fleet(telnyx, postgres, tmp_path, bearer, **secrets) as own:
        own.write(issuer_secret="new-secret-" * 8, previous_issuer_secret="old-secret-" * 8)
        await rotate(own, how)
        signing[0] = new
        await own.settle()
        own.write(previous_issuer_secret=None)
        await rotate(own, how)
        headers = {"Authorization": f"Bearer {token(header={'alg': 'HS256', 'kid': ...}, key=old)}"}
        late = await own.running[0][1].client.post(
            "/v1/telephony-credentials", headers=headers, json={"device_id": "late"}
        )

    assert late.status_code == 401


@BOTH
async def test_redis_password_is_rotated(telnyx: Telnyx, postgres: str, tmp_path: Path, how: str) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", password="old") as server:
        async with fleet(telnyx, postgres, tmp_path, redis_url=server.url) as own:

            def failures() -> list[str]:
                """Without responses that were late, as they are on a busy machine."""
                errors = [event["error"] for event in own.events("rate_limit_store_unavailable")]
                return [error for error in errors if error != "TimeoutError"]

            server.client.execute_command("ACL", "SETUSER", "default", ">new")
            own.write(redis_url=server.url.replace(":old@", ":new@"))
            await rotate(own, how)
            server.client.execute_command("ACL", "SETUSER", "default", "<old")
            await asyncio.sleep(0.5)
            assert failures() == []
            server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(7)
            failed = failures()
            await asyncio.sleep(1)
            assert len(failed) <= 2, "only the connections that the server closed"
            assert failures() == failed


@BOTH
async def test_password_of_the_shared_login_cache_is_rotated(
    telnyx: Telnyx, postgres: str, tmp_path: Path, how: str
) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", password="old") as server:
        new_url = server.url.replace(":old@", ":new@")
        async with fleet(telnyx, postgres, tmp_path, login_cache_url=server.url, login_cache_keys=KEY) as own:
            server.client.execute_command("ACL", "SETUSER", "default", ">new")
            own.write(login_cache_url=new_url)
            await rotate(own, how)
            server.client.execute_command("ACL", "SETUSER", "default", "<old")
            await asyncio.sleep(2)
            server.client.execute_command("CLIENT", "KILL", "TYPE", "normal")

            async def is_available() -> bool:
                metrics = [(await one.client.get("/metrics")).text for _, one in own.running.values()]
                return all("\ndialtone_shared_login_cache_available 1.0" in text for text in metrics)

            await asyncio.sleep(3)
            await promptly(is_available, 20)
            unavailable = [event["reason"] for event in own.events("shared_login_cache_unavailable")]

    assert "authentication" not in unavailable
