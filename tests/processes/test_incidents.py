"""Incidents handled with the tools of the runbook alone: detect, fix, verify."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from typer.testing import CliRunner

from app.cli import app
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.vending.policy import ADMIN_SCOPE
from tests.support.http_server import serve
from tests.support.key_server import KeyServer
from tests.support.replicas import Replica, replica, replica_variables
from tests.support.sandbox import Telnyx
from tests.support.tokens import ISSUER, token

NEW_KEY = "KEY_the_new_one"


class Shell:
    """An operator with a shell on the machine of a running service."""

    def __init__(self, service: Replica, variables: dict[str, str]) -> None:
        self.service = service
        self._variables = variables

    async def run(self, *arguments: str) -> tuple[int, str]:
        runner = CliRunner(env=self._variables | {"COLUMNS": "200"})
        said = await asyncio.to_thread(runner.invoke, app, list(arguments))
        return said.exit_code, said.stdout

    async def run_json(self, *arguments: str) -> Any:
        _, said = await self.run(*arguments, "--json")
        return json.loads(said)

    async def figure(self, pattern: str) -> float:
        """The sum of the matching series, as Prometheus reads them."""
        text = (await self.service.client.get("/metrics")).text
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))

    async def operate(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
        return await self.service.client.request(method, f"/v1/admin{path}", headers=headers, json=body)


async def wait_until(check: Any, seconds: float = 30) -> None:
    for _ in range(int(seconds / 0.1)):
        if await check():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the condition was not met in time")


@pytest.fixture
async def shell(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Shell]:
    async with replica(telnyx.url, sqlite, tmp_path) as service:
        yield Shell(service, replica_variables(telnyx.url, sqlite))


async def test_stolen_laptop_can_be_revoked(shell: Shell, telnyx: Telnyx) -> None:
    service, stolen_token = shell.service, token("alice")
    bearer = {"Authorization": f"Bearer {stolen_token}"}
    for device in ("laptop", "phone"):
        await service.client.post("/v1/telephony-credentials", headers=bearer, json={"device_id": device})
    await service.issue("laptop", "bob")

    found = await shell.run_json("leases", "ls", "--user", "alice", "--state", "active")
    status, said = await shell.run("leases", "revoke", "--issuer", ISSUER, "--user", "alice", "--refuse-tokens")

    assert {lease["device_id"] for lease in found} == {"laptop", "phone"}
    assert (status, said) == (0, "2 devices logged out. Telnyx has confirmed the deletion.\n")
    after = await shell.run_json("leases", "ls", "--user", "alice")
    assert {lease["state"] for lease in after} == {"revoked"}
    assert len(telnyx.live()) == 1, "bob's"

    async def is_rejected() -> bool:
        answer = await service.client.post("/v1/telephony-credentials", headers=bearer, json={"device_id": "laptop"})
        return answer.status_code == 401

    await wait_until(is_rejected, 2.5)
    _, audit = await shell.run("audit", "tail", "--user", "alice")
    assert "tokens_refused" in audit
    assert re.search(r"revoked +unconfirmed +alice.* asked_by_operator +by \w+", audit)


async def test_telnyx_key_can_be_rotated(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    file = tmp_path / "telnyx-api-key"
    file.write_text(DEMO_KEY)
    by_file = {"TELNYX_API_KEY": "", "TELNYX_API_KEY_FILE": str(file)}
    async with replica(telnyx.url, sqlite, tmp_path, by_file) as service:
        shell = Shell(service, replica_variables(telnyx.url, sqlite) | by_file)
        known = await service.issue("laptop")
        telnyx.sandbox.account.api_keys = (NEW_KEY,)

        refused = await service.issue("new-laptop")

        assert (refused.status_code, refused.json()["code"]) == (502, "telnyx_key_rejected")
        assert (await service.issue("laptop")).json()["login_token"] == known.json()["login_token"], (
            "the service keeps running"
        )
        alarm = r'dialtone_telnyx_calls_total\{operation="[^"]*",outcome="TelnyxKeyRejected"\}'
        assert await shell.figure(alarm) >= 1
        status, said = await shell.run("doctor")
        assert status == 1
        assert "Telnyx key: Telnyx rejects it" in said

        file.write_text(NEW_KEY)
        service.process.send_signal(signal.SIGHUP)

        async def is_well() -> bool:
            return (await service.issue("new-laptop")).status_code in (200, 201)

        await wait_until(is_well)
        status, said = await shell.run("doctor")
        assert status == 0, said
        assert (await service.client.get("/readyz")).status_code == 200


async def test_identity_provider_outage_is_visible_and_tolerated(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    provider = KeyServer()
    async with serve(provider.app()) as url:
        by_url = {"DIALTONE_ISSUER_PEM": "", "DIALTONE_JWKS_URL": f"{url}/jwks"}
        async with replica(telnyx.url, sqlite, tmp_path, by_url) as service:
            shell = Shell(service, replica_variables(telnyx.url, sqlite) | by_url)
            assert (await service.issue("laptop")).status_code == 201
            provider.answer = lambda _: Response(status_code=503)

            status, said = await shell.run("keys", "refresh")

            assert (status, "fetch FAILED; the cached keys stay in use" in said) == (1, True)
            assert (await service.issue("laptop", "bob")).status_code == 201, "cached keys are used"
            assert (await service.client.get("/readyz")).status_code == 200
            status, said = await shell.run("doctor")
            assert (status, "no usable key to verify tokens" in said) == (1, True)

            async def is_seen() -> bool:
                failures = await shell.figure(r"dialtone_key_set_fetch_failures_total\{[^}]*\}")
                return failures >= 1

            await wait_until(is_seen)
            async with replica(telnyx.url, sqlite, tmp_path, by_url, is_ready=False, migrate=False) as cold:
                assert (await cold.client.get("/readyz")).json()["checks"]["identity"] == "failed"
                assert (await cold.issue("tab")).json()["code"] == "identity_unavailable"
                assert (await Shell(cold, {}).figure(r"dialtone_key_set_keys\{[^}]*\}")) == 0

                provider.answer = None

                async def is_ready() -> bool:
                    return (await cold.client.get("/readyz")).status_code == 200

                await wait_until(is_ready, 60)
                assert (await cold.issue("tab")).status_code == 201


async def test_credentials_created_with_a_leaked_key_can_be_found_and_deleted(shell: Shell, telnyx: Telnyx) -> None:
    mine = await shell.service.issue("laptop")
    telnyx.clock.advance(timedelta(hours=-2))
    for name in ("dialtone-" + "ab" * 16, "dialtone-" + "cd" * 16, "somebody-elses"):
        expires = (telnyx.clock() + timedelta(days=30)).isoformat()
        telnyx.sandbox.account.create_credential(
            {"connection_id": DEMO_CONNECTION, "name": name, "expires_at": expires}
        )
    telnyx.clock.advance(timedelta(hours=2))

    dry = await shell.run_json("sweep", "--dry-run")
    asked = (await shell.operate("POST", "/sweeps", {"dry_run": False})).json()

    assert {orphan["credential"][:11] for orphan in dry["orphans"]} == {"dialtone-ab", "dialtone-cd"}
    assert dry["foreign"] == 1

    async def is_done() -> bool:
        run = (await shell.operate("GET", f"/sweeps/{asked['id']}")).json()
        return bool(run["state"] == "done" and run["report"]["deleted_orphans"] == 2)

    await wait_until(is_done)
    names = {item.name for item in telnyx.sandbox.account.credentials.values()}
    assert names == {"somebody-elses", f"dialtone-{mine.json()['id']}"}
    assert (await shell.service.issue("laptop")).status_code == 200
