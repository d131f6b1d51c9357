"""Entries of the shared login cache: encrypted, and bound to one version of one lease."""

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.adapters.login_cache.sealing import InvalidEntry, LoginSealer, parse_keys
from app.vending.telephony.lease import Lease
from tests.support.leases import LEASE, NOW
from tests.support.shared_logins import FIRST, LOGIN, SECOND, SECRET


def sealer(*keys: bytes, namespace: str = "dialtone") -> LoginSealer:
    return LoginSealer(keys or (FIRST,), namespace)


def test_login_is_the_same_after_encryption() -> None:
    assert sealer().open(LEASE, 0, sealer().seal(LOGIN)) == LOGIN


def test_entry_and_name_contain_nothing_readable() -> None:
    entry, (name,) = sealer().seal(LOGIN), sealer().names(LEASE)

    for text in (SECRET, "secret", LEASE.subject, LEASE.issuer, LEASE.device_id, LEASE.id, "2026"):
        assert text.encode() not in entry
        assert text not in name


def test_nonce_is_new_for_each_entry() -> None:
    entries = {sealer().seal(LOGIN)[:12] for _ in range(1000)}

    assert len(entries) == 1000


CHANGES: list[dict[str, Any]] = [
    {"version": LEASE.version + 1},
    {"version": LEASE.version - 1},
    {"id": "1" * 32},
    {"device_id": "phone"},
    {"subject": "bob"},
    {"issuer": "https://id.example.org"},
    {"issuer": LEASE.issuer + '", "', "subject": LEASE.subject},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "+".join(changes))
def test_entry_of_another_lease_or_version_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidEntry):
        sealer().open(replace(LEASE, **changes), 0, sealer().seal(LOGIN))


@pytest.mark.parametrize(
    "other",
    [sealer(SECOND), sealer(namespace="other"), sealer(namespace="x")],
    ids=["key", "namespace", "prefix"],
)
def test_entry_of_another_key_or_namespace_is_rejected(other: LoginSealer) -> None:
    assert other.names(LEASE) != sealer().names(LEASE)
    with pytest.raises(InvalidEntry):
        sealer().open(LEASE, 0, other.seal(LOGIN))


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_changed_entry_is_rejected(place: int) -> None:
    entry = bytearray(sealer().seal(LOGIN))
    entry[place % len(entry)] ^= 1

    with pytest.raises(InvalidEntry):
        sealer().open(LEASE, 0, bytes(entry))


@pytest.mark.parametrize("entry", [b"", b"x", b"x" * 12, b"x" * 28, b"x" * 5000, b"null"])
def test_garbage_is_rejected(entry: bytes) -> None:
    with pytest.raises(InvalidEntry):
        sealer().open(LEASE, 0, entry)


def test_subjects_with_parts_of_other_names_do_not_collide() -> None:
    leases = [replace(LEASE, subject="a", device_id="b\0c"), replace(LEASE, subject="a\0b", device_id="c")]
    leases += [replace(LEASE, subject='a","b'), replace(LEASE, subject="a", issuer=LEASE.issuer + '","b')]

    assert len({sealer().names(lease)[0] for lease in leases}) == 4


def test_subject_that_is_no_utf8_text_has_an_entry() -> None:
    lease = replace(LEASE, subject="\ud800")
    login = replace(LOGIN, lease=lease)

    assert sealer().open(lease, 0, sealer().seal(login)) == login


def test_rotated_keys_decrypt_entries_of_the_former_key() -> None:
    former, during, after = sealer(FIRST), sealer(SECOND, FIRST), sealer(SECOND)
    name = former.names(LEASE)[0]

    assert during.names(LEASE) == [after.names(LEASE)[0], name]
    assert during.open(LEASE, 1, former.seal(LOGIN)) == LOGIN
    assert after.open(LEASE, 0, during.seal(LOGIN)) == LOGIN
    with pytest.raises(InvalidEntry):
        during.open(LEASE, 0, former.seal(LOGIN))


def test_login_expires_with_its_lease_at_the_latest() -> None:
    shorter: Lease = replace(LEASE, expires_at=NOW + timedelta(minutes=1))

    assert sealer().open(shorter, 0, sealer().seal(LOGIN)).expires_at == shorter.expires_at


@pytest.mark.parametrize("text", ["\xff" * 32, "a" * 10, "", ",", "not base64!", base64.b64encode(b"x" * 31).decode()])
def test_unusable_key_is_rejected_without_its_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(each key )?must be ") as rejected:
        parse_keys(text)

    assert len(text) < 2 or text not in str(rejected.value)


def test_keys_are_read_in_either_alphabet_and_with_any_separator() -> None:
    key = bytes(range(256))[-32:]
    texts = [base64.b64encode(FIRST).decode(), base64.urlsafe_b64encode(key).decode().rstrip("=")]

    assert parse_keys(f" {texts[0]},\n{texts[1]} ") == (FIRST, key)


def test_repeated_key_is_rejected() -> None:
    text = base64.b64encode(FIRST).decode()

    with pytest.raises(ValueError, match="has the same key twice"):
        parse_keys(f"{text},{text.rstrip('=')}")
