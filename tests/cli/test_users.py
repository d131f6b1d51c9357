"""`dialtone users erase` on the ledger of a running service, and in remote mode."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.composition.components import Components
from app.vending.audit import AuditCriteria
from app.vending.models import IssueRequest
from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.telephony.lease import Lease, LeaseState
from tests.support.admin_api import current_token
from tests.support.command_line import operator_shell
from tests.support.raw_server import http_response, raw_server
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, principal
from tests.support.waiting import HOUR, eventually

Erase = Callable[..., Awaitable[Result]]


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, sqlite) as service:
        for user, device in (("alice", "laptop"), ("alice", "tab"), ("bob", "laptop")):
            await service.components.telephony.issuer.issue(principal(user), IssueRequest(device))
        await eventually(lambda: not service.components.audit.queued)
        yield service


@pytest.fixture
def components(service: Service) -> Components:
    return service.components


@pytest.fixture(params=["in process", "remote"])
def erase(request: pytest.FixtureRequest, service: Service, telnyx: Telnyx, sqlite: str, tmp_path: Path) -> Erase:
    """Runs the command in one of the two modes."""
    if request.param == "in process":
        variables = replica_variables(telnyx.url, sqlite)
    else:
        shell = operator_shell(service, tmp_path)
        variables = {"DIALTONE_URL": shell.url, "DIALTONE_TOKEN_FILE": str(shell.token_file)}

    async def run(*arguments: str, user: str = "alice") -> Result:
        command = ["users", "erase", "--issuer", ISSUER, f"--user={user}", *arguments]
        return await asyncio.to_thread(CliRunner(env=variables).invoke, app, command)

    return run


async def lease_of(components: Components, user: str, device: str) -> Lease:
    (lease,) = await components.operators.leases.search(LeaseCriteria(subject=user, device_id=device), None, 10)
    return lease


async def test_dry_run_prints_the_counts(erase: Erase, telnyx: Telnyx) -> None:
    said = await erase("--dry-run")

    assert said.exit_code == 0, said.output
    assert said.output == (
        "Would erase 2 leases (2 with a credential at Telnyx), 0 push registrations and 2 audit events.\n"
    )
    assert len(telnyx.live()) == 3


async def test_user_is_erased_and_their_credentials_are_deleted(
    erase: Erase, components: Components, telnyx: Telnyx
) -> None:
    said = await erase("--confirm", "dialtone")

    assert said.exit_code == 0, said.output
    assert "Telnyx has confirmed the deletion of all credentials." in said.stdout
    assert said.stderr == ""
    assert len(telnyx.live()) == 1
    assert await components.operators.leases.audit(AuditCriteria(subject="alice"), None, 10) == []


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("--confirm", "yes"), 1)], ids=str)
async def test_erasure_requires_the_namespace(
    erase: Erase, telnyx: Telnyx, arguments: tuple[str, ...], status: int
) -> None:
    said = await erase(*arguments)

    assert said.exit_code == status
    assert len(telnyx.live()) == 3


async def test_unconfirmed_deletion_exits_with_3_and_lists_the_credentials(
    erase: Erase, components: Components, telnyx: Telnyx
) -> None:
    names = {(await lease_of(components, "alice", device)).credential_name for device in ("laptop", "tab")}
    telnyx.fail("status", method="DELETE", status=500, times=1000)

    said = await erase("--confirm", "dialtone", "--json")

    report = json.loads(said.stdout)
    assert said.exit_code == 3
    assert report["confirmed"] is False
    assert {(one["credential_name"], one["state"]) for one in report["pending"]} == {(n, "revoking") for n in names}
    assert "Run the same command again until it exits with 0." in said.stderr


@pytest.mark.parametrize("state", [LeaseState.EXPIRED, LeaseState.LOST])
async def test_credential_of_a_lease_that_ended_before_the_erasure_is_pending_too(
    erase: Erase, components: Components, telnyx: Telnyx, state: LeaseState
) -> None:
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    lease, now = await lease_of(components, "bob", "laptop"), telnyx.clock()
    ended = lease.mark_expired(now) if state is LeaseState.EXPIRED else lease.mark_lost(now)
    await components.ledger.leases.advance(lease, ended.schedule_retry(now, now + HOUR))

    said = await erase("--confirm", "dialtone", user="bob")

    assert said.exit_code == 3, said.output
    assert f"not deleted yet: {lease.credential_name} ({state}; deletion attempts: 1)\n" in said.stdout
    assert said.stdout.endswith("Telnyx has not yet confirmed the deletion of all credentials.\n")


async def test_repeated_erasure_exits_with_0_when_telnyx_has_confirmed(
    erase: Erase, components: Components, telnyx: Telnyx
) -> None:
    lease, now = await lease_of(components, "bob", "laptop"), telnyx.clock()
    ended = lease.mark_expired(now).schedule_retry(now, now + HOUR)
    await components.ledger.leases.advance(lease, ended)
    first = await erase("--confirm", "dialtone", "--json", user="bob")

    telnyx.clock.advance(HOUR + timedelta(seconds=1))
    await components.upkeep.sweeper.sweep()
    again = await erase("--confirm", "dialtone", "--json", user="bob")

    assert (first.exit_code, again.exit_code) == (3, 0), again.output
    assert json.loads(again.stdout)["pseudonym"] == json.loads(first.stdout)["pseudonym"]
    assert (json.loads(again.stdout)["leases"], json.loads(again.stdout)["pending"]) == (0, [])


@pytest.mark.parametrize("arguments", [("--dry-run",), ("--confirm", "dialtone")], ids=str)
async def test_user_without_data_is_named_as_a_possible_mistake(erase: Erase, arguments: tuple[str, ...]) -> None:
    """A mistyped name must not look like a successful erasure."""
    said = await erase(*arguments, "--json", user="alicia")

    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["leases"] == 0
    assert said.stderr.startswith("There is no data under this issuer and user.")


async def test_empty_user_is_rejected(erase: Erase) -> None:
    assert (await erase("--confirm", "dialtone", user="")).exit_code == 2


@pytest.mark.parametrize("user", ["--help", "a b'\"%_*", "erased-1"])
async def test_user_may_have_any_characters(erase: Erase, user: str) -> None:
    said = await erase("--dry-run", user=user)

    assert said.exit_code == 0, said.output
    assert said.output.startswith("Would erase 0 leases")


async def test_earlier_token_is_rejected_after_an_erasure_that_refuses_tokens(erase: Erase, service: Service) -> None:
    stolen = {"Authorization": f"Bearer {current_token(service, iat=int(service.clock().timestamp()) - 60)}"}

    said = await erase("--confirm", "dialtone", "--refuse-tokens")
    await eventually(lambda: len(service.components.identity.not_before), 30)
    answer = await service.client.get("/v1/telephony-credentials", headers=stolen)

    assert said.exit_code == 0, said.output
    assert answer.status_code == 401


async def test_response_without_the_unconfirmed_deletions_is_no_success(tmp_path: Path) -> None:
    """Another version could omit the field. The command must not report that Telnyx has confirmed."""
    counts = {"leases": 1, "credentials": 1, "push_registrations": 0, "audit_events": 1}
    body = json.dumps({**counts, "complete": True, "pseudonym": "erased-1"}).encode()
    (tmp_path / "token").write_text("token")
    async with raw_server(http_response(body, "Content-Type: application/json")) as port:
        variables = {"DIALTONE_URL": f"http://127.0.0.1:{port}", "DIALTONE_TOKEN_FILE": str(tmp_path / "token")}
        command = ["users", "erase", "--issuer", ISSUER, "--user=alice", "--confirm", "dialtone"]
        said = await asyncio.to_thread(CliRunner(env=variables).invoke, app, command)

    assert (said.exit_code, said.stdout) == (1, "")
    assert "The response has no `unconfirmed`" in said.stderr
