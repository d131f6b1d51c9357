"""Values of variables are cleaned: line ends, quotes and invisible characters. Env files and files of secrets."""

import hmac
import logging
from pathlib import Path

import pytest

from app.config.settings import Settings, SettingsError, variable_of
from tests.support.configuration import ISSUER, load_file, load_variables
from tests.support.environment import MINIMAL_ENVIRONMENT
from tests.support.tokens import pem

SECRET = "s" * 32
AROUND = ["\n", "\r\n", "\r", " ", "\t", "\u00a0", "\ufeff", "\u200b", "\u2060", "\u200d"]


def load_env_file(monkeypatch: pytest.MonkeyPatch, path: Path, text: str | bytes) -> Settings:
    """Settings from an env file alone."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("DIALTONE_ENV_FILE", str(path))
    return Settings.load()


def lines(**changes: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in (MINIMAL_ENVIRONMENT | changes).items())


# -- white space and invisible characters ---------------------------------------------------------------------------


@pytest.mark.parametrize("character", AROUND, ids=ascii)
def test_invisible_characters_around_a_value_are_removed(monkeypatch: pytest.MonkeyPatch, character: str) -> None:
    settings = load_variables(
        monkeypatch,
        DIALTONE_ISSUER=f"{character}https://id.example.com{character}",
        TELNYX_API_KEY=f"{character}KEY_1{character}",
        DIALTONE_AUDIENCE=f"{character}one, two{character}",
        DIALTONE_PORT=f"{character}8000{character}",
        DIALTONE_ISSUER_SECRET=f"{character}{SECRET}{character}",
    )

    assert settings.issuer == "https://id.example.com"
    assert settings.telnyx_api_key.get_secret_value() == "KEY_1"
    assert settings.audience == {"one", "two"}
    assert settings.port == 8000
    assert settings.issuer_secret is not None
    assert settings.issuer_secret.get_secret_value() == SECRET


@pytest.mark.parametrize("name", ["TELNYX_API_KEY", "DIALTONE_ISSUER", "DIALTONE_AUDIENCE", "DIALTONE_ISSUER_SECRET"])
@pytest.mark.parametrize("text", ["CANARY\udcff{}", "\udcffCANARY{}", "CANARY{}\udcff"], ids=["inside", "begin", "end"])
def test_value_in_another_encoding_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **{name: text.format(SECRET)})

    assert str(refusal.value) == f"{name} is not UTF-8 text"


@pytest.mark.parametrize("name", ["TELNYX_API_KEY", "DIALTONE_ISSUER", "DIALTONE_AUDIENCE", "DIALTONE_ISSUER_SECRET"])
@pytest.mark.parametrize("character", ["\u200b", "\ufeff", "\u00ad", "\u202e", "\x07"], ids=ascii)
def test_invisible_character_inside_a_value_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, character: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **{name: f"https://CANARY{character}{SECRET}"})

    assert f"{name} contains the invisible character U+{ord(character):04X}" in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


@pytest.mark.parametrize("value", ["", " ", "\n", "\u200b", '""', "''", '" "'])
def test_empty_value_is_not_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert load_variables(monkeypatch, DIALTONE_PORT=value, DIALTONE_RTC_HOST=value).port == 8010
    with pytest.raises(SettingsError, match="TELNYX_API_KEY is not set"):
        load_variables(monkeypatch, TELNYX_API_KEY=value)


# -- quotes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_that_docker_keeps_are_removed(monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    settings = load_variables(
        monkeypatch,
        DIALTONE_ISSUER=f"{quote}https://id.example.com{quote}",
        DIALTONE_AUDIENCE=f"{quote}one two{quote}",
        DIALTONE_ALGORITHMS=f"{quote}RS256{quote},{quote}ES256{quote},",
        DIALTONE_PORT=f" {quote}8000 {quote} ",
        TELNYX_API_KEY=f"{quote}KEY_1{quote}",
        DIALTONE_DATABASE_URL=f"{quote}sqlite:///ledger.db{quote}",
        DIALTONE_ISSUER_PEM=f"{quote}{pem()}{quote}",
    )

    assert (settings.issuer, settings.port) == ("https://id.example.com", 8000)
    assert settings.audience == {"one", "two"}
    assert settings.algorithms == frozenset({"RS256", "ES256"})
    assert settings.telnyx_api_key.get_secret_value() == "KEY_1"
    assert settings.database_url.get_secret_value() == "sqlite:///ledger.db"
    assert settings.identity().issuers[0][1]


def test_json_may_be_in_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_REQUIRED_CLAIMS="""'{"token_use": "access"}'""")

    assert settings.required_claims == {"token_use": "access"}


@pytest.mark.parametrize("name", ["DIALTONE_ISSUER_SECRET", "DIALTONE_TAG_KEY"])
@pytest.mark.parametrize("quote", ['"', "'", "\u201c"])
def test_quotes_around_a_generated_secret_are_an_error(monkeypatch: pytest.MonkeyPatch, name: str, quote: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} has (typographic )?quot") as refusal:
        load_variables(monkeypatch, **{name: f"{quote}{'CANARY' * 8}{quote}"})

    assert "CANARY" not in str(refusal.value)


def test_generated_secret_with_quotes_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = f'"{SECRET}"'
    (tmp_path / "secret").write_text(f"{secret}\n")
    in_file = load_variables(monkeypatch, DIALTONE_ISSUER_SECRET_FILE=str(tmp_path / "secret"))
    monkeypatch.delenv("DIALTONE_ISSUER_SECRET_FILE")
    in_env_file = load_env_file(monkeypatch, tmp_path / "env", lines(DIALTONE_ISSUER_SECRET=f"'{secret}'"))

    for settings in (in_file, in_env_file):
        assert settings.issuer_secret is not None
        assert settings.issuer_secret.get_secret_value() == secret


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"DIALTONE_ISSUER": '"https://id.example.com'}, "DIALTONE_ISSUER begins with a quotation mark"),
        ({"TELNYX_API_KEY": "'CANARY"}, "TELNYX_API_KEY begins with a quotation mark"),
        ({"TELNYX_API_KEY": "\u201cCANARY\u201d"}, "TELNYX_API_KEY has typographic quotation marks"),
        ({"DIALTONE_AUDIENCE": '["CANARY", "b"]'}, "DIALTONE_AUDIENCE: must be values separated by commas"),
        ({"DIALTONE_AUDIENCE": '"CANARY, b'}, "DIALTONE_AUDIENCE: has a quotation mark in a value"),
        ({"DIALTONE_CORS_ORIGINS": "'https://CANARY'x"}, "DIALTONE_CORS_ORIGINS: has a quotation mark in a value"),
    ],
    ids=str,
)
def test_quotes_without_a_counterpart_are_named(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **changes)

    assert str(refusal.value).startswith(line)
    assert "CANARY" not in str(refusal.value)


COMMENTED = {
    "DIALTONE_AUDIENCE": "dialtone # CANARY",
    "DIALTONE_ISSUER": "https://id.example.com # CANARY",
    "DIALTONE_SUBJECT_CLAIM": "sub #CANARY",
    "DIALTONE_TOKEN_TYPES": "# CANARY",
    "DIALTONE_LEEWAY_SECONDS": "30\t# CANARY",
    "DIALTONE_REQUIRED_SCOPES": "phone,\n# CANARY",
}


@pytest.mark.parametrize(("name", "value"), COMMENTED.items(), ids=COMMENTED)
def test_comment_that_docker_keeps_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **{name: value})

    assert str(refusal.value) == f"{name} has a comment in its value, which begins with #; remove it"


@pytest.mark.parametrize(
    "changes",
    [
        {"DIALTONE_AUDIENCE": "urn:phones#1"},
        {"DIALTONE_REQUIRED_CLAIMS": '{"team": "Sales #1"}'},
        {"DIALTONE_ISSUER_PEM": f"# staff\n{pem()}"},
        {"DIALTONE_ISSUER_SECRET": f"{SECRET} # 1"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_number_sign_is_no_comment(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    load_variables(monkeypatch, **changes)


def test_separators_at_the_end_of_a_list_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_AUDIENCE=", one,\ntwo ,, ")

    assert settings.audience == {"one", "two"}


# -- env files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: ("\ufeff" + text.replace("\n", "\r\n")).encode(),
        lambda text: "".join(f'export {line.replace("=", "=" + chr(34), 1)}"\n' for line in text.splitlines()).encode(),
    ],
    ids=["plain", "CRLF", "byte-order mark", "both", "export and quotes"],
)
def test_env_file_of_any_editor_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encode: object) -> None:
    assert callable(encode)
    settings = load_env_file(monkeypatch, tmp_path / "env", encode(lines(DIALTONE_PORT="8000")))

    assert (settings.issuer, settings.port) == ("https://id.example.com", 8000)
    assert settings.telnyx_api_key.get_secret_value() == MINIMAL_ENVIRONMENT["TELNYX_API_KEY"]


def test_env_file_that_is_named_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIALTONE_ENV_FILE", f"{tmp_path}/absent.env\n")

    with pytest.raises(SettingsError, match=r"^DIALTONE_ENV_FILE names a file that does not exist: .*absent\.env$"):
        Settings.load()


def test_default_env_file_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in MINIMAL_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    assert Settings.load().issuer == "https://id.example.com"


def test_env_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_env_file(monkeypatch, tmp_path / "env", lines().encode("utf-16"))
    monkeypatch.setenv("DIALTONE_ENV_FILE", str(tmp_path))
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings.load()


@pytest.mark.parametrize(
    "line",
    [
        'DIALTONE_REQUIRED_SCOPES="phone',
        "DIALTONE_REQUIRED_SCOPES",
        "export DIALTONE_REQUIRED_SCOPES='phone",
        "DIALTONE_REQUIRED_SCOPES: phone",
        'DIALTONE_REQUIRED_SCOPES="phone" admin',
        "set DIALTONE_REQUIRED_SCOPES=phone",
        "$env:DIALTONE_REQUIRED_SCOPES='phone'",
        "declare -x DIALTONE_REQUIRED_SCOPES=phone",
        "- DIALTONE_REQUIRED_SCOPES=phone",
        '- "DIALTONE_REQUIRED_SCOPES=phone"',
    ],
)
def test_line_of_the_env_file_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "env"

    with pytest.raises(SettingsError) as refusal:
        load_env_file(monkeypatch, path, f"# first line\n\n{line}\n{lines()}")

    assert str(refusal.value) == f"the env file {path}: line 3 is not DIALTONE_REQUIRED_SCOPES=VALUE"


def test_lines_of_other_programs_in_the_env_file_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_env_file(monkeypatch, tmp_path / "env", f"[section]\nOTHER: 1\nOTHER='x\nOTHER\n{lines()}")

    assert settings.issuer == "https://id.example.com"


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_env_file_does_not_change_a_secret_with_a_dollar_sign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quote: str
) -> None:
    monkeypatch.setenv("HOME", "/root")
    secret = f"a${{HOME}}b$HOME{SECRET}"

    settings = load_env_file(monkeypatch, tmp_path / "env", lines(DIALTONE_ISSUER_SECRET=f"{quote}{secret}{quote}"))

    assert settings.issuer_secret is not None
    assert settings.issuer_secret.get_secret_value() == secret


def test_reference_to_a_variable_in_the_env_file_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_env_file(
        monkeypatch, tmp_path / "env", lines(DIALTONE_SIP_DOMAIN="a.example", DIALTONE_TAG_KEY="${KEY}")
    )

    assert [
        (warning.place, warning.seen) for warning in settings.warnings() if warning.place == "DIALTONE_TAG_KEY"
    ] == [("DIALTONE_TAG_KEY", "has the text ${...}, which Dialtone does not replace")]


def test_environment_overrides_the_env_file_unless_it_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIALTONE_PORT", "9000")
    monkeypatch.setenv("DIALTONE_HOST", "")

    settings = load_env_file(monkeypatch, tmp_path / "env", lines(DIALTONE_PORT="8000", DIALTONE_HOST="::1"))

    assert (settings.port, settings.host) == (9000, ("::1",))
    assert settings.origin("port") == "environment"
    assert settings.origin("host") == str(tmp_path / "env")
    assert settings.origin("docs") == "default"


def test_only_dialtones_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        if name.upper() != variable_of(name):
            monkeypatch.setenv(name.upper(), "CANARY")

    assert load_variables(monkeypatch).host == ("127.0.0.1",)


# -- misspelt names -------------------------------------------------------------------------------------------------


def test_misspelt_variable_is_an_error_with_the_similar_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, DIALTONE_CORS_ORIGIN="CANARY")

    assert str(refusal.value) == (
        "DIALTONE_CORS_ORIGIN is not a setting of Dialtone (did you mean DIALTONE_CORS_ORIGINS?); "
        ".env.example lists all settings"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DIALTONE_CLIENT_ID", "DIALTONE_PROVIDER_CLIENT_ID"),
        ("DIALTONE_DOMAIN", "DIALTONE_PROVIDER_DOMAIN"),
        ("DIALTONE_PEM_FILE", "DIALTONE_ISSUER_PEM_FILE"),
    ],
)
def test_name_without_the_prefix_of_the_provider_or_issuer_is_completed(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    with pytest.raises(SettingsError, match=f"did you mean {meant}"):
        load_variables(monkeypatch, **{name: "CANARY"})


@pytest.mark.parametrize("name", ["DIALTONE_NONSENSE", "dialtone_port"])
def test_unknown_variable_is_an_error_whatever_its_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not a setting of Dialtone"):
        load_variables(monkeypatch, **{name: "CANARY"})


@pytest.mark.parametrize(
    "name", ["DIALTONE_SERVICE_HOST", "DIALTONE_PORT_8010_TCP_ADDR", "DIALTONE_DB_SERVICE_PORT_PG"]
)
def test_service_link_of_kubernetes_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is a service link of Kubernetes; set enableServiceLinks: false"):
        load_variables(monkeypatch, **{name: "tcp://10.0.0.1:8010"})


def test_misspelt_variable_in_the_env_file_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = lines(DIALTONE_MAX_DEVICE="CANARY", TELNYX_BASEURL="CANARY", TELNYX_PUBLIC_KEY="CANARY", OTHER="CANARY")

    warnings = load_env_file(monkeypatch, tmp_path / "env", text).warnings()

    names = [warning.place for warning in warnings if warning.place != "DIALTONE_ISSUER"]
    assert names == ["DIALTONE_MAX_DEVICE", "TELNYX_BASEURL"]
    assert "(did you mean DIALTONE_MAX_DEVICES?)" in warnings[0].fix
    assert "(did you mean TELNYX_BASE_URL?)" in warnings[1].fix
    assert "CANARY" not in str(warnings)


def test_missing_setting_is_reported_with_its_misspelt_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^TELNYX_API_KEY is not set, but TELNYX_APIKEY is"):
        load_variables(monkeypatch, TELNYX_API_KEY=None, TELNYX_APIKEY="CANARY")


# -- secrets in files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["KEY_1\n", "\ufeffKEY_1\r\n", '"KEY_1"\n', " KEY_1\u200b\n"], ids=ascii)
def test_file_of_a_secret_is_cleaned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)

    settings = load_variables(monkeypatch, TELNYX_API_KEY=None, TELNYX_API_KEY_FILE=f"{tmp_path}/key\n")

    assert settings.telnyx_api_key.get_secret_value() == "KEY_1"
    assert settings.origin("telnyx_api_key") == str(tmp_path / "key")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "TELNYX_API_KEY_FILE names a file that is empty"),
        (b"\xef\xbb\xbf \n", "TELNYX_API_KEY_FILE names a file that is empty"),
        ("CANARY".encode("utf-16"), "TELNYX_API_KEY_FILE names a file that is not UTF-8 text"),
        ("CANARY\u200bx".encode(), "the file of TELNYX_API_KEY_FILE contains the invisible character U+200B"),
    ],
    ids=["empty", "only white space", "UTF-16", "invisible character"],
)
def test_unusable_file_of_a_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, line: str
) -> None:
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, TELNYX_API_KEY=None, TELNYX_API_KEY_FILE=str(tmp_path / "key"))

    assert str(refusal.value).startswith(line)
    assert "CANARY" not in str(refusal.value)


def test_secrets_of_dialtone_toml_are_cleaned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"\ufeff{SECRET}\r\n")
    by_name = load_file(monkeypatch, tmp_path, ISSUER + 'secret_env = "MY_SECRET"', MY_SECRET=f"{SECRET}\n")
    by_file = load_file(monkeypatch, tmp_path, ISSUER + 'secret_file = "secret"')

    def key(settings: Settings) -> object:
        ((_, keys),) = settings.identity().issuers
        assert keys is not None
        (only,) = keys
        return only.checks["HS256"].verify(b"a", hmac.digest(SECRET.encode(), b"a", "sha256"))

    assert key(by_name) is key(by_file) is True


def test_quotes_around_a_secret_of_dialtone_toml_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"issuers\[0\].secret_env: MY_SECRET has quotes around its value"):
        load_file(monkeypatch, tmp_path, ISSUER + 'secret_env = "MY_SECRET"', MY_SECRET=f"'{SECRET}'")


def test_dialtone_toml_may_begin_with_a_byte_order_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_file(monkeypatch, tmp_path, "\ufeff" + ISSUER.replace("\n", "\r\n"))

    assert settings.identity().issuers


def test_variables_are_not_in_the_representation_or_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = load_env_file(monkeypatch, tmp_path / "env", lines(OTHER="CANARY", TELNYX_API_KEY="CANARY"))

    assert "CANARY" not in f"{settings!r} {caplog.text}"
