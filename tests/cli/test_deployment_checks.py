"""`dialtone doctor` checks the deployment: database address, listeners, proxies, push material and rotations."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from tests.support.http_server import refusing_port
from tests.support.push_api import register
from tests.support.push_material import YEAR, ios
from tests.support.replicas import replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import AUDIENCE, ISSUER

OK = "ok"


@pytest.fixture
async def service(telnyx: Telnyx, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service, and the environment of a shell on the same machine."""
    for name, value in replica_variables(telnyx.url, sqlite).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DIALTONE_TAG_KEY", "k" * 32)
    async with running_service(telnyx, sqlite) as service:
        yield service


async def findings(about: str) -> list[tuple[str, str]]:
    """Verdict and text of the findings about this. Each problem has exactly one fix, and a passed check has none."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--json"])
    found: list[dict[str, Any]] = json.loads(result.stdout)
    for finding in found:
        assert (finding["fix"] is None) == (finding["verdict"] == OK), finding
        assert finding["fix"] is None or "; " not in finding["fix"].replace("; not needed", ""), "one remedy"
    return [(finding["verdict"], finding["seen"]) for finding in found if finding["about"] == about]


async def test_rotation_in_progress_is_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await findings("rotation") == [(OK, "none in progress")]

    monkeypatch.setenv("DIALTONE_PREVIOUS_TAG_KEY", "o" * 32)

    assert await findings("DIALTONE_TAG_KEY") == [("warning", "the previous value is accepted too")]
    assert await findings("rotation") == []


async def test_rotation_of_a_shared_secret_is_reported(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DIALTONE_ISSUER", "DIALTONE_AUDIENCE", "DIALTONE_ISSUER_PEM"):
        monkeypatch.delenv(name)
    for name in ("new", "old"):
        (tmp_path / name).write_text(name * 20)
    (tmp_path / "dialtone.toml").write_text(
        f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["{AUDIENCE}"]\n'
        f'secret_file = "{tmp_path / "new"}"\nprevious_secret_file = "{tmp_path / "old"}"\n'
    )
    monkeypatch.setenv("DIALTONE_CONFIG", str(tmp_path / "dialtone.toml"))

    assert ("warning", "the previous shared secret is accepted too") in await findings(f"issuer {ISSUER}")


async def test_tag_key_that_depends_on_the_api_key_is_reported(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIALTONE_TAG_KEY")

    assert [verdict for verdict, _ in await findings("tag key")] == ["warning"]


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("192.0.2.1", "192.0.2.1 is not an address of this machine"),
        ("no-such-host.invalid", "no-such-host.invalid cannot be resolved"),
        ("unix:/no/such/folder/socket", "the folder /no/such/folder does not exist or is not writable"),
    ],
)
async def test_impossible_listener_is_reported(
    service: Service, monkeypatch: pytest.MonkeyPatch, host: str, fault: str
) -> None:
    monkeypatch.setenv("DIALTONE_HOST", f"127.0.0.1,{host}")

    assert await findings("public listener") == [("failed", fault)]


async def test_listeners_that_are_available_pass(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await findings("admin listener") == [(OK, "none: the public listener serves operators and probes too")]

    monkeypatch.setenv("DIALTONE_HOST", "::")
    monkeypatch.setenv("DIALTONE_ADMIN_PORT", "8090")

    assert await findings("public listener") == [(OK, "can listen on ::")]
    assert await findings("admin listener") == [(OK, "can listen on 127.0.0.1")]


async def test_forgeable_client_addresses_are_reported(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_TRUSTED_PROXIES", "*")
    local = await findings("trusted proxies")
    monkeypatch.setenv("DIALTONE_HOST", "::")
    public = await findings("trusted proxies")

    assert (local[0][0], public[0][0]) == (OK, "warning")


async def test_push_certificate_is_reported_before_and_after_its_expiry(service: Service) -> None:
    now = service.clock()
    for number, until in enumerate((now + YEAR / 24, now + YEAR)):
        body = {**ios(since=now - YEAR / 2, until=until), "alias": f"app-{number}"}
        assert (await register(service, body)).status_code == 201
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--json"])

    found = [one for one in json.loads(result.stdout) if one["about"].startswith("push credential ")]

    assert [(one["verdict"], one["fix"] is None) for one in found] == [("warning", False)]
    assert "expires in 1" in found[0]["seen"]


@pytest.mark.parametrize(
    ("query", "verdict"),
    [("sslmode=verify-full&sslrootcert=system", OK), ("sslmode=require", "warning"), ("", "warning")],
)
async def test_unverified_database_server_is_reported(
    service: Service, monkeypatch: pytest.MonkeyPatch, query: str, verdict: str
) -> None:
    monkeypatch.setenv("DIALTONE_DATABASE_URL", f"postgresql://user:CANARY@db.invalid/ledger?{query}")

    assert [found for found, _ in await findings("database address")] == [verdict]
    assert (await findings("ledger"))[0][0] == "failed"


async def test_database_on_this_machine_needs_no_tls(
    service: Service, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    monkeypatch.setenv("DIALTONE_DATABASE_URL", postgres)

    assert await findings("database address") == [(OK, "the server is on this machine")]


async def test_standby_that_does_not_respond_is_reported(
    service: Service, telnyx: Telnyx, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = int(service.url.rsplit(":", 1)[1])
    monkeypatch.setenv(
        "DIALTONE_DATABASE_URL", f"postgresql://user:CANARY@127.0.0.1:{up},127.0.0.1:{refusing_port()}/ledger"
    )

    assert await findings("database hosts") == [("warning", "1 of 2 do not respond (by position: 2)")]
