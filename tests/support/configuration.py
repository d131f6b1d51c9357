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


def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, **changes: str) -> Settings:
    (tmp_path / "dialtone.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    variables = {k: v for k, v in MINIMAL_ENVIRONMENT.items() if k.startswith("TELNYX")} | {
        "DIALTONE_CONFIG": "dialtone.toml"
    }
    for name, value in (variables | changes).items():
        monkeypatch.setenv(name, value)
    return Settings.load(_env_file=None)
