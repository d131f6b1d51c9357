"""Validation of push material that is damaged, random or made to take long, and the messages of all faults."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.push_validation import apns, fcm
from app.vending.push.material_errors import FAULT_MESSAGES
from tests.support.push_material import cert_pem, certificate, codes, key, pem_block, pem_of
from tests.support.push_material_examples import GOOGLE_MATERIAL, INVALID_APPLE_MATERIAL

NOW = datetime.now(UTC)
KEY = pem_of(key())


def element(tag: int, content: bytes) -> bytes:
    """DER with a length of four bytes."""
    return bytes([tag, 0x83]) + len(content).to_bytes(3) + content


def long_dsa_key() -> str:
    """A DSA key with a modulus of 60,000 bits, which takes more than a minute to load."""
    parameters = element(0x02, b"\x7f" * 7_500) + element(0x02, b"\x7f" * 32) + element(0x02, b"\x02")
    algorithm = element(0x30, element(0x06, bytes.fromhex("2a8648ce380401")) + element(0x30, parameters))
    private = element(0x04, element(0x02, b"\x7f" * 7_400))
    return pem_block("PRIVATE KEY", element(0x30, element(0x02, b"\x00") + algorithm + private))


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("private_key", "code"),
    [(pem_of(key("long", 4096)), "key_mismatch"), (long_dsa_key(), "private_key_unreadable")],
    ids=["RSA", "DSA"],
)
def test_oversized_key_is_rejected_quickly(private_key: str, code: str) -> None:
    began = time.thread_time()

    assert codes(apns.validate(cert_pem(), private_key, NOW)) == [code]

    assert time.thread_time() - began < 0.1


def test_every_code_has_an_example_and_a_message() -> None:
    shown = {code for *_, wanted in INVALID_APPLE_MATERIAL.values() for code in wanted}
    shown |= {code for _, wanted in GOOGLE_MATERIAL.values() for code in wanted}

    assert shown == set(FAULT_MESSAGES)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in FAULT_MESSAGES.values())


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_text_is_reported_as_faults(cert: str, private_key: str) -> None:
    assert apns.validate(cert, private_key, NOW).faults


CERT_DER = certificate().public_bytes(Encoding.DER)
KEY_DER = key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def changed(encoded: bytes, changes: list[tuple[int, int]]) -> bytes:
    """The bytes with some of them replaced."""
    found = bytearray(encoded)
    for position, value in changes:
        found[position % len(found)] = value
    return bytes(found)


CHANGES = st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), max_size=3)


@given(CHANGES, CHANGES)
def test_damaged_material_is_either_rejected_or_accepted(
    cert: list[tuple[int, int]], private: list[tuple[int, int]]
) -> None:
    """The library parses some parts of a certificate only when they are read."""
    certificate_pem = pem_block("CERTIFICATE", changed(CERT_DER, cert))
    key_pem = pem_block("PRIVATE KEY", changed(KEY_DER, private))

    report = apns.validate(certificate_pem, key_pem, NOW)

    assert bool(report.faults) != (report.material is not None)


BLOCKS = st.lists(
    st.sampled_from(
        [
            "-----BEGIN CERTIFICATE-----",
            "-----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "MIIB",
            "\n",
            "\\n",
            cert_pem(),
            KEY,
        ]
    ),
    max_size=8,
).map("".join)


@given(BLOCKS, BLOCKS)
def test_any_sequence_of_pem_blocks_is_either_rejected_or_accepted(cert: str, private_key: str) -> None:
    report = apns.validate(cert, private_key, NOW)

    assert bool(report.faults) != (report.material is not None)


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=9), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_json_is_reported_as_faults(account: Any) -> None:
    assert fcm.validate(account).faults
