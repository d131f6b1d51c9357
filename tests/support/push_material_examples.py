"""Examples of push material by kind, with the codes of their faults."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

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

from tests.support.push_material import (
    BUNDLE_ID,
    TOPICS,
    VOIP,
    android,
    cert_pem,
    certificate,
    ios,
    key,
    pem_block,
    pem_of,
    service_account,
    token_key,
    topics,
)

NOW = datetime.now(UTC)
KEY = pem_of(key())


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


OTHER = pem_of(key("other"))
PUBLIC_KEY = key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
SIGNING_REQUEST = (
    x509.CertificateSigningRequestBuilder(x509.Name([]))
    .sign(key(), hashes.SHA256())
    .public_bytes(Encoding.PEM)
    .decode()
)
INVALID_APPLE_MATERIAL: dict[str, tuple[str, str, list[str]]] = {
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
"""Certificate, private key, and the codes of their faults."""

GOOGLE_MATERIAL: dict[str, tuple[Any, list[str]]] = {
    "as downloaded": (service_account(), []),
    "with an older token_uri": (service_account(token_uri="https://accounts.google.com/o/oauth2/token"), []),
    "a JSON string": (json.dumps(service_account()), ["service_account_is_text"]),
    "a list": ([service_account()], ["service_account_is_text"]),
    "nothing": (None, ["service_account_is_text"]),
    "a server key": ("AAAAx7Yz:APA91b" + "x" * 100, ["is_server_key"]),
    "google-services.json": ({"project_info": {"project_id": "x"}, "client": []}, ["is_google_services_json"]),
    "an OAuth client": ({"installed": {"client_id": "x"}}, ["is_oauth_client"]),
    "another type": (service_account(type="authorized_user"), ["service_account_wrong_type"]),
    "no project": (service_account(project_id=...), ["project_id_missing"]),
    "an empty project": (service_account(project_id=""), ["project_id_missing"]),
    "no e-mail": (service_account(client_email=...), ["client_email_missing"]),
    "an invalid e-mail": (service_account(client_email="x"), ["client_email_missing"]),
    "no key": (service_account(private_key=...), ["service_account_key_unreadable"]),
    "half a key": (service_account(private_key=KEY[:200]), ["service_account_key_unreadable"]),
    "an encrypted key": (
        service_account(private_key=pem_of(key(), passphrase=b"x")),
        ["service_account_key_unreadable"],
    ),
    "an EC key": (service_account(private_key=pem_of(token_key(), pkcs8=True)), ["service_account_key_unreadable"]),
    "a weak key": (service_account(private_key=pem_of(key("weak", 1024))), ["private_key_weak"]),
    "another token_uri": (service_account(token_uri="https://evil.example.com/token"), ["token_uri_not_google"]),
    "no token_uri": (service_account(token_uri=...), ["token_uri_not_google"]),
    "huge": (service_account(padding="x" * 40_000), ["material_too_large"]),
    "credentials of a user": (
        {"type": "authorized_user", "client_id": "x", "client_secret": "y", "refresh_token": "z"},
        ["service_account_wrong_type"],
    ),
    "a web app's configuration": ({"apiKey": "x", "projectId": "y"}, ["service_account_wrong_type"]),
    "the body of a registration": (android(), ["is_registration_request"]),
    "the body of a registration of an iOS app": (ios(), ["is_registration_request"]),
    "empty": ({}, ["service_account_wrong_type"]),
    "the type alone": (
        {"type": "service_account"},
        ["project_id_missing", "client_email_missing", "token_uri_not_google", "service_account_key_unreadable"],
    ),
}
"""A service account or another value, and the codes of its faults. Two have none."""
