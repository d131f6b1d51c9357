"""The settings of the listeners: hosts, Unix sockets, the admin listener and trusted proxies."""

import pytest

from app.config.settings import SettingsError
from app.serving.client_address import ClientAddresses
from app.serving.framing import RequestHead, parse_head
from tests.support.configuration import load_variables


def forwarded(addresses: str) -> RequestHead:
    return parse_head(f"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {addresses}\r\n\r\n".encode())


WRONG: list[tuple[dict[str, str], str]] = [
    ({"DIALTONE_HOST": " , "}, "DIALTONE_HOST is empty"),
    ({"DIALTONE_HOST": "127.0.0.1:8010"}, "DIALTONE_HOST: "),
    ({"DIALTONE_HOST": "[::1]"}, "DIALTONE_HOST: must list IP addresses without brackets"),
    ({"DIALTONE_HOST": "[::]:8010"}, "DIALTONE_HOST: must list IP addresses without brackets"),
    ({"DIALTONE_HOST": "*"}, "for all addresses use 0.0.0.0 or ::"),
    ({"DIALTONE_HOST": "http://CANARY"}, "DIALTONE_HOST: "),
    ({"DIALTONE_HOST": "/run/CANARY.sock"}, "unix:/PATH"),
    ({"DIALTONE_HOST": "unix:CANARY.sock"}, "DIALTONE_HOST: the path of a Unix socket must be absolute"),
    ({"DIALTONE_HOST": "unix:"}, "DIALTONE_HOST: the path of a Unix socket must be absolute"),
    ({"DIALTONE_HOST": "unix:/" + "CANARY" * 18}, "DIALTONE_HOST: the path of a Unix socket may have 107 bytes"),
    ({"DIALTONE_HOST": "unix:/" + "é" * 54}, "DIALTONE_HOST: the path of a Unix socket may have 107 bytes"),
    ({"DIALTONE_HOST": "::1 ::1"}, "DIALTONE_HOST: names a host twice"),
    ({"DIALTONE_ADMIN_HOST": "unix:CANARY"}, "DIALTONE_ADMIN_HOST: the path"),
    ({"DIALTONE_ADMIN_HOST": "127.0.0.1"}, "DIALTONE_ADMIN_PORT is not set"),
    ({"DIALTONE_ADMIN_HOST": "unix:/run/a", "DIALTONE_ADMIN_PORT": "8090"}, "names only Unix sockets"),
    ({"DIALTONE_ADMIN_PORT": "70000"}, "DIALTONE_ADMIN_PORT"),
    ({"DIALTONE_ADMIN_PORT": "8010"}, "DIALTONE_ADMIN_PORT and DIALTONE_PORT are the same"),
    ({"DIALTONE_ADMIN_PORT": "9000", "DIALTONE_PORT": "9000", "DIALTONE_HOST": "::"}, "are the same"),
    ({"DIALTONE_HOST": "::1 unix:/run/a", "DIALTONE_ADMIN_HOST": "unix:/run/a"}, "name the same Unix socket"),
    ({"DIALTONE_SOCKET_MODE": "rw-rw----"}, "DIALTONE_SOCKET_MODE"),
    ({"DIALTONE_SOCKET_MODE": "888"}, "DIALTONE_SOCKET_MODE"),
    ({"DIALTONE_SOCKET_MODE": "060"}, "DIALTONE_SOCKET_MODE: must allow the owner"),
    ({"DIALTONE_TRUSTED_PROXIES": "CANARY"}, "DIALTONE_TRUSTED_PROXIES: must list IP addresses"),
    ({"DIALTONE_TRUSTED_PROXIES": "10.0.0.1/8"}, "without bits after the prefix"),
    ({"DIALTONE_TRUSTED_PROXIES": "[fd00::1]"}, "DIALTONE_TRUSTED_PROXIES: must list IP addresses without brackets"),
    ({"DIALTONE_TRUSTED_PROXIES": "127.0.0.1,unix:/run/a"}, "DIALTONE_TRUSTED_PROXIES: must list IP addresses"),
]


@pytest.mark.parametrize(("changes", "line"), WRONG, ids=lambda value: str(value)[:60])
def test_invalid_listener_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_variables(monkeypatch, **changes)

    assert line in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


def test_hosts_are_separated_by_commas_or_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_HOST="127.0.0.1, ::1 phones.internal unix:/run/dialtone.sock")

    assert settings.host == ("127.0.0.1", "::1", "phones.internal", "unix:/run/dialtone.sock")


def test_there_is_no_admin_listener_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_variables(monkeypatch).admin_hosts == ()


def test_admin_listener_is_only_on_this_machine_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_variables(monkeypatch, DIALTONE_ADMIN_PORT="8090").admin_hosts == ("127.0.0.1",)


def test_admin_listener_may_be_a_unix_socket_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_ADMIN_HOST="unix:/run/dialtone/admin.sock")

    assert settings.admin_hosts == ("unix:/run/dialtone/admin.sock",)


def test_admin_port_may_be_the_port_that_a_unix_socket_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_HOST="unix:/run/dialtone.sock", DIALTONE_ADMIN_PORT="8010")

    assert settings.admin_hosts == ("127.0.0.1",)


def test_proxies_of_this_machine_are_trusted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_variables(monkeypatch).trusted_proxies == ("127.0.0.1", "::1", "unix")


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_variables(monkeypatch, DIALTONE_TRUSTED_PROXIES="10.0.0.0/8, fd00::/8 192.0.2.1")

    assert settings.trusted_proxies == ("10.0.0.0/8", "fd00::/8", "192.0.2.1")


@pytest.mark.parametrize("proxies", ["*", "*,unix", "127.0.0.1 *"])
def test_star_trusts_every_peer_also_beside_others(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    addresses = ClientAddresses(load_variables(monkeypatch, DIALTONE_TRUSTED_PROXIES=proxies).trusted_peers)

    assert [addresses.of(peer, forwarded("203.0.113.7")) for peer in ("192.0.2.1", "unix")] == ["203.0.113.7"] * 2


@pytest.mark.parametrize("proxies", ["10.0.0.0/8", "10.0.0.1,10.2.2.2", "10.0.0.0/255.0.0.0"])
def test_trusted_proxies_are_recognized_in_their_ipv6_form(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    addresses = ClientAddresses(load_variables(monkeypatch, DIALTONE_TRUSTED_PROXIES=proxies).trusted_peers)

    assert addresses.of("10.0.0.1", forwarded("203.0.113.7, ::ffff:10.2.2.2")) == "203.0.113.7"
    assert addresses.of("10.0.0.1", forwarded("203.0.113.7, ::ffff:11.2.2.2")) == "::ffff:11.2.2.2"
