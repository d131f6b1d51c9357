"""`dialtone dev`: runs sandbox, identity provider, softphone page and service as processes that stop together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.sandbox.demo_files import LEDGER, SETTINGS, keep_grant_key, write_configuration, write_settings
from app.sandbox.environment import ISSUER_NAMES, PORTS, UserSettings, read_user_settings
from app.sandbox.provider import SimulatedProvider
from app.sandbox.providers import DEMO, UnknownProvider, simulate

LOOPBACK = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 25.0
TOKEN_SECONDS = 12 * 3600

SECRETS = ("_SECRET", "_KEY", "_PEM")
"""Ends of the names of the user's settings that are not written to a file. A PEM has several lines."""

_IDENTITY = "DIALTONE_IDENTITY_PORT"
_ISSUERS = re.compile(r"""^\s*issuer\s*=\s*["']([^"']*)""", re.MULTILINE)
"""Lines of dialtone.toml. The service reports the faults of the file, so it is only searched here."""


class StackError(Exception):
    """A failure, with a one-line message for the terminal."""


class _Stopped(Exception):
    """Ctrl-C or a signal to stop."""


def run(provider: str = DEMO) -> int:
    """Start all processes, print their URLs, and wait. Returns the exit status.

    `provider` is the identity provider to simulate. With an issuer of the user's own, no provider runs.
    """
    try:
        plan = _plan(provider)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        with ExitStack() as stack:
            _run(stack, plan)
    except _Stopped:
        print("\nAll processes have stopped.", flush=True)  # noqa: T201 - output of a command
        return 0
    except StackError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        return 1
    return 0


def demo_token(
    user: str, *, kind: str | None = None, scope: str | None = None, ttl_seconds: int = TOKEN_SECONDS, port: int = 0
) -> str:
    """A token of a demo user from the running provider. `kind=None`: the accepted kind. Raises StackError."""
    wanted = {"user": user, "kind": kind, "scope": scope, "ttl_seconds": ttl_seconds}
    body = json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()
    port = port or _port("DIALTONE_IDENTITY_PORT")
    url = f"http://{LOOPBACK}:{port}/token"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        with error, suppress(ValueError):
            reason = json.load(error)
            if "kinds" in reason:
                kinds = ", ".join(reason["kinds"])
                raise StackError(f"This provider issues no token of the kind {kind!r}. Kinds: {kinds}.") from None
            if "demo_users" in reason:
                users = ", ".join(reason["demo_users"])
                raise StackError(f"There is no demo user {user!r}. The demo users are {users}.") from None
        raise StackError(f"Another program than the demo identity provider listens on port {port}.") from None
    except OSError:
        raise StackError(
            f"The demo identity provider is unavailable on port {port}. Is `make dev` or `dialtone sandbox identity` "
            "running? If it has another port, add --port."
        ) from None
    token: str = found["access_token"]
    return token


@dataclass(frozen=True)
class Plan:
    """The checked choices of one run of `dialtone dev`, before the first process starts."""

    ports: dict[str, int]
    user: UserSettings
    simulated: SimulatedProvider | None
    """The identity provider to simulate; None if the user has an issuer of their own."""
    own_file: str | None
    """The text of the user's dialtone.toml; None if `dialtone dev` writes the file."""

    @property
    def has_guests(self) -> bool:
        """Whether the service accepts grants for guests."""
        return self.own_file is None or "dialtone:guests" in self.own_file

    @property
    def has_sign_in(self) -> bool:
        """Whether operators can sign in at the identity provider."""
        return self.own_file is None or "ops_client_id" in self.own_file

    def url(self, port: str, host: str = LOOPBACK) -> str:
        """The URL of the part that listens on this port."""
        return f"http://{host}:{self.ports[port]}"

    @property
    def notice(self) -> str | None:
        """Why demo users cannot sign in at the softphone page; None if they can."""
        if self.simulated is None:
            return f"Demo users cannot sign in: Dialtone accepts tokens of {self.user.own_issuer}. Use your own page."
        if (header := self.simulated.provider.header) is not None:
            return f"Demo users cannot sign in: Dialtone accepts their tokens only in the header {header}."
        return None


def _plan(provider: str) -> Plan:
    """Raises StackError for a setting that is invalid, and a port that is in use."""
    try:
        user = read_user_settings(os.environ)
    except (OSError, UnicodeDecodeError):
        raise StackError("DIALTONE_ENV_FILE names a file that cannot be read.") from None
    ports = {variable: _port(variable) for variable in PORTS}
    identity_url = f"http://{LOOPBACK}:{ports[_IDENTITY]}"
    own_file = _text_of(user.passed.get("DIALTONE_CONFIG"))
    is_in_file = own_file is not None and identity_url in _ISSUERS.findall(own_file)
    has_demo_users = provider == DEMO and is_in_file and _is_free(ports[_IDENTITY])
    if user.own_issuer is None or has_demo_users:
        try:
            simulated = simulate(provider, identity_url)
        except UnknownProvider as error:
            raise StackError(str(error)) from None
    elif provider == DEMO:
        simulated = None
    else:
        own = [name for name in ISSUER_NAMES if name in user.passed]
        raise StackError(f"To simulate an identity provider, unset {' and '.join(own)}.")
    for variable, port in ports.items():
        if (simulated is not None or variable != _IDENTITY) and not _is_free(port):
            fix = f"{variable}={port + 1000} make dev"
            raise StackError(f"Port {port} is in use. Set another port, for example: {fix}")
    return Plan(ports, user, simulated, own_file)


def _run(stack: ExitStack, plan: Plan) -> None:
    _print_passed_settings(plan.user)
    environment = _environment(plan)
    parts = {"sandbox": ["telnyx"], "page": ["page", "--notice", plan.notice or ""]}
    if plan.simulated is not None and plan.simulated.name == DEMO and plan.has_guests:
        parts["page"].append("--guests")
    if plan.simulated is not None:
        parts["identity provider"] = ["identity", "--provider", plan.simulated.name]
    children = {
        name: stack.enter_context(_child(["sandbox", *arguments], environment, is_quiet=True))
        for name, arguments in parts.items()
    }
    if subprocess.run(_command("migrate"), env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        raise StackError(f"The ledger {LEDGER} cannot be prepared; the reason is above.")
    # After the service, which is stopped first, the others stop at the same time.
    stack.callback(_terminate, children)
    children["service"] = stack.enter_context(_child(["serve"], environment))
    _wait_until_ready(f"{plan.url('DIALTONE_PORT')}/readyz", children)
    _print_addresses(plan, children["service"].pid)
    while True:
        _check_alive(children)
        time.sleep(0.5)


def _terminate(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        child.terminate()


def _environment(plan: Plan) -> dict[str, str]:
    """The environment of the processes: the demo's settings, and those of the user's that are passed on."""
    settings = _settings(plan)
    secrets = {name for name in plan.user.passed if name.endswith(SECRETS)}
    write_settings({name: value for name, value in settings.items() if name not in secrets})
    ports = {variable: str(port) for variable, port in plan.ports.items()}
    return plan.user.unrelated | settings | ports | {"DIALTONE_ENV_FILE": ""}


def _settings(plan: Plan) -> dict[str, str]:
    """The settings of the service."""
    passed = plan.user.passed
    pages = [plan.url("DIALTONE_PAGE_PORT", host) for host in (LOOPBACK, "localhost")]
    telnyx = plan.url("DIALTONE_SANDBOX_PORT")
    defaults = {"DIALTONE_SIP_PASSWORD": "true", "DIALTONE_LOG_LEVEL": "info"}
    if passed.keys().isdisjoint({"DIALTONE_GRANT_KEY", "DIALTONE_GRANT_KEY_FILE"}):
        defaults["DIALTONE_GRANT_KEY_FILE"] = str(keep_grant_key())
    demo = {
        "TELNYX_API_KEY": DEMO_KEY,
        "TELNYX_CONNECTION_ID": DEMO_CONNECTION,
        "TELNYX_BASE_URL": f"{telnyx}/v2",
        "DIALTONE_DATABASE_URL": f"sqlite:///{LEDGER}",
        "DIALTONE_PROPAGATION_SECONDS": "1",
        "DIALTONE_RTC_HOST": telnyx.replace("http", "ws", 1),
        "DIALTONE_CORS_ORIGINS": ",".join(filter(None, [*pages, passed.get("DIALTONE_CORS_ORIGINS")])),
    }
    if plan.simulated is not None:
        demo |= plan.simulated.variables
        if "DIALTONE_CONFIG" not in passed:
            demo["DIALTONE_CONFIG"] = str(write_configuration(plan.simulated))
    return defaults | passed | demo


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


def _text_of(file: str | None) -> str | None:
    """The text of the user's dialtone.toml; None without one. Empty if it cannot be read, which the service reports."""
    try:
        return None if file is None else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""


def _port(variable: str) -> int:
    text = os.environ.get(variable) or str(PORTS[variable])
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise StackError(f"{variable} must be a port number between 1 and 65535.")
    return int(text)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


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


def _print_passed_settings(user: UserSettings) -> None:
    if user.passed:
        _print(f"Passed on from your environment: {', '.join(user.passed)}")
    if user.ignored:
        _print(f"Ignored, because the demo has its own Telnyx, ledger and addresses: {', '.join(user.ignored)}")


def _print_addresses(plan: Plan, service_pid: int) -> None:
    print_token = ".venv/bin/dialtone sandbox token"  # noqa: S105 - a command
    identity_port = plan.ports["DIALTONE_IDENTITY_PORT"]
    of_port = "" if identity_port == PORTS["DIALTONE_IDENTITY_PORT"] else f" --port {identity_port}"
    service, own_file = plan.url("DIALTONE_PORT"), plan.user.passed.get("DIALTONE_CONFIG")
    if plan.simulated is None:
        issuer, operator = f"your own: {plan.user.own_issuer}", ""
        last = ["Stop: Ctrl-C", "Issue a login with an access token of your issuer in the variable TOKEN:"]
    else:
        issuer = f"{plan.url('DIALTONE_IDENTITY_PORT')}   (users: alice, bob, carol)"
        if plan.simulated.name != DEMO:
            issuer += f"   simulates {plan.simulated.provider.title}"
        operator = f"   ({print_token} alice --scope 'phone dialtone:admin'{of_port})"
        if plan.simulated.name == DEMO and plan.has_sign_in:
            operator = "   (sign in as alice)"
        last = [
            f"Print another token: {print_token} bob{of_port}        Stop: Ctrl-C",
            "Issue a login to Alice's laptop:",
        ]
    if own_file is not None:
        last.insert(0, f"Reload {own_file}: kill -HUP {service_pid}")
    lines = [
        "",
        "Dialtone is ready. Telnyx is simulated: calls do not leave this machine.",
        "",
        f"  softphone page      {plan.url('DIALTONE_PAGE_PORT')}   (open two tabs for a call)",
        f"  service             {service}   (API docs: {service}/docs)",
        f"  operators' page     {service}/ops{operator}",
        f"  sandbox (Telnyx)    {plan.url('DIALTONE_SANDBOX_PORT')}   (journal: /sandbox/journal)",
        f"  connection          {DEMO_CONNECTION}   (the connection_id of policy rules)",
        f"  identity provider   {issuer}",
        f"  ledger              {LEDGER.absolute()}",
        f"  commands            DIALTONE_ENV_FILE={SETTINGS} .venv/bin/dialtone doctor",
        "",
        *last,
        "",
        _curl(plan),
        "",
    ]
    _print("\n".join(lines))


def _curl(plan: Plan) -> str:
    """The command that requests a login."""
    if plan.simulated is None:
        header = '-H "Authorization: Bearer $TOKEN"'
    elif plan.simulated.provider.header is None:
        header = f"-H 'Authorization: Bearer {demo_token('alice')}'"
    else:
        # A browser would add this header to requests of other pages too, so the service requires an allowed Origin.
        page = plan.url("DIALTONE_PAGE_PORT")
        header = f"-H '{plan.simulated.provider.header}: {demo_token('alice')}' -H 'Origin: {page}'"
    request = f"curl -sS -X POST {plan.url('DIALTONE_PORT')}/v1/telephony-credentials {header}"
    return f"""{request} -H 'Content-Type: application/json' -d '{{"device_id":"laptop"}}'"""


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - output of a command


def _stop(_: int, __: FrameType | None) -> NoReturn:
    raise _Stopped
