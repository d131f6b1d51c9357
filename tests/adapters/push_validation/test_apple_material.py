"""Validation of Apple's certificates and keys: valid and invalid pairs, chains, and spellings of PEM."""

import base64
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PublicFormat,
    pkcs7,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from app.adapters.push_validation import apns
from app.vending.push.models import PushType
from tests.support.pem_spellings import SPELLINGS, Spelling
from tests.support.push_material import (
    BUNDLE_ID,
    EC,
    TOPICS,
    VOIP,
    authority_pem,
    cert_pem,
    certificate,
    codes,
    key,
    pem_block,
    pem_of,
    token_key,
    topics,
)

NOW = datetime.now(UTC)
KEY = pem_of(key())
UNIVERSAL = topics((BUNDLE_ID, "app"), (f"{BUNDLE_ID}.voip", "voip"), (f"{BUNDLE_ID}.complication", "complication"))


def p12(passphrase: bytes | None = None) -> str:
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    bundle = pkcs12.serialize_key_and_certificates(b"voip", key(), certificate(), None, encryption)
    return in_base64(bundle)


def der() -> str:
    return in_base64(certificate().public_bytes(Encoding.DER))


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def pkcs7_file(encoding: Encoding) -> bytes:
    return pkcs7.serialize_certificates([certificate()], encoding)


def torn_crt_key() -> str:
    """A key whose exponent modulo p - 1 is wrong."""
    good = key().private_numbers()
    torn = rsa.RSAPrivateNumbers(
        good.p, good.q, good.d, good.dmp1 + 2, good.dmq1, good.iqmp, good.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    return pem_of(torn)


def ed25519_pem() -> str:
    private = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.USER_ID, f"{BUNDLE_ID}.voip")])
    builder = x509.CertificateBuilder(
        name, name, private.public_key(), 1, NOW - timedelta(days=1), NOW + timedelta(days=1)
    )
    return builder.sign(private, None).public_bytes(Encoding.PEM).decode()


def torn_key() -> str:
    """A key whose private exponent belongs to another key."""
    good, other = key().private_numbers(), key("other").private_numbers()
    torn = rsa.RSAPrivateNumbers(
        good.p, good.q, other.d, good.dmp1, good.dmq1, good.iqmp, good.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    return pem_of(torn)


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


OTHER = pem_of(key("other"))
PUBLIC_KEY = key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
SIGNING_REQUEST = (
    x509.CertificateSigningRequestBuilder(x509.Name([]))
    .sign(key(), hashes.SHA256())
    .public_bytes(Encoding.PEM)
    .decode()
)
WRONG: dict[str, tuple[str, str, list[str]]] = {
    "swapped": (KEY, cert_pem(), ["fields_swapped"]),
    "the key twice": (KEY, KEY, ["is_private_key"]),
    "the certificate twice": (cert_pem(), cert_pem(), ["is_certificate"]),
    "a signing request": (SIGNING_REQUEST, KEY, ["is_certificate_request"]),
    "a signing request of an older tool": (
        SIGNING_REQUEST.replace("CERTIFICATE REQ", "NEW CERTIFICATE REQ"),
        KEY,
        ["is_certificate_request"],
    ),
    "a signing request in place of the key": (cert_pem(), SIGNING_REQUEST, ["is_certificate_request"]),
    "a public key in place of the key": (cert_pem(), PUBLIC_KEY, ["is_public_key"]),
    "a public key in place of the certificate": (PUBLIC_KEY, KEY, ["is_public_key"]),
    "a PKCS #7 file": (pkcs7_file(Encoding.PEM).decode(), KEY, ["is_pkcs7"]),
    "a PKCS #7 file with another label": (pem_block("CMS", pkcs7_file(Encoding.DER)), KEY, ["is_pkcs7"]),
    "a PKCS #7 file without BEGIN and END": (in_base64(pkcs7_file(Encoding.DER)), KEY, ["is_pkcs7"]),
    "a binary PKCS #7 file": (pkcs7_file(Encoding.DER).decode("latin-1"), KEY, ["is_pkcs7"]),
    "a p12": (p12(), KEY, ["is_p12"]),
    "a p12 with a passphrase": (p12(b"secret"), KEY, ["is_p12"]),
    "base64 without BEGIN and END": (der(), KEY, ["pem_boundaries_missing"]),
    "base64 in lines": ("\r\n".join(cert_pem().splitlines()[1:-1]), KEY, ["pem_boundaries_missing"]),
    "base64 in quotes": (f'"{der()}"\n', KEY, ["pem_boundaries_missing"]),
    "a key without BEGIN and END": (cert_pem(), "".join(KEY.splitlines()[1:-1]), ["pem_boundaries_missing"]),
    "PEM in base64": (
        in_base64(cert_pem().encode()),
        in_base64(KEY.encode()),
        ["is_base64_of_pem", "is_base64_of_pem"],
    ),
    "raw der": (certificate().public_bytes(Encoding.DER).decode("latin-1"), KEY, ["is_der"]),
    "der read as UTF-8": (certificate().public_bytes(Encoding.DER).decode("utf-8", "replace"), KEY, ["is_der"]),
    "a p12 read as UTF-8": (base64.b64decode(p12()).decode("utf-8", "replace"), KEY, ["is_p12"]),
    "a p8 in place of the key": (cert_pem(), pem_of(token_key(), pkcs8=True), ["is_p8_token_key"]),
    "a p8 in place of the certificate": (pem_of(token_key(), pkcs8=True), KEY, ["is_p8_token_key"]),
    "two certificates of one key": (cert_pem() + cert_pem(serial=2), KEY, ["certificate_chain"]),
    "a malformed subject": (
        pem_block("CERTIFICATE", certificate().public_bytes(Encoding.DER).replace(b"VoIP Services", b"\xff" * 13)),
        KEY,
        ["certificate_unreadable"],
    ),
    "a certificate with an Ed25519 key": (ed25519_pem(), KEY, ["certificate_unreadable"]),
    "an Ed25519 key": (cert_pem(), pem_of(Ed25519PrivateKey.generate(), pkcs8=True), ["private_key_unreadable"]),
    "an encrypted key with the wrong label": (
        cert_pem(),
        pem_of(key(), passphrase=b"x", pkcs8=True).replace("ENCRYPTED ", ""),
        ["private_key_encrypted"],
    ),
    "nonsense": ("nonsense", "nonsense", ["certificate_unreadable", "private_key_unreadable"]),
    "half a certificate": (cert_pem()[:300], KEY, ["certificate_unreadable"]),
    "an empty certificate": (
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        KEY,
        ["certificate_unreadable"],
    ),
    "an encrypted key": (cert_pem(), pem_of(key(), passphrase=b"x"), ["private_key_encrypted"]),
    "an encrypted key in PKCS#8": (cert_pem(), pem_of(key(), passphrase=b"x", pkcs8=True), ["private_key_encrypted"]),
    "a weak key": (cert_pem(), pem_of(key("weak", 1024)), ["private_key_weak"]),
    "a key with inconsistent numbers": (cert_pem(), torn_key(), ["private_key_unreadable"]),
    "keys of other certificates": (cert_pem(), OTHER + pem_of(key("third")), ["key_mismatch"]),
    "an encrypted key and another": (cert_pem(), pem_of(key(), passphrase=b"x") + OTHER, ["private_key_encrypted"]),
    "a key with inconsistent CRT exponents": (cert_pem(), torn_crt_key(), ["private_key_unreadable"]),
    "a p8 in SEC 1": (cert_pem(), pem_of(token_key()), ["is_p8_token_key"]),
    "a p8 in one line": (cert_pem(), pem_of(token_key(), pkcs8=True).replace("\n", " "), ["is_p8_token_key"]),
    "a chain with an unreadable certificate": (
        cert_pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        KEY,
        ["certificate_unreadable"],
    ),
    "the key of another certificate": (cert_pem(), OTHER, ["key_mismatch"]),
    "no VoIP": (cert_pem(uid=BUNDLE_ID, cn="Apple Push Services", extensions={}), KEY, ["certificate_not_voip"]),
    "topics without VoIP": (
        cert_pem(uid=BUNDLE_ID, cn="Apple Push Services", extensions={TOPICS: topics((BUNDLE_ID, "app"))}),
        KEY,
        ["certificate_not_voip"],
    ),
    "broken topics": (
        cert_pem(uid=BUNDLE_ID, cn="x", extensions={TOPICS: b"\x30\x84\xff"}),
        KEY,
        ["certificate_not_voip"],
    ),
    "no bundle id": (cert_pem(uid=None, cn="x", extensions={VOIP: b"\x05\x00"}), KEY, ["bundle_id_missing"]),
    "expired": (
        cert_pem(since=NOW - timedelta(days=400), until=NOW - timedelta(days=1)),
        KEY,
        ["certificate_expired"],
    ),
    "not yet valid": (cert_pem(since=NOW + timedelta(days=1)), KEY, ["certificate_not_yet_valid"]),
    "huge": ("x" * 40_000, "y" * 40_000, ["material_too_large", "material_too_large"]),
    "several faults": (
        cert_pem(uid=None, cn="x", extensions={}, since=NOW - timedelta(days=9), until=NOW - timedelta(days=1)),
        OTHER,
        ["certificate_not_voip", "certificate_expired", "key_mismatch"],
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
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
