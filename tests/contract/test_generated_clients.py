"""Clients generated from the documents compile without a warning, and each gets a login from a running service."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.contract.tools import DOCUMENTS, HERE, PYTHON_BIN, needs_generator, needs_node, run
from tests.support.service import Service
from tests.support.tokens import token

pytestmark = pytest.mark.timeout(600)

USER_DOCUMENT = DOCUMENTS[1]

PROGRAM = """\
import sys

from {package}.api.telephony_credentials import issue_telephony_credential
from {package}.client import AuthenticatedClient
from {package}.models import ProblemDocument, TelephonyCredential, TelephonyCredentialRequest

url, token = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=token) as client:
    login = issue_telephony_credential.sync(client=client, body=TelephonyCredentialRequest(device_id="contract"))
    assert isinstance(login, TelephonyCredential), login
    sys.stdout.write(f"{{login.sip_uri}} {{login.login_token}}")

with AuthenticatedClient(base_url=url, token="rubbish") as client:
    problem = issue_telephony_credential.sync(client=client, body=TelephonyCredentialRequest(device_id="contract"))
    assert isinstance(problem, ProblemDocument), problem
    assert problem.code == "invalid_token", problem.code
"""


@needs_node
async def test_typescript_types_compile(tmp_path: Path) -> None:
    for document in DOCUMENTS:
        status, output = await run("openapi-typescript", document, "-o", tmp_path / f"{document.stem}.ts")
        assert status == 0, output

    status, output = await run(
        *("tsc", "--noEmit", "--strict", "--target", "ES2022", "--lib", "ES2022", "--skipLibCheck"),
        *(tmp_path / f"{document.stem}.ts" for document in DOCUMENTS),
    )

    assert (status, output) == (0, "")


@needs_node
async def test_typescript_program_gets_a_login(service: Service, tmp_path: Path) -> None:
    shutil.copy(HERE / "login.ts", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    status, output = await run("openapi-typescript", USER_DOCUMENT, "-o", tmp_path / "schema.ts")
    assert status == 0, output
    status, output = await run(
        *("tsc", "--strict", "--target", "ES2022", "--module", "ES2022", "--moduleResolution", "bundler"),
        *("--lib", "ES2022,DOM", "--skipLibCheck", "--rewriteRelativeImportExtensions", "--outDir", "out", "login.ts"),
        cwd=tmp_path,
    )
    assert (status, output) == (0, "")

    status, output = await run("node", "out/login.js", service.url, token(), cwd=tmp_path)

    assert status == 0, output
    login = json.loads(output)
    assert login["sip_uri"].startswith("sip:gencred")
    assert login["login_token"]


@needs_generator
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
async def test_python_client_is_generated_without_a_warning(tmp_path: Path, document: Path) -> None:
    status, output = await run(
        "openapi-python-client",
        "generate",
        "--fail-on-warning",
        "--path",
        document,
        "--output-path",
        tmp_path / "client",
    )

    assert status == 0, output
    assert "Warning" not in output
    assert "WARNING" not in output
    generated = {path.stem for path in (tmp_path / "client").glob("*/api/*/*.py")} - {"__init__"}
    paths = json.loads(document.read_text())["paths"]
    assert len(generated) == sum(len(operations) for operations in paths.values())


@needs_generator
async def test_python_client_gets_a_login(service: Service, tmp_path: Path) -> None:
    client = tmp_path / "client"
    status, output = await run("openapi-python-client", "generate", "--path", USER_DOCUMENT, "--output-path", client)
    assert status == 0, output
    (package,) = (path.parent.name for path in client.glob("*/client.py"))
    program = client / "program.py"
    program.write_text(PROGRAM.format(package=package))
    status, output = await run(
        *(sys.executable, "-m", "mypy", "--python-executable", PYTHON_BIN / "python", "--config-file", "/dev/null"),
        *("--strict", "--cache-dir", tmp_path / "mypy", package, "program.py"),
        cwd=client,
    )
    assert status == 0, output

    status, output = await run(PYTHON_BIN / "python", program, service.url, token(), cwd=client)

    assert status == 0, output
    sip_uri, login_token = output.split()
    assert sip_uri.startswith("sip:gencred")
    assert login_token
