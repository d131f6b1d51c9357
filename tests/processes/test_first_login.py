"""docs/telnyx.md: its commands, run one after the other against the sandbox, get a login and revoke it."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app.sandbox.account import DEMO_KEY
from app.sandbox.identity_provider import create_identity_provider
from tests.support.http_server import DeferredApp, free_port, serve
from tests.support.sandbox import Telnyx

PAGE = Path(__file__).parents[2] / "docs" / "telnyx.md"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def commands(page: Path) -> list[str]:
    """The shell blocks of the page."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


class Shell:
    """A shell with the commands of this environment, and without settings of the machine."""

    def __init__(self, folder: Path, port: int) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DIALTONE", "TELNYX"))}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self._environment = environment | {
            "DIALTONE_PORT": str(port),
            "DIALTONE_DATABASE_URL": f"sqlite:///{folder}/ledger.db",
            "DIALTONE_PROPAGATION_SECONDS": "0",
        }
        self._folder = folder

    async def run(self, script: str) -> str:
        """Run a script in a process group of its own, which is stopped afterwards. Returns its output."""
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euc",
            script,
            cwd=self._folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(240):
                output, errors = await process.communicate()
        finally:
            _stop(process.pid)
        assert process.returncode == 0, errors.decode() + output.decode()
        return output.decode()


def _stop(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)


@needs_curl
async def test_commands_of_the_telnyx_page_issue_and_revoke_a_login(telnyx: Telnyx, tmp_path: Path) -> None:
    provider, port = DeferredApp(), free_port()
    async with serve(provider) as issuer, httpx.AsyncClient() as client:
        provider.app = create_identity_provider(issuer)
        token = (await client.post(f"{issuer}/token", json={"user": "alice"})).json()["access_token"]
        (tmp_path / "token.txt").write_text(token)
        key, connection, chosen, identity, explained, started, revoked = commands(PAGE)
        shell = Shell(tmp_path, port)
        filled = key.replace("KEY...", DEMO_KEY).replace("https://api.telnyx.com/v2", telnyx.url)
        made = json.loads(await shell.run(filled + connection))["data"]["id"]
        filled += chosen.replace("1293384261075731499", made)
        filled += identity.replace("https://id.example.com", issuer)
        filled += explained + started.replace("127.0.0.1:8010", f"127.0.0.1:{port}")
        ending = revoked.replace(
            "LEASE_ID", '"$(dialtone leases ls --json | grep -o -m1 "[0-9a-f]\\{32\\}" | head -1)"'
        )

        said = await shell.run(filled + "\n" + ending + "\nkill %1; wait")

    assert '"login_token"' in said
    assert "1 device logged out. Telnyx has confirmed the deletion." in said
    assert made in telnyx.sandbox.account.connections
