"""Remote mode: the address, the token, and what the operator reads if the service does not do as requested."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner, Result

from app.adapters.http_client import HttpClient
from app.cli import app
from app.cli.remote import RemoteTransport
from app.cli.service_client import RequestFailure
from tests.support.certificates import CertificateAuthority, certificate_authority
from tests.support.command_line import RemoteShell, operator_shell
from tests.support.http_proxy import http_proxy
from tests.support.http_server import refusing_port, serve
from tests.support.raw_server import http_response, raw_server
from tests.support.replicas import command, environment, replica_variables
from tests.support.sandbox import Telnyx
from tests.support.service import Service
from tests.support.tokens import token
from tests.support.waiting import eventually

JSON = "Content-Type: application/json"
EMPTY = b'{"data": [], "next_cursor": null}'


@pytest.fixture
def shell(service: Service, tmp_path: Path) -> RemoteShell:
    return operator_shell(service, tmp_path)


def invoke(*arguments: str, typed: str | None = None, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(app, list(arguments), input=typed)


async def request_of(port: int, tmp_path: Path, scheme: str = "http", **extra: str) -> Result:
    """The result of a command against a server that is not Dialtone."""
    file = tmp_path / "token"
    file.write_text("TOKEN_CANARY")
    return await RemoteShell(f"{scheme}://127.0.0.1:{port}", file, extra).run("leases", "ls")


async def process(url: str, folder: Path, authority: CertificateAuthority, **more: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `leases ls` in a process that trusts the authority."""
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "token").write_text("token")
    own = {"DIALTONE_URL": url, "DIALTONE_TOKEN_FILE": str(folder / "token"), "SSL_CERT_FILE": str(folder / "ca.pem")}
    done = await asyncio.to_thread(
        subprocess.run, command("leases", "ls"), env=environment(**own, **more), capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


# -- address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://dialtone.example.com",
        "http://10.0.0.7:8010",
        "http://127.0.0.1.example.com",
        "ftp://dialtone.example.com",
        "dialtone.example.com",
        "https://operator:PASSWORD_CANARY@dialtone.example.com",
        "https://dialtone.example.com/?tenant=1",
        "https://dialtone.example.com/#top",
        "https://",
        "https://dialtone.example.com\n",
    ],
    ids=repr,
)
def test_address_that_could_expose_the_token_is_rejected_with_the_reason(url: str, tmp_path: Path) -> None:
    done = invoke("leases", "ls", DIALTONE_URL=url, DIALTONE_TOKEN_FILE=str(tmp_path / "missing"))

    assert done.exit_code == 2
    assert done.stdout == ""
    assert "DIALTONE_URL must be an https URL" in done.stderr
    assert "CANARY" not in done.output


@pytest.mark.parametrize("arguments", [("leases", "ls"), ("audit", "tail"), ("sweep",), ("push", "ls")], ids=" ".join)
def test_address_without_a_token_file_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = invoke(*arguments, DIALTONE_URL="https://dialtone.example.com")

    assert done.exit_code == 2
    assert "DIALTONE_TOKEN_FILE" in done.stderr


def test_options_override_the_environment(tmp_path: Path) -> None:
    done = invoke("--url", "ftp://a", "--token-file", "missing", "leases", "ls", DIALTONE_URL="https://a.example.com")

    assert "DIALTONE_URL must be an https URL" in done.stderr


async def test_address_may_have_a_path(tmp_path: Path) -> None:
    paths = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await Response(EMPTY, media_type="application/json")(scope, receive, send)

    (tmp_path / "token").write_text("token")
    async with serve(app, has_lifespan=False) as url:
        await RemoteShell(f"{url}/voice/", tmp_path / "token").run("leases", "ls")

    assert paths == ["/voice/v1/admin/leases"]


# -- token --------------------------------------------------------------------------------------------------------


async def test_token_is_read_from_standard_input(shell: RemoteShell) -> None:
    text = shell.token_file.read_text()

    done = await shell.run("--token-file", "-", "leases", "ls", "--json", typed=f"Bearer {text}\n")

    assert (done.exit_code, json.loads(done.stdout)) == (0, [])


async def test_standard_input_serves_every_request_of_a_command(shell: RemoteShell) -> None:
    done = await shell.run("--token-file", "-", "sweep", "--dry-run", typed=shell.token_file.read_text())

    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "The file cannot be read (FileNotFoundError)."),
        ("", "There is no token: the input is empty."),
        ("  \n", "There is no token: the input is empty."),
        ("CANARY.one\nCANARY.two\n", "The token file has more than one token"),
        ("CANARY\u2026", "characters that no token has"),
    ],
    ids=["missing", "empty", "spaces", "two tokens", "not ASCII"],
)
def test_unusable_token_file_is_a_usage_error(tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)

    done = invoke("leases", "ls", DIALTONE_URL="https://dialtone.example.com", DIALTONE_TOKEN_FILE=str(file))

    assert done.exit_code == 2
    assert reason in done.stderr
    assert "CANARY" not in done.output


async def test_rejected_token_is_explained(shell: RemoteShell) -> None:
    shell.token_file.write_text(token("olga", exp=1))

    done = await shell.run("leases", "ls")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "(invalid_token, request " in done.stderr
    assert "Get a new access token" in done.stderr


async def test_user_without_rights_learns_the_scope(service: Service, tmp_path: Path) -> None:
    done = await operator_shell(service, tmp_path, scope="phone").run("leases", "ls")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "(insufficient_scope, request " in done.stderr
    assert "dialtone:admin" in done.stderr


# -- the service does not respond, or is not Dialtone -------------------------------------------------------------


async def test_unreachable_host_is_named(tmp_path: Path) -> None:
    port = refusing_port()

    done = await request_of(port, tmp_path)

    assert done.exit_code == 1
    assert done.stderr == (f"No connection to http://127.0.0.1:{port}: the host refuses connections to this port.\n")


async def test_certificate_of_an_unknown_authority_is_named_with_the_fix(tmp_path: Path) -> None:
    async with raw_server(http_response(b"{}", JSON), certificate_authority()) as port:
        done = await request_of(port, tmp_path, "https")

    assert done.exit_code == 1
    assert "the TLS certificate is not trusted. Set SSL_CERT_FILE" in done.stderr


async def test_private_authority_can_be_trusted(tmp_path: Path) -> None:
    authority = certificate_authority()
    async with raw_server(http_response(EMPTY, JSON), authority) as port:
        done = await process(f"https://127.0.0.1:{port}", tmp_path, authority)

    assert done == (0, "", "No leases match.\n")


async def test_redirect_is_not_followed(tmp_path: Path) -> None:
    location = "Location: https://other.example.com/login?state=SECRET_CANARY"
    async with raw_server(http_response(b"", location, status="302 Found")) as port:
        done = await request_of(port, tmp_path)

    assert done.exit_code == 1
    assert "redirects to https://other.example.com. The redirect was not followed" in done.stderr
    assert "CANARY" not in done.output


@pytest.mark.parametrize(
    ("response", "seen"),
    [
        (http_response(b"<html>CANARY</html>", "Content-Type: text/html"), "status 200, text/html"),
        (http_response(b"<html>", "Content-Type: text/html", status="502 Bad Gateway"), "status 502, text/html"),
        (http_response(b"{", JSON), "status 200, application/json"),
        (http_response(b"[]", JSON), "status 200, application/json"),
        (http_response(b'{"error": "CANARY"}', JSON, status="403 Forbidden"), "status 403, application/json"),
        (http_response(b""), "status 200"),
    ],
    ids=["page", "gateway", "half JSON", "array", "other error", "empty"],
)
async def test_response_of_another_service_is_recognized(tmp_path: Path, response: bytes, seen: str) -> None:
    async with raw_server(response) as port:
        done = await request_of(port, tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert f"The response is not one of Dialtone ({seen})." in done.stderr
    assert "CANARY" not in done.output
    assert "Traceback" not in done.output


async def test_response_that_does_not_arrive_in_time_is_a_failure() -> None:
    async with raw_server(None) as port, HttpClient("test") as client:
        transport = RemoteTransport(f"http://127.0.0.1:{port}", lambda: "token", client, deadline_seconds=0.2)

        with pytest.raises(RequestFailure) as failure:
            await transport.send("GET", "/v1/admin/state", params={}, body=None)

    assert str(failure.value) == f"No valid response from http://127.0.0.1:{port}: the deadline has passed."
    assert failure.value.is_retryable


async def test_unknown_fields_of_a_newer_service_are_printed_as_json(tmp_path: Path) -> None:
    async with raw_server(http_response(b'{"data": [{"new": 1}], "next_cursor": null, "more": 2}', JSON)) as port:
        file = tmp_path / "token"
        file.write_text("token")

        assert await RemoteShell(f"http://127.0.0.1:{port}", file).run_json("leases", "ls") == [{"new": 1}]


async def test_operation_that_an_older_service_lacks_is_explained(tmp_path: Path) -> None:
    problem = json.dumps({"title": "The resource does not exist.", "status": 404, "code": "not_found"}).encode()
    response = http_response(problem, "Content-Type: application/problem+json", status="404 Not Found")
    async with raw_server(response) as port:
        done = await request_of(port, tmp_path)

    assert done.exit_code == 1
    assert "it is an older version, or DIALTONE_URL is not the address of its admin listener" in done.stderr


async def test_wait_of_an_overloaded_service_is_printed(tmp_path: Path) -> None:
    problem = json.dumps({"title": "Too many requests.", "status": 429, "code": "rate_limited"}).encode()
    head = ("Content-Type: application/problem+json", "Retry-After: 7")
    async with raw_server(http_response(problem, *head, status="429 Too Many Requests")) as port:
        done = await request_of(port, tmp_path)

    assert done.stderr == "Too many requests. (rate_limited) Retry in 7 s.\n"


async def test_proxy_of_the_environment_is_used(tmp_path: Path) -> None:
    authority = certificate_authority(host="voice.example.com")
    async with raw_server(http_response(EMPTY, JSON), authority) as port, http_proxy() as proxy:
        proxy.resolves["voice.example.com:443"] = ("127.0.0.1", port)
        address = proxy.url.removeprefix("http://")
        done = await process("https://voice.example.com", tmp_path, authority, HTTPS_PROXY=address)

    assert done == (0, "", "No leases match.\n")
    assert proxy.targets == ["CONNECT voice.example.com:443"]


async def test_response_without_a_needed_field_is_a_failure(tmp_path: Path) -> None:
    async with raw_server(http_response(b'{"unrelated": 1}', JSON)) as port:
        done = await request_of(port, tmp_path)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("The response has no `data`: the service has another version")


# -- commands that need this machine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "doctor",
        "migrate",
        "config check",
        "config show",
        "policy check",
        "policy test {}",
        "token explain",
    ],
)
def test_command_that_the_api_cannot_serve_is_rejected_in_remote_mode(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = invoke(*arguments.split(), typed="x", DIALTONE_URL="https://dialtone.example.com")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "uses the settings and the database of this machine, not the service at DIALTONE_URL" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["config schema", "openapi", "errors", "sandbox identity --list"])
def test_command_without_a_service_ignores_the_address(arguments: str) -> None:
    assert invoke(*arguments.split(), DIALTONE_URL="https://dialtone.example.com").exit_code == 0


# -- both modes ---------------------------------------------------------------------------------------------------


async def test_service_accepts_the_variables_of_remote_mode(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """A shared environment of a service and of an operator's shell does not stop the service."""
    variables = replica_variables(telnyx.url, sqlite) | {"DIALTONE_TOKEN_FILE": "/run/token", "DIALTONE_URL": ""}

    done = await asyncio.to_thread(CliRunner(env=variables).invoke, app, ["config", "check"])

    assert done.exit_code == 0, done.output


async def test_output_is_the_same_in_both_modes(
    service: Service, shell: RemoteShell, telnyx: Telnyx, sqlite: str
) -> None:
    await service.issue("laptop")
    await service.issue("phone", user="bob")
    await service.components.operators.leases.refresh_counts()
    # A later write of the service would be in only one of two outputs.
    await service.components.telephony.last_uses.flush()
    await eventually(lambda: not service.components.audit.queued, 30)
    lease = (await shell.run_json("leases", "ls"))[0]["id"]

    async def in_process(*arguments: str) -> tuple[int, str]:
        runner = CliRunner(env=replica_variables(telnyx.url, sqlite))
        done: Any = await asyncio.to_thread(runner.invoke, app, list(arguments))
        return done.exit_code, done.stdout

    for line in (
        "leases ls",
        "leases ls --json",
        "leases ls --state revoking",
        "leases ls --user alice",
        f"leases show {lease}",
        f"leases show {lease} --json",
        f"leases show {'0' * 32}",
        "leases revoke --everything --confirm wrong",
        "leases ls --device a=b",
        "audit tail --action issued --json",
        "audit tail --action issued",
        "warm-pool",
        "push ls --json",
        "keys refresh https://other.example.com",
        "tokens refuse https://other.example.com",
        "push attach 77 --ios 1234",
        "sweep --dry-run --json",
    ):
        done = await shell.run(*line.split())
        assert (done.exit_code, done.stdout) == await in_process(*line.split()), line
