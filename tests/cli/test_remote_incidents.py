"""Incidents handled with the command line in remote mode alone: detect, fix, verify."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.account import DEMO_CONNECTION
from app.vending.policy import ADMIN_SCOPE
from tests.support.admin_api import current_token
from tests.support.command_line import RemoteShell, operator_shell
from tests.support.configuration import configured_by
from tests.support.http_server import serve
from tests.support.key_server import KeyServer
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service, settings_for
from tests.support.tokens import ISSUER, pem, rsa_key
from tests.support.waiting import eventually

WRONG_RULE = """
[[policy.rules]]
name = "desk"
scopes = ["phone"]

[[policy.rules]]
name = "operators"
scopes = ["dialtone:admin"]
admin = true
"""

RIGHT_RULE = WRONG_RULE.replace('scopes = ["phone"]', 'claims.department = "support"', 1)


@pytest.fixture
def shell(service: Service, tmp_path: Path) -> RemoteShell:
    return operator_shell(service, tmp_path)


async def log_in(service: Service, device: str, user: str = "alice", **claims: Any) -> int:
    headers = {"Authorization": f"Bearer {current_token(service, user, **claims)}"}
    body = {"device_id": device}
    return (await service.client.post("/v1/telephony-credentials", headers=headers, json=body)).status_code


async def test_stolen_laptop_is_logged_out(service: Service, shell: RemoteShell, telnyx: Telnyx) -> None:
    stolen_token = current_token(service)
    bearer = {"Authorization": f"Bearer {stolen_token}"}
    for device in ("laptop", "phone"):
        await log_in(service, device)
    await log_in(service, "laptop", "bob")
    telnyx.clock.advance(timedelta(seconds=2))

    found = await shell.run_json("leases", "ls", "--user", "alice", "--device", "laptop", "--state", "active")
    shown = await shell.run_json("leases", "show", found[0]["id"][:8])
    one = await shell.run("leases", "revoke", shown["id"])

    assert (one.exit_code, one.stdout) == (0, "1 device logged out. Telnyx has confirmed the deletion.\n")
    assert (await shell.run_json("leases", "show", shown["id"]))["state"] == "revoked"

    all_devices = await shell.run_json("leases", "revoke", "--issuer", ISSUER, "--user", "alice", "--refuse-tokens")

    assert all_devices == {"revoked": 1, "confirmed": True}
    assert len(telnyx.live()) == 1, "bob's"
    again = await service.client.post("/v1/telephony-credentials", headers=bearer, json={"device_id": "laptop"})
    assert again.status_code == 401
    await eventually(lambda: not service.components.audit.queued, 30)
    events = [json.loads(line) for line in (await shell.run("audit", "tail", "--json")).stdout.splitlines()]
    assert {(event["reason"], event["actor_subject"]) for event in events} >= {
        ("tokens_refused", "olga"),
        ("asked_by_operator", "olga"),
    }


async def test_leaked_signing_key_is_replaced(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    provider = KeyServer(keys=[rsa_key("leaked"), rsa_key("new")])
    async with serve(provider.app()) as url:
        changes: dict[str, Any] = {"issuer_pem": ..., "jwks_url": f"{url}/jwks"}
        async with running_service(telnyx, sqlite, **changes) as service:
            assert await log_in(service, "laptop", "mallory", key=rsa_key("leaked")) == 201
            provider.keys = [rsa_key("new")]
            shell = operator_shell(service, tmp_path, key=rsa_key("new"))

            refreshed = await shell.run("keys", "refresh")
            refused = await shell.run("tokens", "refuse", ISSUER, "--before", service.clock().isoformat())
            telnyx.clock.advance(timedelta(seconds=2))
            renewed = current_token(service, "olga", scope=ADMIN_SCOPE, key=rsa_key("new"))
            shell.token_file.write_text(renewed)
            preview = await shell.run("leases", "revoke", "--everything")
            revoked = await shell.run("leases", "revoke", "--everything", "--confirm", "dialtone")

            assert refreshed.stdout == f"{ISSUER}: fetched\n"
            assert f"Tokens of all users of {ISSUER}" in refused.stdout
            assert preview.exit_code == 2
            assert (revoked.exit_code, revoked.stdout) == (
                0,
                "1 device logged out. Telnyx has confirmed the deletion.\n",
            )
            assert await log_in(service, "laptop", "mallory", key=rsa_key("leaked")) == 401
            assert await log_in(service, "laptop", "alice", key=rsa_key("new")) == 201


async def test_orphans_of_a_leaked_telnyx_key_are_deleted(service: Service, shell: RemoteShell, telnyx: Telnyx) -> None:
    await log_in(service, "laptop")
    telnyx.clock.advance(timedelta(hours=-2))
    expires = (telnyx.clock() + timedelta(days=30)).isoformat()
    planted = {"connection_id": DEMO_CONNECTION, "name": "dialtone-" + "ab" * 16, "expires_at": expires}
    telnyx.sandbox.account.create_credential(planted)
    telnyx.clock.advance(timedelta(hours=2))

    dry = await shell.run("sweep", "--dry-run")
    swept = await shell.run_json("sweep")

    assert "would delete orphan: dialtone-abab" in dry.stdout
    assert swept["deleted_orphans"] == 1
    assert len(telnyx.live()) == 1


@pytest.fixture
async def ruled(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A service whose rule allows users that it should not."""
    (tmp_path / "key.pem").write_text(pem())
    async with running_service(telnyx, sqlite, **_rules(tmp_path, WRONG_RULE)) as service:
        yield service


def _rules(folder: Path, rules: str) -> dict[str, Any]:
    issuer = f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["dialtone"]\npem_file = "{folder}/key.pem"\n'
    return configured_by(folder, issuer + rules)


async def test_users_of_a_wrong_policy_rule_are_logged_out(ruled: Service, sqlite: str, tmp_path: Path) -> None:
    assert await log_in(ruled, "laptop", "alice", department="support") == 201
    assert await log_in(ruled, "laptop", "mallory", department="sales") == 201
    shell = operator_shell(ruled, tmp_path)

    await eventually(lambda: not ruled.components.audit.queued)
    issued = (await shell.run("audit", "tail", "--action", "issued", "--json")).stdout
    users = {json.loads(line)["subject"] for line in issued.splitlines()}
    settings = settings_for(ruled.telnyx.url, sqlite, **_rules(tmp_path, RIGHT_RULE))
    await ruled.components.reload(settings)  # the operator deploys the corrected file
    revoked = await shell.run("leases", "revoke", "--issuer", ISSUER, "--user", "mallory")

    assert users == {"alice", "mallory"}
    assert (revoked.exit_code, revoked.stdout) == (0, "1 device logged out. Telnyx has confirmed the deletion.\n")
    assert await log_in(ruled, "laptop", "mallory", department="sales") == 403
    assert await log_in(ruled, "laptop", "alice", department="support") == 200
    await eventually(lambda: not ruled.components.audit.queued)
    denied = (await shell.run("audit", "tail", "--action", "denied", "--user", "mallory")).stdout
    assert "AccessDenied" in denied


async def test_unconfirmed_deletion_of_one_device_exits_with_3(
    service: Service, shell: RemoteShell, telnyx: Telnyx
) -> None:
    await log_in(service, "laptop")
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    (lease,) = await shell.run_json("leases", "ls")

    done = await shell.run("leases", "revoke", lease["id"], "--json")

    assert (done.exit_code, json.loads(done.stdout)) == (3, {"revoked": 1, "confirmed": False})
