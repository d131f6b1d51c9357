"""`make dev`: one command starts everything, prints a command to try, and leaves nothing running."""

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
from pathlib import Path

import httpx

from tests.support.http_server import free_port
from tests.support.replicas import command, environment


def ports() -> dict[str, str]:
    return {
        name: str(free_port())
        for name in ("DIALTONE_PORT", "DIALTONE_SANDBOX_PORT", "DIALTONE_IDENTITY_PORT", "DIALTONE_PAGE_PORT")
    }


@contextmanager
def dev(folder: Path, settings: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command and the curl command that it prints."""
    process = subprocess.Popen(
        command("dev"),
        env=environment(**settings),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("curl ")), "")
        yield process, line
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(30)


def pasted(line: str) -> dict[str, str]:
    """The output of the printed command, run with curl if it is installed."""
    if shutil.which("curl"):
        output = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    else:
        words = shlex.split(line)
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        url = next(word for word in words if word.startswith("http://"))
        output = httpx.post(url, headers=headers, content=words[words.index("-d") + 1], trust_env=False).text
    body: dict[str, str] = json.loads(output)
    return body


def is_free(port: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_printed_command_returns_a_login_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    chosen = ports()
    with dev(tmp_path, chosen) as (process, line):
        login = pasted(line)
        again = pasted(line)
        process.send_signal(signal.SIGINT)
        status = process.wait(30)

    assert login["login_token"].count(".") == 2
    assert again == login | {"server_time": again["server_time"]}
    assert status == 0
    assert all(is_free(port) for port in chosen.values())
    assert not _left_over(chosen)
    assert (tmp_path / ".dialtone" / "ledger.db").exists()


def test_second_run_works_with_an_old_ledger_and_an_empty_sandbox(tmp_path: Path) -> None:
    chosen = ports()
    with dev(tmp_path, chosen) as (_, line):
        first = pasted(line)
    with dev(tmp_path, chosen) as (_, line):
        second = pasted(line)

    assert second["login_token"]
    assert second["sip_username"] != first["sip_username"]


def test_port_in_use_is_reported_with_its_setting(tmp_path: Path) -> None:
    chosen = ports()
    for name in chosen:
        with socket.socket() as other:
            other.bind(("127.0.0.1", int(chosen[name])))
            other.listen()
            ended = subprocess.run(
                command("dev"), env=environment(**chosen), cwd=tmp_path, capture_output=True, text=True, check=False
            )

        assert ended.returncode == 1
        assert ended.stderr.startswith(f"Port {chosen[name]} is in use.")
        assert f"{name}=" in ended.stderr


def test_demo_token_without_a_running_provider_explains_the_fix(tmp_path: Path) -> None:
    ended = subprocess.run(
        command("sandbox", "token"),
        env=environment(**ports()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "make dev" in ended.stderr


def test_dead_child_process_stops_the_others(tmp_path: Path) -> None:
    chosen = ports()
    with dev(tmp_path, chosen) as (process, _):
        (sandbox,) = _pids(chosen["DIALTONE_SANDBOX_PORT"], "telnyx")
        os.kill(sandbox, signal.SIGKILL)
        status = process.wait(30)

    assert status == 1
    assert all(is_free(port) for port in chosen.values())


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
