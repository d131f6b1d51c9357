"""Settings from a dialtone.toml or from the environment of a test, and the environment of a command."""

from pathlib import Path
from typing import Any

import pytest

from app.config.settings import Settings
from tests.support.databases import sqlite_url
from tests.support.environment import MINIMAL_ENVIRONMENT
from tests.support.tokens import pem

ISSUER = """
[[issuers]]
name = "staff"
issuer = "https://id.example.com"
audiences = ["dialtone"]
"""


def configured_by(folder: Path, text: str) -> dict[str, Any]:
    """Write a dialtone.toml, which replaces the issuer of `settings_for`. Returns the changes of settings."""
    file = folder / "dialtone.toml"
    file.write_text(text)
    return {"config": str(file), "issuer": ..., "audience": ..., "issuer_pem": ...}


def load_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, **changes: str) -> Settings:
    """Settings with this dialtone.toml."""
    (tmp_path / "dialtone.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    telnyx = {name: value for name, value in MINIMAL_ENVIRONMENT.items() if name.startswith("TELNYX")}
    return _load(monkeypatch, telnyx | {"DIALTONE_CONFIG": "dialtone.toml"} | changes)


def load_variables(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    """Settings of a single issuer from variables. None removes one of MINIMAL_ENVIRONMENT."""
    return _load(
        monkeypatch, {name: value for name, value in (MINIMAL_ENVIRONMENT | changes).items() if value is not None}
    )


def set_command_environment(monkeypatch: pytest.MonkeyPatch, folder: Path, **more: str) -> None:
    """Run commands in the folder, with its dialtone.toml and ledger, and with the test's public key in key.pem."""
    (folder / "key.pem").write_text(pem())
    monkeypatch.chdir(folder)
    variables = {
        "TELNYX_API_KEY": "KEY_CANARY",
        "TELNYX_CONNECTION_ID": "77",
        "DIALTONE_CONFIG": "dialtone.toml",
        "DIALTONE_ENV_FILE": "",
        "DIALTONE_DATABASE_URL": sqlite_url(folder),
    }
    for name, value in (variables | more).items():
        monkeypatch.setenv(name, value)


def _load(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.load(_env_file=None)
