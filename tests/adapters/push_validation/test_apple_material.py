"""Validation of Apple's certificates and keys: valid and invalid pairs, chains, and spellings of PEM."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
)

from app.adapters.push_validation import apns
from app.vending.push.models import PushType
from tests.support.pem_spellings import SPELLINGS, Spelling
from tests.support.push_material import (
    BUNDLE_ID,
    EC,
    TOPICS,
    authority_pem,
    cert_pem,
    codes,
    key,
    pem_of,
    token_key,
    topics,
)
from tests.support.push_material_examples import INVALID_APPLE_MATERIAL

NOW = datetime.now(UTC)
KEY = pem_of(key())
UNIVERSAL = topics((BUNDLE_ID, "app"), (f"{BUNDLE_ID}.voip", "voip"), (f"{BUNDLE_ID}.complication", "complication"))


RIGHT: dict[str, tuple[str, str]] = {
    "a VoIP Services certificate": (cert_pem(), KEY),
    "key in PKCS#8": (cert_pem(), pem_of(key(), pkcs8=True)),
    "a topic list": (cert_pem(uid=BUNDLE_ID, cn="Apple Push Services", extensions={TOPICS: UNIVERSAL}), KEY),
    "the extension and the common name alone": (cert_pem(uid=None), KEY),
    "the subject only": (cert_pem(extensions={}), KEY),
    "with text around the PEM block": (
        f"Bag Attributes\n    friendlyName: VoIP\nsubject=/UID=x\n{cert_pem()}",
        f"Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n{KEY}",
    ),
    "both in one file, sent twice": (cert_pem() + KEY, cert_pem() + KEY),
    "in one line": (cert_pem().replace("\n", "\\n"), KEY.replace("\n", "\\n")),
    "Windows line endings": (cert_pem().replace("\n", "\r\n"), KEY.replace("\n", "\r\n")),
}


@pytest.mark.parametrize("pair", RIGHT.values(), ids=RIGHT)
def test_valid_apple_material_is_accepted_and_names_its_app(pair: tuple[str, str]) -> None:
    report = apns.validate(*pair, NOW)

    assert codes(report) == []
    assert report.material is not None
    assert report.material.type is PushType.IOS
    assert report.material.app_id == BUNDLE_ID
    assert report.days_left(NOW + timedelta(hours=1)) == 364
    assert set(report.material.upload) == {"type", "certificate", "private_key"}
    assert str(report.material.upload["certificate"]).startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE" not in repr(report)


@pytest.mark.parametrize("case", INVALID_APPLE_MATERIAL.values(), ids=INVALID_APPLE_MATERIAL)
def test_invalid_apple_material_is_reported_by_code(case: tuple[str, str, list[str]]) -> None:
    cert, private_key, wanted = case

    report = apns.validate(cert, private_key, NOW)

    assert codes(report) == wanted
    assert report.material is None


@pytest.mark.parametrize(("offset", "is_good"), [(-0.001, True), (0, False)])
def test_certificate_is_valid_until_its_last_second(offset: float, is_good: bool) -> None:
    end = NOW.replace(microsecond=0) + timedelta(days=1)

    report = apns.validate(cert_pem(until=end), KEY, end + timedelta(seconds=offset))

    assert (report.material is not None) is is_good


CERT = cert_pem()
PLAIN = apns.validate(CERT, KEY, NOW)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("private_key", [KEY, pem_of(key(), pkcs8=True)], ids=["PKCS#1", "PKCS#8"])
def test_apple_material_is_the_same_in_every_spelling(spell: Spelling, private_key: str) -> None:
    report = apns.validate(spell(CERT), spell(private_key), NOW)

    assert codes(report) == []
    assert report.material == PLAIN.material


def test_identity_of_material_is_stable() -> None:
    """The ledger holds a hash of it, so a change would upload each registered material again."""
    material = PLAIN.material
    assert material is not None
    assert material.identity == b"ios" + x509.load_pem_x509_certificate(CERT.encode()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_own_certificate_is_found_in_a_chain(order: tuple[int, ...]) -> None:
    chain = [CERT, authority_pem("authority"), authority_pem("root")]

    report = apns.validate("".join(chain[index] for index in order), KEY, NOW)

    assert report.material == PLAIN.material


OTHER = pem_of(key("other"))


def test_matching_key_is_found_among_several_keys() -> None:
    unusable = pem_of(key("third"), passphrase=b"x")

    for keys in (OTHER + KEY, KEY + OTHER, unusable + KEY, KEY + KEY):
        assert apns.validate(CERT, keys, NOW).material == PLAIN.material


def test_voip_pair_is_found_in_an_export_of_several_pairs() -> None:
    development = cert_pem(owner="other", uid=BUNDLE_ID, cn="Apple Development", extensions={})
    export = development + OTHER + CERT + KEY

    assert apns.validate(export, export, NOW).material == PLAIN.material


@pytest.mark.parametrize("pkcs8", [False, True], ids=["SEC 1", "PKCS#8"])
def test_ec_key_of_the_certificate_is_accepted(pkcs8: bool) -> None:
    report = apns.validate(cert_pem(owner=EC), pem_of(token_key(), pkcs8=pkcs8), NOW)

    assert codes(report) == []
