"""`dialtone dev`: runs sandbox, identity provider, softphone page and service as processes that stop together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.sandbox.identity_provider import DEMO_AUDIENCE

LOOPBACK = "127.0.0.1"
PORTS = {
    "DIALTONE_PORT": 8010,
    "DIALTONE_SANDBOX_PORT": 8011,
    "DIALTONE_IDENTITY_PORT": 8012,
    "DIALTONE_PAGE_PORT": 8013,
}
"""The environment variable of each port, and its default."""

START_SECONDS = 30.0
STOP_SECONDS = 25.0
TOKEN_SECONDS = 12 * 3600


class StackError(Exception):
    """A failure, with a one-line message for the terminal."""


class _Stopped(Exception):
    """Ctrl-C or a signal to stop."""


def run() -> int:
    """Start all processes, print their URLs, and wait. Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with ExitStack() as stack:
            _run(stack)
    except _Stopped:
        print("\nAll processes have stopped.", flush=True)  # noqa: T201 - output of a command
        return 0
    except StackError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        return 1
    return 0


def demo_token(user: str, *, scope: str = "phone", ttl_seconds: int = TOKEN_SECONDS) -> str:
    """An access token of a demo user. Raises StackError."""
    body = json.dumps({"user": user, "scope": scope, "ttl_seconds": ttl_seconds}).encode()
    url = f"http://{LOOPBACK}:{_port('DIALTONE_IDENTITY_PORT')}/token"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            token: str = json.load(answer)["access_token"]
            return token
    except urllib.error.HTTPError:
        raise StackError(f"There is no demo user {user!r}. The demo users are alice, bob and carol.") from None
    except OSError:
        raise StackError("The demo identity provider is unavailable. Is `make dev` running?") from None


def _run(stack: ExitStack) -> None:
    ports = {variable: _port(variable) for variable in PORTS}
    for variable, port in ports.items():
        _check_free(variable, port)
    environment = _environment(ports)
    children: dict[str, subprocess.Popen[bytes]] = {}
    for name, part in (("sandbox", "telnyx"), ("identity provider", "identity"), ("page", "page")):
        children[name] = stack.enter_context(_child(["sandbox", part], environment, is_quiet=True))
    if subprocess.run(_command("migrate"), env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        raise StackError("The migration of the ledger in .dialtone/ failed; its error is above.")
    children["service"] = stack.enter_context(_child(["serve"], environment))
    base = f"http://{LOOPBACK}:{ports['DIALTONE_PORT']}"
    _wait_until_ready(f"{base}/readyz", children)
    _say_where(base, ports)
    while True:
        _check_alive(children)
        time.sleep(0.5)


def _environment(ports: dict[str, int]) -> dict[str, str]:
    """The environment of the demo. It inherits no setting of Dialtone, so that no real API key is used."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DIALTONE_", "TELNYX_"))}
    wanted = {
        "TELNYX_API_KEY": DEMO_KEY,
        "TELNYX_CONNECTION_ID": DEMO_CONNECTION,
        "TELNYX_BASE_URL": f"http://{LOOPBACK}:{ports['DIALTONE_SANDBOX_PORT']}/v2",
        "DIALTONE_ISSUER": f"http://{LOOPBACK}:{ports['DIALTONE_IDENTITY_PORT']}",
        "DIALTONE_AUDIENCE": DEMO_AUDIENCE,
        "DIALTONE_DATABASE_URL": "sqlite:///.dialtone/ledger.db",
        "DIALTONE_PROPAGATION_SECONDS": "1",
        "DIALTONE_RTC_HOST": f"ws://{LOOPBACK}:{ports['DIALTONE_SANDBOX_PORT']}",
        "DIALTONE_CORS_ORIGINS": f"http://{LOOPBACK}:{ports['DIALTONE_PAGE_PORT']}",
        "DIALTONE_SIP_PASSWORD": "true",
        "DIALTONE_WARM_POOL_SIZE": "4",
        "DIALTONE_LOG_LEVEL": os.environ.get("DIALTONE_LOG_LEVEL", "info"),
        "DIALTONE_ENV_FILE": "",
    }
    return inherited | wanted | {variable: str(port) for variable, port in ports.items()}


@contextmanager
def _child(
    arguments: list[str], environment: dict[str, str], *, is_quiet: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a new session, so that Ctrl-C does not reach it directly. It is stopped when the context ends."""
    output = subprocess.DEVNULL if is_quiet else None
    process = subprocess.Popen(_command(*arguments), env=environment, stdout=output, start_new_session=True)
    try:
        yield process
    finally:
        # A second Ctrl-C must not leave processes running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


def _port(variable: str) -> int:
    text = os.environ.get(variable) or str(PORTS[variable])
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise StackError(f"{variable} must be a port number between 1 and 65535.")
    return int(text)


def _check_free(variable: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise StackError(
                f"Port {port} is in use. Set another port, for example: {variable}={port + 1000} make dev"
            ) from None


def _wait_until_ready(url: str, children: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _check_alive(children)
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise StackError(f"The service did not become ready within {START_SECONDS:.0f} seconds. Its log is above.")


def _check_alive(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, process in children.items():
        if process.poll() is not None:
            raise StackError(f"The {name} exited with status {process.returncode}. All other processes were stopped.")


def _say_where(base: str, ports: dict[str, int]) -> None:
    curl: list[Any] = [
        f"curl -sS -X POST {base}/v1/telephony-credentials",
        f"-H 'Authorization: Bearer {demo_token('alice')}'",
        "-H 'Content-Type: application/json'",
        """-d '{"device_id":"laptop"}'""",
    ]
    lines = [
        "",
        "Dialtone is ready. Telnyx is simulated: calls do not leave this machine.",
        "",
        f"  softphone page      http://{LOOPBACK}:{ports['DIALTONE_PAGE_PORT']}   (open two tabs for a call)",
        f"  service             {base}   (API docs: {base}/docs)",
        f"  operators' page     {base}/ops   (.venv/bin/dialtone sandbox token alice --scope 'phone dialtone:admin')",
        f"  sandbox (Telnyx)    http://{LOOPBACK}:{ports['DIALTONE_SANDBOX_PORT']}   (journal: /sandbox/journal)",
        f"  identity provider   http://{LOOPBACK}:{ports['DIALTONE_IDENTITY_PORT']}   (users: alice, bob, carol)",
        f"  ledger              {Path('.dialtone/ledger.db').absolute()}",
        "",
        "Print another token: .venv/bin/dialtone sandbox token bob        Stop: Ctrl-C",
        "Issue a login to Alice's laptop:",
        "",
        " ".join(curl),
        "",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201 - output of a command


def _stop(_: int, __: FrameType | None) -> NoReturn:
    raise _Stopped
