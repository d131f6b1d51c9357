"""Settings of an issuer's keys and of the header with its tokens: off by default, and errors that name the setting."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.config.settings import SettingsError
from tests.support.certificates import certificate_authority
from tests.support.configuration import ISSUER, load_file, load_variables
from tests.support.tokens import pem

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/phones/0123456789abcdef"
ALB = f'header = "x-amzn-oidc-data"\nsigner = "{ARN}"\n'


def test_no_exception_is_on_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_file(monkeypatch, tmp_path, ISSUER)
    ((table, _),) = settings.identity().issuers

    assert (table.discovery_url, table.ca_file, table.header, table.signer) == (None, None, None, None)
    assert not table.allow_http
    assert settings.proxy_url is None
    assert settings.identity().ca_pems == (None,)


RIGHT: dict[str, str] = {
    "discovery_url": 'discovery_url = "https://internal.example.com/.well-known/openid-configuration"',
    "loopback": 'discovery_url = "http://127.0.0.1:8080/"',
    "single label": 'allow_http = true\njwks_url = "http://keycloak:8080/certs"',
    "underscore": 'allow_http = true\njwks_url = "http://id_provider/certs"',
    "service": 'allow_http = true\njwks_url = "http://keycloak.auth.svc/certs"',
    "cluster service": 'allow_http = true\njwks_url = "http://keycloak.auth.svc.cluster.local:8080/certs"',
    "private address": 'allow_http = true\ndiscovery_url = "http://10.1.2.3/"',
    "private IPv6": 'allow_http = true\njwks_url = "http://[fd12::1]:8080/"',
    "public https": 'allow_http = true\njwks_url = "https://id.example.com/certs"',
    "header": 'header = "Cf-Access-Jwt-Assertion"',
    "load balancer": ALB,
    "load balancer with its algorithm": ALB + 'algorithms = ["ES256"]',
    "no proxy": "use_proxy = false",
}


@pytest.mark.parametrize("lines", RIGHT.values(), ids=RIGHT.keys())
def test_valid_setting_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str) -> None:
    assert load_file(monkeypatch, tmp_path, ISSUER + lines).identity()


HTTPS = "must be an https URL"
WRONG: list[tuple[str, str]] = [
    ('discovery_url = "https://a.example.com"\njwks_url = "https://b.example.com"', "issuer: jwks_url, discovery_url"),
    ('discovery_url = "http://a.example.com"', f"discovery_url: {HTTPS} (or http to localhost)"),
    ('discovery_url = "https://a.example.com/\\n"', f"discovery_url: {HTTPS}"),
    ('discovery_url = "\\"https://a.example.com\\""', f"discovery_url: {HTTPS}"),
    ('jwks_url = "http://keycloak:8080/certs"', "jwks_url: must be an https URL; for http to this private host, set"),
    ('discovery_url = "http://10.1.2.3/"', "discovery_url: must be an https URL; for http to this private host, set"),
    ('allow_http = true\njwks_url = "http://id.example.com/certs"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://169.254.169.254/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://172.32.0.1/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://0.0.0.0/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://[fe80::1]/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://2130706433/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://0x7f000001/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://evil.svc.example.com/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://.svc/"', f"jwks_url: {HTTPS}, because allow_http"),
    ('allow_http = true\njwks_url = "http://keycloak:0/"', f"jwks_url: {HTTPS} (or"),
    ('allow_http = true\njwks_url = "http://u:CANARY@keycloak/"', f"jwks_url: {HTTPS} (or"),
    ('allow_http = true\nsecret_env = "MY_SECRET"', "allow_http: has no effect, because no keys are fetched"),
    ('ca_file = "ca.pem"\nsecret_env = "MY_SECRET"', "ca_file: has no effect, because no keys are fetched"),
    ('ca_file = "/nonexistent"', "ca_file: names a file that cannot be read"),
    ('pem_file = "a\\u0000b"', "pem_file: names a file that cannot be read"),
    ('pem_file = "key.der"', "pem_file: names a file that is not UTF-8 text; keys and certificates must be in PEM"),
    ('ca_file = "."', "ca_file: names a file that cannot be read"),
    ('ca_file = "empty.pem"', "ca_file: contains no CA certificate in PEM format"),
    ('ca_file = "umlaut.pem"', "ca_file: contains no CA certificate in PEM format"),
    ('ca_file = "key.pem"', "ca_file: contains no CA certificate in PEM format"),
    ('header = "Authorization"', "header: is a header with another meaning"),
    ('header = "cookie"', "header: is a header with another meaning"),
    ('header = "a b"', "header: must be the name of a header"),
    ('header = "a_b"', "header: must be the name of a header"),
    ('header = ""', "header: must be the name of a header"),
    ('header = "x\\n"', "header: must be the name of a header"),
    ('header = "X-Amzn-Oidc-Data"', "signer: is required with this header"),
    (f'signer = "{ARN}"', "header: must be x-amzn-oidc-data if signer is set"),
    (f'header = "x-token"\nsigner = "{ARN}"', "header: must be x-amzn-oidc-data if signer is set"),
    (ALB + 'jwks_url = "https://a.example.com"', "signer: excludes other key sources"),
    (ALB + 'secret_env = "MY_SECRET"', "signer: excludes other key sources"),
    (ALB + 'algorithms = ["RS256"]', "algorithms: must be ES256"),
    (ALB.replace("eu-west-1", "eu-west"), "signer: must be the ARN"),
    (ALB.replace("eu-west-1", "evil.example.com/"), "signer: must be the ARN"),
    (ALB.replace("arn:aws:", "arn:aws-us-gov:"), "signer: must be the ARN"),
    (ALB.replace("/app/", "/net/"), "signer: must be the ARN"),
    (ALB.replace("abcdef", "abcde*"), "signer: must be the ARN"),
    (ALB.replace('abcdef"', 'abcdef\\n"'), "signer: must be the ARN"),
]


@pytest.mark.parametrize(("lines", "line"), WRONG, ids=[lines[:70] for lines, _ in WRONG])
def test_invalid_setting_is_named_with_its_issuer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str, line: str
) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "umlaut.pem").write_text("\u00e4")
    (tmp_path / "key.pem").write_text(pem())
    (tmp_path / "key.der").write_bytes(b"\x30\x82\x01\xff")

    with pytest.raises(SettingsError) as refusal:
        load_file(monkeypatch, tmp_path, ISSUER + lines, MY_SECRET="s" * 32)

    assert f"dialtone.toml: issuers[0].{line}" in str(refusal.value)
    assert "CANARY" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_issuer_with_white_space_around_it_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text in ("https://id.example.com\\n", " https://id.example.com", "https://id.example.com/\\t"):
        with pytest.raises(SettingsError, match=r"issuers\[0\].issuer: has white space"):
            load_file(monkeypatch, tmp_path, ISSUER.replace("https://id.example.com", text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("'https://id.example.com'", "a second pair of quotes"),
        ("\u201chttps://id.example.com\u201d", "typographic quotation marks"),
        ("https://id.example.com\u200b", "the invisible character U+200B"),
        ("\ufeffhttps://id.example.com", "the invisible character U+FEFF"),
    ],
)
@pytest.mark.parametrize("field", ["issuer", "audiences"])
def test_quotes_and_invisible_characters_in_the_file_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, text: str, fault: str
) -> None:
    old = "https://id.example.com" if field == "issuer" else "dialtone"
    jwks = 'jwks_url = "https://id.example.com/keys"\n'

    with pytest.raises(SettingsError, match=rf"issuers\[0\].{field}.*{re.escape(fault)}"):
        load_file(monkeypatch, tmp_path, ISSUER.replace(old, text) + jwks)


def test_backslash_in_a_key_url_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="jwks_url: must be an https URL"):
        load_file(monkeypatch, tmp_path, ISSUER + "jwks_url = 'https://id.example.com\\@evil.example.com'\n")


def test_http_issuer_is_discovered_only_if_that_is_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = ISSUER.replace("https://id.example.com", "http://keycloak:8080/realms/phones")

    with pytest.raises(SettingsError, match="is not an https URL"):
        load_file(monkeypatch, tmp_path, text)
    assert load_file(monkeypatch, tmp_path, text + "allow_http = true").identity()


def test_two_issuers_cannot_have_one_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = ISSUER.replace("staff", "other").replace("//id", "//other")

    with pytest.raises(SettingsError, match="two issuers have the same header"):
        load_file(monkeypatch, tmp_path, f'{ISSUER}header = "X-Token"\n{other}header = "x-token"')


def test_ca_file_is_read_with_text_around_its_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(f"# Geschäftsstelle\n{certificate_authority().pem}", encoding="utf-8")

    (ca_pem,) = load_file(monkeypatch, tmp_path, ISSUER + 'ca_file = "ca.pem"').identity().ca_pems

    assert ca_pem is not None
    assert "BEGIN CERTIFICATE" in ca_pem


def test_settings_of_a_single_issuer_are_variables_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(certificate_authority().pem)
    settings = load_variables(
        monkeypatch,
        DIALTONE_DISCOVERY_URL="http://keycloak:8080/.well-known/openid-configuration",
        DIALTONE_ISSUER_ALLOW_HTTP="true",
        DIALTONE_ISSUER_CA_FILE=str(tmp_path / "ca.pem"),
        DIALTONE_ISSUER_USE_PROXY="false",
        DIALTONE_ISSUER_HEADER="X-Token",
    )
    ((table, _),) = settings.identity().issuers

    assert table.discovery_url == "http://keycloak:8080/.well-known/openid-configuration"
    assert (table.allow_http, table.use_proxy, table.header) == (True, False, "X-Token")
    assert settings.identity().ca_pems[0] == certificate_authority().pem


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"DIALTONE_DISCOVERY_URL": "http://keycloak/"}, "DIALTONE_DISCOVERY_URL: must be an https URL"),
        ({"DIALTONE_ISSUER_CA_FILE": "/nonexistent"}, "DIALTONE_ISSUER_CA_FILE: names a file that cannot be read"),
        ({"DIALTONE_ISSUER_HEADER": "host"}, "DIALTONE_ISSUER_HEADER: is a header with another meaning"),
        ({"DIALTONE_ISSUER_HEADER": "x-amzn-oidc-data"}, "DIALTONE_ISSUER_SIGNER: is required with this header"),
        ({"DIALTONE_ISSUER_SIGNER": "arn"}, "DIALTONE_ISSUER_SIGNER: must be the ARN"),
    ],
    ids=str,
)
def test_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **changes)

    assert line in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


# -- the egress proxy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://proxy:3128", "https://proxy.example.com", "http://user:pa%40ss@10.0.0.1:3128/", "http://[fd12::1]:3128"],
)
def test_proxy_url_is_accepted_and_never_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = load_variables(monkeypatch, DIALTONE_EGRESS_PROXY=url)

    assert settings.proxy_url == url
    assert url not in repr(settings)
    shown = CliRunner().invoke(app, ["config", "show"]).stdout
    assert "DIALTONE_EGRESS_PROXY=(set)" in shown
    assert url not in shown


def test_proxy_url_can_be_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("http://user:secret@proxy:3128\n")

    settings = load_variables(monkeypatch, DIALTONE_EGRESS_PROXY_FILE=str(tmp_path / "proxy"))

    assert settings.proxy_url == "http://user:secret@proxy:3128"


@pytest.mark.parametrize(
    "url",
    [
        "proxy:3128",
        "socks5://user:CANARY@proxy:1080",
        "http://",
        "http://user:CANARY@q@proxy:3128",
        "http://user:CANARY#x@proxy:3128",
        "http://user:CANARY/x@proxy:3128",
        "http://user:CANARY@proxy:3128/path",
        "http://proxy:99999",
        "http://proxy:0",
        "http://pro xy:3128",
        "http://us%3Aer:CANARY@proxy:3128",
        "http://user:CANARY%E2%82%AC@proxy:3128",
    ],
)
def test_invalid_proxy_url_is_rejected_without_its_value(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(SettingsError, match="DIALTONE_EGRESS_PROXY: must be http://HOST:PORT") as refusal:
        load_variables(monkeypatch, DIALTONE_EGRESS_PROXY=url)

    assert "CANARY" not in str(refusal.value)
