"""The systemd unit, simulated with processes: start, reload after a change of the key or the settings, and stop.

systemd does not run here. `systemd-analyze verify` checks the unit's syntax.
"""

import asyncio
import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from tests.support.http_server import free_port, http_client
from tests.support.replicas import ROOT, STOP_SECONDS, environment, wait_until_ready
from tests.support.sandbox import Telnyx
from tests.support.tokens import AUDIENCE, ISSUER, pem, token
from tests.support.waiting import eventually

SHIPPED = ROOT / "deploy" / "systemd"
COMMAND = "/opt/dialtone/bin/dialtone"


def unit_text(folder: Path) -> str:
    """The shipped unit with the paths of this test."""
    text = (SHIPPED / "dialtone.service").read_text()
    for shipped, here in (
        ("/etc/dialtone", f"{folder}/etc"),
        ("/etc/default/dialtone", f"{folder}/default"),
        ("/var/lib/dialtone", f"{folder}/state"),
        (COMMAND, f"{folder}/bin/dialtone"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    return text


def service_of(text: str) -> dict[str, str]:
    """The section of the service. Repeated names keep their last value."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return dict(parser["Service"])


@dataclass
class Played:
    """The service as systemd would run it."""

    service: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]
    client: httpx.AsyncClient

    def reload(self) -> None:
        """Run the command of `systemctl reload`."""
        command = self.service["ExecReload"].replace("$MAINPID", str(self.process.pid))
        subprocess.run(command.split(), check=True)

    def log(self) -> str:
        return (self.folder / "journal").read_text()

    async def issue(self, device: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token()}"}
        return await self.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


@asynccontextmanager
async def played(telnyx: Telnyx, folder: Path, *, is_ready: bool = True, key: str = DEMO_KEY) -> AsyncIterator[Played]:
    """Install the files as the documentation says, and run ExecStartPre and ExecStart."""
    for name in ("etc", "state", "bin"):
        (folder / name).mkdir()
    script = folder / "bin" / "dialtone"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m app.cli "$@"\n')
    script.chmod(0o755)
    port = free_port()
    settings = (SHIPPED / "dialtone.env").read_text()
    for shipped, here in (
        ("/etc/dialtone", f"{folder}/etc"),
        ("/var/lib/dialtone", f"{folder}/state"),
        ("TELNYX_CONNECTION_ID=", f"TELNYX_CONNECTION_ID={DEMO_CONNECTION}"),
        ("DIALTONE_ISSUER=", f"DIALTONE_ISSUER={ISSUER}"),
        ("DIALTONE_AUDIENCE=", f"DIALTONE_AUDIENCE={AUDIENCE}"),
    ):
        assert shipped in settings
        settings = settings.replace(shipped, here)
    key_line = pem().replace("\n", "\\n")
    settings += f"DIALTONE_ISSUER_PEM={key_line}\nDIALTONE_PORT={port}\nTELNYX_BASE_URL={telnyx.url}\n"
    (folder / "etc" / "dialtone.env").write_text(settings)
    (folder / "etc" / "telnyx-api-key").write_text(f"{key}\n")
    service = service_of(unit_text(folder))
    variables = environment(**dict(pair.split("=", 1) for pair in service["Environment"].split()))
    place = service["WorkingDirectory"]
    subprocess.run(service["ExecStartPre"].split(), env=variables, cwd=place, check=True, stdout=subprocess.DEVNULL)
    with (folder / "journal").open("wb") as journal:
        process = subprocess.Popen(service["ExecStart"].split(), env=variables, cwd=place, stderr=journal)
    try:
        async with http_client(f"http://127.0.0.1:{port}", timeout=20) as client:
            await wait_until_ready(client, process, folder / "journal", "/readyz" if is_ready else "/livez")
            yield Played(service, folder, process, client)
    finally:
        process.kill()
        process.wait()


async def test_reload_after_a_change_of_the_key_uses_the_new_key(telnyx: Telnyx, tmp_path: Path) -> None:
    async with played(telnyx, tmp_path, is_ready=False, key="KEY_withdrawn") as running:
        before = await running.issue("laptop")
        (tmp_path / "etc" / "telnyx-api-key").write_text(f"{DEMO_KEY}\n")
        running.reload()
        await eventually(lambda: '"reloaded"' in running.log())
        after = await running.issue("laptop")

    assert before.json()["code"] == "telnyx_key_rejected"
    assert after.status_code == 201


async def test_reload_after_a_change_of_the_settings_applies_them(telnyx: Telnyx, tmp_path: Path) -> None:
    async with played(telnyx, tmp_path) as running:
        assert (await running.issue("laptop")).status_code == 201
        with (tmp_path / "etc" / "dialtone.env").open("a") as settings:
            settings.write("DIALTONE_MAX_DEVICES=1\nDIALTONE_AT_DEVICE_LIMIT=reject\n")
        running.reload()
        await eventually(lambda: '"reloaded"' in running.log())

        assert (await running.issue("phone")).json()["code"] == "device_limit_reached"


async def test_reload_with_unreadable_settings_changes_nothing(telnyx: Telnyx, tmp_path: Path) -> None:
    async with played(telnyx, tmp_path) as running:
        (tmp_path / "etc" / "dialtone.env").unlink()
        running.reload()
        await eventually(lambda: "reload_rejected" in running.log())

        assert "names a file that does not exist" in running.log()
        assert (await running.issue("laptop")).status_code == 201


async def test_log_is_json_without_a_setting(telnyx: Telnyx, tmp_path: Path) -> None:
    async with played(telnyx, tmp_path) as running:
        await eventually(lambda: "\n" in running.log())
        assert json.loads(running.log().splitlines()[0])["event"]


async def test_stop_ends_with_an_exit_status_that_the_unit_accepts(telnyx: Telnyx, tmp_path: Path) -> None:
    async with played(telnyx, tmp_path) as running:
        running.process.send_signal(getattr(signal, running.service["KillSignal"]))
        ended = await asyncio.to_thread(running.process.wait, STOP_SECONDS)

    assert 128 - ended == int(running.service["SuccessExitStatus"])


def test_files_that_the_service_reads_are_in_folders_that_its_user_can_read() -> None:
    """ProtectSystem makes /etc read-only, and no line hides it."""
    service = service_of((SHIPPED / "dialtone.service").read_text())

    assert service["User"] == service["Group"] == "dialtone"
    assert not {"InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "LoadCredential"} & service.keys()


def test_every_path_of_the_settings_is_one_that_the_unit_provides() -> None:
    paths = set(re.findall(r"(?<=[=:/])/(?:etc|var/lib|run)/\w+", (SHIPPED / "dialtone.env").read_text()))
    service = service_of((SHIPPED / "dialtone.service").read_text())

    assert paths == {"/etc/dialtone", "/var/lib/dialtone", "/run/dialtone"}
    assert service["StateDirectory"] == service["RuntimeDirectory"] == "dialtone"


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("REQUIRE_ALL"), reason="systemd is not installed"
)
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "dialtone"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    unit = tmp_path / "dialtone.service"
    unit.write_text(unit_text(tmp_path))

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
