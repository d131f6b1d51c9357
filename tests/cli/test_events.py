"""`dialtone events` and the check of endpoints by `dialtone doctor`, on the ledger of a running service."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.vending.events.models import DELIVERY_PERIOD
from tests.support.command_line import RemoteShell
from tests.support.raw_server import http_response, raw_server
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.waiting import eventually
from tests.support.webhooks import Receiver, configure_endpoints, webhook_receiver


async def dialtone(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, app, list(arguments))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
async def service(
    telnyx: Telnyx, sqlite: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    """A service with two dead letters."""
    changes = configure_endpoints(tmp_path, {"backend": receiver})
    for name, value in replica_variables(telnyx.url, sqlite).items():
        if not name.startswith(("DIALTONE_ISSUER", "DIALTONE_AUDIENCE")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("DIALTONE_CONFIG", changes["config"])
    receiver.status = 500
    async with running_service(telnyx, sqlite, propagation_seconds=0, **changes) as service:
        for device in ("laptop", "phone"):
            await service.issue(device)
        await eventually(lambda: receiver.received)
        deliverer = service.components.events.deliverer
        await deliverer.finish()  # writes the reason of the failure
        deliveries = service.components.ledger.deliveries
        assert await deliveries.bury_expired("backend", service.clock() + DELIVERY_PERIOD) == 2
        await deliverer.finish()  # a retry may have begun before
        receiver.received.clear()
        yield service


async def test_dead_letters_are_listed_with_the_reason(service: Service) -> None:
    listed = await dialtone("events", "ls", "--json")

    events = json.loads(listed.stdout)
    assert [event["device_id"] for event in events] == ["phone", "laptop"]
    assert "status_500" in {event["failure"] for event in events}


async def test_replayed_event_is_delivered_by_the_service(service: Service, receiver: Receiver) -> None:
    receiver.status = 200
    event = json.loads((await dialtone("events", "ls", "--json")).stdout)[0]

    replayed = await dialtone("events", "replay", event["event_id"])

    assert (replayed.exit_code, replayed.stdout) == (0, "Replayed 1 dead letter.\n")
    service.clock.advance(timedelta(minutes=2))
    await eventually(lambda: receiver.received)
    assert receiver.received[0].id == event["event_id"]


async def test_replay_reports_dead_letters_of_a_removed_endpoint_as_skipped(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "dialtone.toml"
    file.write_text(file.read_text().replace('name = "backend"', 'name = "other"'))

    text, as_json = await dialtone("events", "replay", "--all"), await dialtone("events", "replay", "--all", "--json")

    assert (text.exit_code, text.stdout) == (1, "Replayed 0 dead letters.\n")
    assert "Skipped 2 dead letters whose endpoint is not in the configuration." in text.stderr
    assert json.loads(as_json.stdout) == {"replayed": 0, "remaining": 0, "endpoint_removed": 2}
    assert len(json.loads((await dialtone("events", "ls", "--json")).stdout)) == 2, "they can be replayed later"


async def test_replay_reports_dead_letters_that_stay_locked_as_skipped(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("TOKEN")
    answer = {"replayed": 0, "complete": False, "remaining": 3, "endpoint_removed": 0}
    response = http_response(json.dumps(answer).encode(), "Content-Type: application/json")
    async with raw_server(response) as port:
        shell = RemoteShell(f"http://127.0.0.1:{port}", tmp_path / "token")
        replayed = await shell.run("events", "replay", "--all")

    assert (replayed.exit_code, replayed.stdout) == (1, "Replayed 0 dead letters.\n")
    assert (
        "Skipped 3 dead letters that another request or replica is changing. Run the command again." in replayed.stderr
    )


async def test_replay_of_an_unknown_id_fails(service: Service) -> None:
    replayed = await dialtone("events", "replay", "0" * 32)

    assert replayed.exit_code == 1
    assert "No dead letter has this ID." in replayed.stderr


async def test_replay_is_recorded_in_the_audit(service: Service) -> None:
    assert (await dialtone("events", "replay", "--all", "--json")).exit_code == 0

    audited = await dialtone("audit", "tail", "--json", "--action", "admin_action")
    assert json.loads(audited.stdout)["reason"] == "events_replayed"


async def endpoint_check() -> tuple[str, str]:
    result = await dialtone("doctor", "--json")
    found = next(finding for finding in json.loads(result.stdout) if finding["about"] == "endpoint backend")
    assert found["verdict"] == "ok" or found["fix"]
    return found["verdict"], found["seen"]


async def test_doctor_accepts_an_endpoint_that_responds(service: Service, receiver: Receiver) -> None:
    assert await endpoint_check() == ("ok", "its host responds over TLS at an allowed address")
    assert not receiver.received, "the check sends no event"


async def test_doctor_reports_an_endpoint_at_a_private_address(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "dialtone.toml"
    file.write_text(file.read_text().replace('allowed_networks = ["127.0.0.0/8"]\n', ""))

    assert await endpoint_check() == ("failed", "the host has an address that is not allowed")


async def test_doctor_reports_a_certificate_of_another_authority(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "dialtone.toml"
    file.write_text(file.read_text().replace(f'ca_file = "{tmp_path}/ca.pem"\n', ""))

    assert await endpoint_check() == ("failed", "the TLS certificate is not trusted")


async def test_doctor_reports_an_unknown_host(service: Service, tmp_path: Path, receiver: Receiver) -> None:
    file = tmp_path / "dialtone.toml"
    file.write_text(file.read_text().replace(receiver.url, "https://backend.invalid/hooks"))

    assert await endpoint_check() == ("failed", "the host name cannot be resolved")


async def test_doctor_warns_of_a_redirect(service: Service, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 301, {"Location": "https://example.com/"}

    assert (await endpoint_check())[0] == "warning"
