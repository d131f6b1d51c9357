"""`make dev`: one command starts everything, prints a command to try, and leaves nothing running."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from typer.testing import CliRunner, Result

from app.cli import app
from app.sandbox.demo_files import grant_key
from app.sandbox.identity_provider import create_identity_provider
from app.sandbox.providers import DEMO, simulate
from tests.support.http_server import free_port, serve
from tests.support.replicas import command, environment

PATIENT: dict[str, Any] = {"trust_env": False, "timeout": 60}


def ports() -> dict[str, str]:
    return {
        name: str(free_port())
        for name in ("DIALTONE_PORT", "DIALTONE_SANDBOX_PORT", "DIALTONE_IDENTITY_PORT", "DIALTONE_PAGE_PORT")
    }


@dataclass
class Dev:
    """A running `dialtone dev`."""

    process: subprocess.Popen[str]
    lines: list[str]
    """Its output, up to the curl command."""

    @property
    def curl(self) -> str:
        return self.lines[-1]

    def says(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@contextmanager
def dev(folder: Path, settings: dict[str, str], *arguments: str) -> Iterator[Dev]:
    process = subprocess.Popen(
        command("dev", *arguments),
        env=environment(**settings),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield Dev(process, _lines_until(process, "curl "))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)


def _lines_until(process: subprocess.Popen[str], start: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(start):
            return lines
    raise AssertionError(lines)


def pasted(line: str, **variables: str) -> dict[str, str]:
    """The output of the printed command, run with curl if it is installed."""
    if shutil.which("curl"):
        shell = ["sh", "-c", line]
        output = subprocess.run(shell, env=os.environ | variables, capture_output=True, text=True, check=True).stdout
    else:
        words = shlex.split(Template(line).safe_substitute(variables))
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        url = next(word for word in words if word.startswith("http://"))
        output = httpx.post(url, headers=headers, content=words[words.index("-d") + 1], **PATIENT).text
    body: dict[str, str] = json.loads(output)
    return body


def is_free(port: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_printed_commands_of_two_runs_return_logins_and_no_process_is_left(tmp_path: Path) -> None:
    """The second run has the old ledger, an empty sandbox, another provider, and a frontend of the user's own."""
    chosen = ports()
    with dev(tmp_path, chosen) as first:
        login = pasted(first.curl)
        again = pasted(first.curl)
        first.process.send_signal(signal.SIGINT)
        status = first.process.wait(60)

    assert login["login_token"].count(".") == 2
    assert again == login | {"server_time": again["server_time"]}
    assert status == 0
    assert all(is_free(port) for port in chosen.values())
    assert not _left_over(chosen)
    assert not first.says("environment")
    assert first.says(f"dialtone sandbox token bob --port {chosen['DIALTONE_IDENTITY_PORT']} ")

    own = {"DIALTONE_CORS_ORIGINS": "http://localhost:5173", "DIALTONE_DATABASE_URL": "x", "TELNYX_API_KEY": "y"}
    with dev(tmp_path, chosen | own, "--provider", "cognito") as second:
        other_login = pasted(second.curl)
        service = f"http://127.0.0.1:{chosen['DIALTONE_PORT']}/v1/telephony-credentials"
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        origins = ("http://localhost:5173", f"http://localhost:{chosen['DIALTONE_PAGE_PORT']}", "http://localhost:1")
        preflights = [
            httpx.options(service, headers=asked | {"Origin": origin}, **PATIENT).status_code for origin in origins
        ]
        wrong = _token(chosen, "--kind", "id")
        refused = httpx.post(service, headers={"Authorization": f"Bearer {wrong}"}, json={}, **PATIENT)
        (sandbox,) = _pids(chosen["DIALTONE_SANDBOX_PORT"], "telnyx")
        os.kill(sandbox, signal.SIGKILL)
        status = second.process.wait(60)

    assert other_login["sip_username"] != login["sip_username"]
    assert preflights == [200, 200, 400]
    assert refused.json()["code"] == "invalid_token"
    assert second.says("Passed on from your environment: DIALTONE_CORS_ORIGINS")
    assert second.says(": DIALTONE_DATABASE_URL, TELNYX_API_KEY")
    assert second.says("simulates Amazon Cognito")
    assert status == 1, "a dead process stops the others"
    assert all(is_free(port) for port in chosen.values())


def test_own_issuer_replaces_the_demo_provider(tmp_path: Path) -> None:
    """The own issuer is a simulated provider in another process. Its printed settings are in dialtone.toml."""
    chosen = ports()
    port = str(free_port())
    printing = command("sandbox", "identity", "--provider", "entra", "--port", port)
    provider = subprocess.Popen(printing, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        printed = _lines_until(provider, "#   .venv/bin/dialtone sandbox token")
        (tmp_path / "own.toml").write_text("".join(printed))
        with dev(tmp_path, chosen | {"DIALTONE_CONFIG": "own.toml"}) as run:
            token = _token(chosen, "--port", port)
            login = pasted(run.curl, TOKEN=token)
            page = httpx.get(f"http://127.0.0.1:{chosen['DIALTONE_PAGE_PORT']}/config.json", **PATIENT).json()
            has_demo_provider = not is_free(chosen["DIALTONE_IDENTITY_PORT"])
    finally:
        provider.terminate()
        provider.wait(30)

    assert login["login_token"]
    assert not has_demo_provider
    assert (
        page["notice"]
        == "Demo users cannot sign in: Dialtone accepts tokens of the issuers in own.toml. Use your own page."
    )
    assert run.says("your own: the issuers in own.toml")


def test_own_file_with_the_demo_issuer_keeps_the_demo_users(tmp_path: Path) -> None:
    chosen = ports()
    own = tmp_path / "own.toml"
    issuer = simulate(DEMO, f"http://127.0.0.1:{chosen['DIALTONE_IDENTITY_PORT']}").block()
    rule = '[[policy.rules]]\nname = "demo-users"\n'
    own.write_text(f"{issuer}\n{rule}")
    with dev(tmp_path, chosen | {"DIALTONE_CONFIG": "own.toml"}) as run:
        login = pasted(run.curl)
        page = httpx.get(f"http://127.0.0.1:{chosen['DIALTONE_PAGE_PORT']}/config.json", **PATIENT).json()
        own.write_text(f'{issuer}\n{rule}effect = "deny"\n')
        (reload,) = [line for line in run.lines if line.startswith("Reload own.toml: ")]
        subprocess.run(shlex.split(reload.removeprefix("Reload own.toml: ")), check=True)
        deadline = time.monotonic() + 60
        while (denied := pasted(run.curl)).get("code") is None and time.monotonic() < deadline:
            time.sleep(0.1)

    assert login["login_token"]
    assert (page["notice"], page["users"]) == (None, ["alice", "bob", "carol"])
    assert denied["code"] == "access_denied"


def test_commands_use_the_settings_that_dev_writes_without_secrets_of_the_user(tmp_path: Path) -> None:
    own = {"DIALTONE_OTHER_GRANT_KEY": grant_key(), "DIALTONE_MAX_DEVICES": "3"}
    with dev(tmp_path, ports() | own) as run:
        login = pasted(run.curl)

    file = tmp_path / ".dialtone" / "dev.env"
    used = environment(DIALTONE_ENV_FILE=str(file))
    listed = subprocess.run(
        command("leases", "ls"), env=used, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert listed.startswith(login["id"])
    assert "DIALTONE_MAX_DEVICES=3\n" in file.read_text()
    assert "OTHER_GRANT_KEY" not in file.read_text()
    assert (tmp_path / ".dialtone" / "grant-key.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("settings", "arguments", "reason"),
    [
        ({}, ["--provider", "cognitoo"], "There is no provider 'cognitoo'. Did you mean cognito"),
        (
            {"DIALTONE_ISSUER": "https://id.example.com"},
            ["--provider", "okta"],
            "To simulate an identity provider, unset",
        ),
        ({"DIALTONE_ENV_FILE": "missing.env"}, [], "DIALTONE_ENV_FILE names a file that cannot be read."),
        ({"DIALTONE_PORT": "http"}, [], "DIALTONE_PORT must be a port number"),
    ],
)
def test_unusable_setting_is_reported(settings: dict[str, str], arguments: list[str], reason: str) -> None:
    ended = in_process("dev", *arguments, **(ports() | settings))

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith(reason)


@pytest.mark.parametrize(
    "name", ["DIALTONE_PORT", "DIALTONE_SANDBOX_PORT", "DIALTONE_IDENTITY_PORT", "DIALTONE_PAGE_PORT"]
)
def test_port_in_use_is_reported_with_its_setting(name: str) -> None:
    chosen = ports()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(chosen[name])))
        other.listen()
        ended = in_process("dev", **chosen)

    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"Port {chosen[name]} is in use.")
    assert f"{name}=" in ended.stderr


def test_demo_token_without_a_running_provider_explains_the_fix() -> None:
    ended = in_process("sandbox", "token", **ports())

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "make dev" in ended.stderr


def test_sandbox_command_reports_a_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = in_process("sandbox", "identity", "--port", str(port))

    assert ended.exit_code == 1
    assert ended.output == f"Port {port} is in use. Choose another one with --port.\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["mallory"], "There is no demo user 'mallory'. The demo users are alice, bob, carol."),
        (["alice", "--kind", "machine"], "This provider issues no token of the kind 'machine'. Kinds: id, access"),
    ],
)
async def test_token_that_does_not_exist_is_reported(options: list[str], reason: str) -> None:
    async with serve(create_identity_provider("http://127.0.0.1", provider="google")) as base:
        ended = await asyncio.to_thread(in_process, "sandbox", "token", *options, "--port", base.rsplit(":", 1)[1])

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith(reason)


async def test_token_of_another_program_is_not_printed() -> None:
    async with serve(Starlette()) as base:
        ended = await asyncio.to_thread(in_process, "sandbox", "token", "--port", base.rsplit(":", 1)[1])

    assert ended.exit_code == 1
    assert ended.stderr.startswith("Another program than the demo identity provider listens on port")


def in_process(*arguments: str, **settings: str) -> Result:
    """The command in the test's process, which saves the start of an interpreter."""
    return CliRunner(env=settings).invoke(app, arguments)


def _token(chosen: dict[str, str], *options: str) -> str:
    printed = in_process("sandbox", "token", "alice", *options, **chosen)
    assert printed.exit_code == 0, printed.stderr
    return printed.stdout.strip()


def _pids(port: str, word: str) -> list[int]:
    """Processes with this port in their environment and this word in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode().split("\0")
            if word in line and re.search(rf"_PORT={port}\0", (entry / "environ").read_bytes().decode()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _left_over(chosen: dict[str, str]) -> list[int]:
    time.sleep(0.2)
    return [pid for word in ("serve", "telnyx", "identity") for pid in _pids(chosen["DIALTONE_PORT"], word)]
