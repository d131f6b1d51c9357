"""Settings: checked before the server listens, with one-line errors that contain no secrets."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import Settings, SettingsError
from tests.support.configuration import load_variables
from tests.support.environment import MINIMAL_ENVIRONMENT
from tests.support.tokens import pem


def test_only_key_connection_issuer_and_audience_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch)

    assert settings.telnyx_base_url == "https://api.telnyx.com/v2"
    ((issuer, fixed),) = settings.identity().issuers
    assert issuer.effective_algorithms == {"RS256", "ES256"}
    assert fixed is None
    assert "CANARY" not in repr(settings) + str(settings.model_dump())


WRONG: list[tuple[dict[str, str | None], str]] = [
    ({"TELNYX_API_KEY": None}, "TELNYX_API_KEY is not set"),
    ({"TELNYX_CONNECTION_ID": None}, "TELNYX_CONNECTION_ID is not set"),
    ({"TELNYX_CONNECTION_ID": "CANARY"}, "TELNYX_CONNECTION_ID"),
    ({"DIALTONE_ISSUER": None}, "DIALTONE_ISSUER is not set"),
    ({"DIALTONE_AUDIENCE": None}, "DIALTONE_AUDIENCE is not set"),
    ({"DIALTONE_AUDIENCE": " , "}, "DIALTONE_AUDIENCE"),
    ({"DIALTONE_ISSUER": "accounts"}, "DIALTONE_ISSUER: is not an https URL"),
    ({"DIALTONE_ISSUER": "http://id.example.com"}, "DIALTONE_ISSUER: is not an https URL"),
    ({"DIALTONE_JWKS_URL": "http://id.example.com/CANARY"}, "DIALTONE_JWKS_URL"),
    ({"DIALTONE_ISSUER_SECRET": "CANARY"}, "DIALTONE_ISSUER_SECRET: a shared secret must have 32 bytes"),
    ({"DIALTONE_ISSUER_PEM": "CANARY"}, "DIALTONE_ISSUER_PEM: not a PEM"),
    ({"DIALTONE_ISSUER_SECRET": "CANARY" * 8, "DIALTONE_JWKS_URL": "https://a.example.com"}, "exclude each other"),
    ({"DIALTONE_ISSUER_SECRET": "CANARY" * 8, "DIALTONE_ALGORITHMS": "RS256"}, "DIALTONE_ALGORITHMS"),
    ({"DIALTONE_ALGORITHMS": "RS256,HS256"}, "DIALTONE_ALGORITHMS"),
    ({"DIALTONE_ALGORITHMS": "none"}, "DIALTONE_ALGORITHMS"),
    ({"DIALTONE_CORS_ORIGINS": "*"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://a.example.com/"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://*"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://*.com"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://a*.example.com"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://a.*.example.com"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://*.*.example.com"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "*://a.example.com"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://a.example.com:*"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "capacitor://*.localhost"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://A.example.com"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://a.example.com:443"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "null"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://a.example.com:65536"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "http://[0:0:0:0:0:0:0:1]:5173"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "http://[12345::]"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "http://127.1:5173"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "http://10.0.0.256"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "http://0x7f000001"}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_ORIGINS": "https://."}, "DIALTONE_CORS_ORIGINS"),
    ({"DIALTONE_CORS_HEADERS": "*"}, "DIALTONE_CORS_HEADERS"),
    ({"DIALTONE_CORS_HEADERS": "X-Tenant:"}, "DIALTONE_CORS_HEADERS"),
    ({"DIALTONE_REDIS_URL": "redis://host:CANARY/0"}, "DIALTONE_REDIS_URL: has a part that the Redis client"),
    ({"DIALTONE_LOGIN_CACHE_URL": "http://CANARY"}, "DIALTONE_LOGIN_CACHE_URL: must be redis://HOST"),
    ({"DIALTONE_LOGIN_CACHE_URL": "redis://:CANARY@host/0"}, "DIALTONE_LOGIN_CACHE_KEYS is not"),
    ({"DIALTONE_LOGIN_CACHE_KEYS": "CANARY"}, "DIALTONE_LOGIN_CACHE_KEYS: each key must be 32 bytes in base64"),
    ({"DIALTONE_WARM_POOL_SIZE": "CANARY"}, "DIALTONE_WARM_POOL_SIZE: must be auto, or a number from 0 to 500"),
    ({"DIALTONE_WARM_POOL_SIZE": "501"}, "DIALTONE_WARM_POOL_SIZE: must be auto, or a number from 0 to 500"),
    ({"DIALTONE_WARM_POOL_SIZE": "-1"}, "DIALTONE_WARM_POOL_SIZE: must be auto, or a number from 0 to 500"),
    ({"DIALTONE_PORT": "CANARY"}, "DIALTONE_PORT"),
    ({"DIALTONE_CREDENTIAL_TTL_SECONDS": "5"}, "DIALTONE_CREDENTIAL_TTL_SECONDS"),
    ({"DIALTONE_NAMESPACE": "A b"}, "DIALTONE_NAMESPACE"),
    ({"DIALTONE_DATABASE_URL": "mysql://user:CANARY@host/db"}, "DIALTONE_DATABASE_URL"),
    (
        {"DIALTONE_DATABASE_URL": "postgresql://app:p@q:CANARY@db:5432/dial"},
        "DIALTONE_DATABASE_URL: is ambiguous",
    ),
    ({"DIALTONE_DATABASE_URL": "sqlite:///~/CANARY.db"}, "DIALTONE_DATABASE_URL: names a file that begins with ~"),
    ({"DIALTONE_DATABASE_URL": "postgresql://app:pw@db/dial?keepalives=1"}, "is not supported: keepalives"),
    ({"TELNYX_BASE_URL": "http://api.example.com"}, "TELNYX_BASE_URL"),
    ({"TELNYX_BASE_URL": "https://user:CANARY@api.example.com"}, "TELNYX_BASE_URL"),
    (
        {"TELNYX_BASE_URL": "http://127.0.0.1:8011/v2", "TELNYX_API_KEY": "KEY0123456789ABCDEF0123_CANARYxyz"},
        "TELNYX_API_KEY looks like a real key",
    ),
    ({"TELNYX_API_KEY": "KEY CANARY"}, "TELNYX_API_KEY contains invalid characters"),
    ({"TELNYX_API_KEY": "KEYCANARY\u2026"}, "TELNYX_API_KEY contains invalid characters"),
    ({"DIALTONE_CORS_ORIGIN": "https://a.example.com"}, "DIALTONE_CORS_ORIGIN is not a setting"),
    ({"TELNYX_API_KEY_FILE": "/nonexistent"}, "both set"),
    ({"TELNYX_API_KEY": None, "TELNYX_API_KEY_FILE": "/nonexistent"}, "cannot be read"),
]


@pytest.mark.parametrize(("changes", "line"), WRONG, ids=lambda value: str(value)[:60])
def test_invalid_setting_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **changes)

    text = str(refusal.value)
    assert line in text
    assert "\n" not in text
    assert "CANARY" not in text
    assert refusal.value.__cause__ is None


def test_secret_can_be_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("KEY_FROM_A_FILE\n")

    settings = load_variables(monkeypatch, TELNYX_API_KEY=None, TELNYX_API_KEY_FILE=str(tmp_path / "key"))

    assert settings.telnyx_api_key.get_secret_value() == "KEY_FROM_A_FILE"


def test_example_env_file_is_accepted_with_its_first_block_filled_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (Path(__file__).parent.parent.parent / ".env.example").read_text()
    (tmp_path / "key").write_text("KEY_FROM_A_FILE")
    filled = MINIMAL_ENVIRONMENT | {"TELNYX_API_KEY": "", "TELNYX_API_KEY_FILE": str(tmp_path / "key")}
    for name, value in filled.items():
        text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n").replace(f"# {name}=/run", f"{name}={value}\n#")
    (tmp_path / ".env").write_text(text)
    monkeypatch.chdir(tmp_path)

    settings = Settings.load()

    assert settings.telnyx_api_key.get_secret_value() == "KEY_FROM_A_FILE"
    assert settings.issuer == MINIMAL_ENVIRONMENT["DIALTONE_ISSUER"]


def test_pem_can_be_written_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_ISSUER_PEM=pem().replace("\n", "\\n"))

    assert settings.identity().issuers[0][1]


def test_lists_are_separated_by_commas_or_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_CORS_ORIGINS="https://a.example.com, https://b.example.com:8443")

    assert settings.cors_origins == {"https://a.example.com", "https://b.example.com:8443"}


@pytest.mark.parametrize(
    "origin",
    [
        "http://[::1]:5173",
        "http://192.168.1.5:5173",
        "https://xn--bcher-kva.example",
        "https://app_1.example.com:65535",
        "http://localhost:5173",
        "https://*.preview.example.com",
        "app://.",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    ],
)
def test_origin_as_a_browser_sends_it_is_accepted(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    assert load_variables(monkeypatch, DIALTONE_CORS_ORIGINS=origin).cors_origins == {origin}


@pytest.mark.parametrize("command", [["serve"], ["migrate"]])
@pytest.mark.parametrize(
    "changes", [{"TELNYX_CONNECTION_ID": "CANARY"}, {"DIALTONE_PORT": "99999"}, {"TELNYX_API_KEY": ""}], ids=str
)
def test_process_exits_before_listening_and_prints_the_error(
    tmp_path: Path, command: list[str], changes: dict[str, Any]
) -> None:
    environment = (
        {k: v for k, v in os.environ.items() if not k.startswith(("DIALTONE_", "TELNYX_"))}
        | MINIMAL_ENVIRONMENT
        | changes
    )

    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        env=environment | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("Configuration: ")
    assert ended.stderr.count("\n") == 1
    assert "CANARY" not in ended.stderr
