"""Endpoints for events in dialtone.toml: https URLs, secrets by reference, and no secret in any message."""

from pathlib import Path

import pytest

from app.config.settings import Settings, SettingsError
from app.vending.events.models import EventType
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
        *("https://[fe80::1]/", "https://[::ffff:10.0.0.1]/", "https://\uff11\uff12\uff17.0.0.1/"),
    ],
)
def test_url_that_is_not_public_https_is_rejected(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"events.endpoints\[0\].*(must be an https URL|is not public)"):
        load(monkeypatch, tmp_path, ENDPOINT.replace("https://backend.example.com/hooks", url))


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
