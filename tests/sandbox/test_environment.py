"""The user's settings that `dialtone dev` passes on, and those that it ignores."""

from pathlib import Path

import pytest

from app.config.issuer_variables import ISSUER_FIELDS
from app.config.settings import Settings, known_variables, variable_of
from app.sandbox.demo_files import LEDGER
from app.sandbox.environment import ISSUER_SETTINGS, PASSED, read_user_settings

REACH_OUTSIDE = {
    "TELNYX_API_KEY": "KEY",
    "TELNYX_API_KEY_FILE": "/run/key",
    "TELNYX_BASE_URL": "https://api.telnyx.com/v2",
    "TELNYX_CONNECTION_ID": "1",
    "DIALTONE_DATABASE_URL": "postgresql://production/ledger",
    "DIALTONE_DATABASE_URL_FILE": "/run/database",
    "DIALTONE_REDIS_URL": "redis://production",
    "DIALTONE_LOGIN_CACHE_URL": "redis://production",
    "DIALTONE_LOGIN_CACHE_KEYS": "key",
    "DIALTONE_EGRESS_PROXY": "http://proxy:3128",
    "DIALTONE_NAMESPACE": "production",
    "DIALTONE_HOST": "0.0.0.0",  # noqa: S104 - a value that must not be passed on
}


def test_settings_that_reach_outside_are_ignored_and_named() -> None:
    found = read_user_settings(REACH_OUTSIDE)

    assert found.passed == {}
    assert set(found.ignored) == REACH_OUTSIDE.keys()
    assert found.unrelated == {}


def test_frontend_and_log_settings_are_passed() -> None:
    wanted = {"DIALTONE_CORS_ORIGINS": "http://localhost:5173", "DIALTONE_LOG_FORMAT": "json"}

    found = read_user_settings(wanted | {"PATH": "/bin"})

    assert (found.passed, found.ignored) == (wanted, ())
    assert found.unrelated == {"PATH": "/bin"}


def test_keys_of_grants_are_passed() -> None:
    wanted = {"DIALTONE_GRANT_KEY_FILE": "grants.pem", "DIALTONE_OTHER_GRANT_KEY": "PEM"}

    assert read_user_settings(wanted).passed == wanted


def test_settings_of_an_issuer_are_passed_with_the_issuer() -> None:
    wanted = {"DIALTONE_ISSUER": "https://id.example.com", "DIALTONE_AUDIENCE": "phones"}

    found = read_user_settings(wanted)

    assert found.passed == wanted
    assert found.own_issuer == "https://id.example.com"


def test_settings_of_an_issuer_are_ignored_without_an_issuer() -> None:
    found = read_user_settings({"DIALTONE_AUDIENCE": "phones"})

    assert (found.passed, found.ignored, found.own_issuer) == ({}, ("DIALTONE_AUDIENCE",), None)


def test_own_file_of_issuers_is_named() -> None:
    assert read_user_settings({"DIALTONE_CONFIG": "own.toml"}).own_issuer == "the issuers in own.toml"


def test_ports_are_neither_passed_nor_ignored() -> None:
    found = read_user_settings({"DIALTONE_PORT": "9010", "DIALTONE_PAGE_PORT": "9013"})

    assert (found.passed, found.ignored) == ({}, ())


def test_empty_setting_counts_as_not_set() -> None:
    found = read_user_settings({"DIALTONE_ISSUER": "", "DIALTONE_DATABASE_URL": " "})

    assert (found.passed, found.ignored) == ({}, ())


def test_env_file_is_not_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DIALTONE_ISSUER=https://id.example.com\n")
    monkeypatch.chdir(tmp_path)

    assert read_user_settings({}).own_issuer is None


def test_named_env_file_is_sorted_like_the_environment(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "TELNYX_API_KEY=KEY\nDIALTONE_CONFIG=own.toml\nAPP_SECRET=s\nDIALTONE_LOG_LEVEL=debug\nDIALTONE_ISSUER=\n"
    )

    found = read_user_settings({"DIALTONE_ENV_FILE": str(file), "DIALTONE_LOG_LEVEL": "warning"})

    assert found.passed == {"DIALTONE_CONFIG": "own.toml", "DIALTONE_LOG_LEVEL": "warning"}
    assert found.ignored == ("TELNYX_API_KEY",)
    assert found.unrelated == {"APP_SECRET": "s"}


def test_env_file_is_read_as_the_service_reads_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("\ufeffDIALTONE_CONFIG=own.toml\nAPP_SECRET=a${HOME}b\n", encoding="utf-8")

    found = read_user_settings({"DIALTONE_ENV_FILE": str(file)})

    assert found.passed == {"DIALTONE_CONFIG": "own.toml"}
    assert found.unrelated == {"APP_SECRET": "a${HOME}b"}


def test_ledger_is_not_the_default_ledger_of_the_service() -> None:
    default = Settings.model_fields["database_url"].default.get_secret_value()

    assert default != f"sqlite:///{LEDGER}"


def test_missing_env_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        read_user_settings({"DIALTONE_ENV_FILE": str(tmp_path / "missing")})


def test_passed_settings_exist() -> None:
    assert known_variables() >= PASSED | ISSUER_SETTINGS


def test_all_settings_of_an_issuer_are_passed() -> None:
    fields = {variable_of(name) for name in ISSUER_FIELDS}
    files = {"DIALTONE_ISSUER_PEM_FILE", "DIALTONE_ISSUER_SECRET_FILE"}

    assert read_user_settings(dict.fromkeys(fields | files | {"DIALTONE_CONFIG"}, "x")).ignored == ()
