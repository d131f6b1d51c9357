"""Endpoints for events in dialtone.toml: https URLs, secrets by reference, and no secret in any message."""

import json
import re
from pathlib import Path

import pytest

from app.config.settings import Settings, SettingsError
from app.vending.events.models import EventType
from app.vending.visibility import Visibility
from tests.support.configuration import ISSUER, load_file
from tests.support.webhooks import FORMER_SECRET, SECRET, encoded

ENDPOINT = """
[[events.endpoints]]
name = "backend"
url = "https://backend.example.com/hooks"
secret_env = "HOOK_SECRET"
"""


def load(monkeypatch: pytest.MonkeyPatch, folder: Path, endpoints: str, **variables: str) -> Settings:
    return load_file(monkeypatch, folder, ISSUER + endpoints, **({"HOOK_SECRET": encoded(SECRET)} | variables))


def test_endpoint_gets_all_types_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (endpoint,) = load(monkeypatch, tmp_path, ENDPOINT).identity().endpoints

    assert endpoint.types == {event_type.value for event_type in EventType}
    assert endpoint.secrets == (SECRET,)
    assert "canary" not in repr(endpoint)


def test_former_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "former").write_text(encoded(FORMER_SECRET) + "\n")

    settings = load(monkeypatch, tmp_path, ENDPOINT + 'previous_secret_file = "former"\n')

    assert settings.identity().endpoints[0].secrets == (SECRET, FORMER_SECRET)


def test_no_endpoint_is_configured_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(monkeypatch, tmp_path, "").identity().endpoints == ()


@pytest.mark.parametrize(
    "url",
    [
        *("http://backend.example.com/", "http://localhost/", "https://user:password@backend.example.com/"),
        *("https://backend.example.com/#part", "https:///hooks", "ftp://backend.example.com/", "backend.example.com"),
        *("https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/", "https://[::1]/"),
        *("https://[fe80::1]/", "https://\uff11\uff12\uff17.0.0.1/", "https://b\u00fccher.example/"),
        *("https://user@backend.example.com/", "https://backend.example.com:0/", "https://backend.example.com:65536/"),
    ],
)
def test_url_that_is_not_public_https_is_rejected(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"events.endpoints\[0\].*(must be an https URL|is not public)"):
        load(monkeypatch, tmp_path, ENDPOINT.replace("https://backend.example.com/hooks", url))


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "127.0.0.1.", "1.2.3.4.5"),
        *("0x7f.1", "0x7f000001", "0x7F.0x0.0x0.0x1", "backend.0x", "backend.example.7", "256.1.1.1"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1]x"),
        *("localhost.", "backend.example.com.", ".example.com", "backend..example.com", "-backend.example.com"),
        *("backend-.example.com", "127%2e0.0.1", "backend%00.example.com", "backend.example.com:", "a" * 64 + ".com"),
        *("*.example.com", "backend,example.com", r"backend\\@example.com", ".".join(["a" * 49] * 6)),
    ],
)
def test_host_in_an_unusual_form_is_rejected(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    networks = 'allowed_networks = ["0.0.0.0/0", "::/0"]\n'  # so that no check of addresses rejects it
    with pytest.raises(SettingsError, match=r"events.endpoints\[0\].url: must (be an https URL|have a host name)"):
        load(monkeypatch, tmp_path, ENDPOINT.replace("backend.example.com", host) + networks)


@pytest.mark.parametrize(
    "host",
    [
        *("backend.example.com", "BACKEND.example.com", "backend", "hooks_1", "xn--bcher-kva.example", "1.example.com"),
        *("0x7f.example.com", "backend.example.com:8443", "8.8.8.8", "8.8.8.8:443", "[2606:4700:4700::1111]:8443"),
    ],
)
def test_host_in_its_usual_form_is_accepted(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(monkeypatch, tmp_path, ENDPOINT.replace("backend.example.com", host))

    assert settings.identity().endpoints[0].url == f"https://{host}/hooks"


def test_private_address_may_be_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = ENDPOINT.replace("backend.example.com", "10.1.2.3") + 'allowed_networks = ["10.1.0.0/16"]\n'

    assert load(monkeypatch, tmp_path, text).identity().endpoints[0].allowed_networks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("HOOK_SECRET", "OTHER_SECRET"), r"secret_env: OTHER_SECRET is not set"),
        (('secret_env = "HOOK_SECRET"', ""), r"set either secret_env or secret_file"),
        (('secret_env = "HOOK_SECRET"', 'secret_file = "none"'), r"secret_file: names a file that cannot be read"),
        (('"backend"', '"Backend!"'), r"name"),
        (("secret_env", "secret"), r"secret"),
        (('secret_env = "HOOK_SECRET"', 'secret_env = "HOOK_SECRET"\ntypes = ["lease.made"]'), r"types"),
        (('secret_env = "HOOK_SECRET"', 'secret_env = "HOOK_SECRET"\ntypes = []'), r"types"),
        (('secret_env = "HOOK_SECRET"', 'secret_env = "HOOK_SECRET"\nallowed_networks = ["10.0.0.1/8"]'), r"allowed"),
        (
            ('secret_env = "HOOK_SECRET"', 'secret_env = "HOOK_SECRET"\nprevious_secret_env = "HOOK_SECRET"'),
            r"previous_secret_env: is equal to the secret",
        ),
    ],
)
def test_invalid_endpoint_is_rejected(
    change: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load(monkeypatch, tmp_path, ENDPOINT.replace(*change))

    assert encoded(SECRET) not in str(caught.value)


def test_two_endpoints_cannot_have_one_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two endpoints have the same name"):
        load(monkeypatch, tmp_path, ENDPOINT + ENDPOINT)


@pytest.mark.parametrize("secret", ["short", "whsec_c2hvcnQ=", "not base64 but long enough to be a secret!!"])
def test_weak_secret_is_rejected_without_its_value(
    secret: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"secret_env: must be whsec_") as caught:
        load(monkeypatch, tmp_path, ENDPOINT, HOOK_SECRET=secret)

    assert secret not in str(caught.value)


TENANTS = '[[issuers]]\nname = "tenants"\nissuer = "https://login.example.com/{tid}/v2.0"\naudiences = ["dialtone"]\n'
TENANTS += 'jwks_url = "https://login.example.com/keys"\ntenants = '


def with_issuers(*names: str) -> str:
    return ENDPOINT + f"issuers = {json.dumps(names)}\n"


@pytest.mark.parametrize(
    ("names", "visible"),
    [
        (("staff",), {"https://id.example.com"}),
        (("staff", "dialtone:users"), {"https://id.example.com", "dialtone:users"}),
        (("https://login.example.com/c/v2.0",), {"https://login.example.com/c/v2.0"}),
    ],
)
def test_endpoint_can_be_limited_to_issuers(
    names: tuple[str, ...], visible: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = TENANTS + '"any"\n' + with_issuers(*names)

    (endpoint,) = load(monkeypatch, tmp_path, text).identity().endpoints

    assert endpoint.visibility == Visibility(frozenset(visible))
    assert not endpoint.receives(EventType.PUSH_EXPIRING, "")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("other",), "issuers: 'other' is not a configured issuer or the issuer of a tenant"),
        (("tenants",), "issuers: 'tenants' accepts every tenant; list the issuers of single tenants"),
        (("dialtone:others",), "issuers: 'dialtone:others' is not a configured issuer"),
        ((), "issuers"),
        (("",), "issuers"),
    ],
)
def test_endpoint_cannot_be_limited_to_unknown_issuers(
    names: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=re.escape("events.endpoints[0].") + message):
        load(monkeypatch, tmp_path, TENANTS + '"any"\n' + with_issuers(*names)).identity()
