"""The `dialtone` command in remote mode, in the process of the test."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from app.cli import app
from app.vending.policy import ADMIN_SCOPE
from tests.support.admin_api import current_token
from tests.support.service import Service


@dataclass
class RemoteShell:
    """An operator's shell on another machine: an address and a file with a token, and no settings of the service."""

    url: str
    token_file: Path
    extra: dict[str, str] = field(default_factory=dict)

    async def run(self, *arguments: str, typed: str | None = None) -> Result:
        environment = {"DIALTONE_URL": self.url, "DIALTONE_TOKEN_FILE": str(self.token_file), **self.extra}
        return await asyncio.to_thread(CliRunner(env=environment).invoke, app, list(arguments), input=typed)

    async def run_json(self, *arguments: str) -> Any:
        done = await self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


def operator_shell(service: Service, folder: Path, **claims: Any) -> RemoteShell:
    """The shell of an operator of a running service. `claims` change the token."""
    path = folder / "operator-token"
    path.write_text(current_token(service, "olga", **{"scope": ADMIN_SCOPE, **claims}) + "\n")
    return RemoteShell(service.url, path)
