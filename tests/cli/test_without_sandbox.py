"""The `dialtone` command without the package `app.sandbox`, as in the service image."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the service without the sandbox."""
    folder = tmp_path_factory.mktemp("installation")
    without = shutil.ignore_patterns("__pycache__", "sandbox")
    shutil.copytree(ROOT / "app", folder / "app", ignore=without)
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=without)
    return folder


def dialtone(installation: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installation), "DIALTONE_ENV_FILE": ""}
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, cwd=installation, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["dev", "sandbox telnyx", "sandbox identity", "sandbox page", "sandbox token"])
def test_command_of_the_sandbox_names_the_installations_that_have_it(installation: Path, command: str) -> None:
    ended = dialtone(installation, *command.split())

    assert ended.returncode == 1
    assert ended.stderr == (
        "This installation has no sandbox. Use a checkout, or an image that is built with `--target development`.\n"
    )


@pytest.mark.parametrize(
    ("command", "output"),
    [("--version", f"dialtone {__version__}"), ("openapi", '"openapi": "3.1'), ("--help", "serve")],
)
def test_service_does_not_need_the_sandbox(installation: Path, command: str, output: str) -> None:
    ended = dialtone(installation, command)

    assert ended.returncode == 0, ended.stderr
    assert output in ended.stdout
