"""Settings from a dialtone.toml or from the environment of a test."""

from pathlib import Path

import pytest

from app.config.settings import Settings
from tests.support.environment import MINIMAL_ENVIRONMENT

ISSUER = """
[[issuers]]
name = "staff"
issuer = "https://id.example.com"
audiences = ["dialtone"]
"""


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


def _load(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.load(_env_file=None)
