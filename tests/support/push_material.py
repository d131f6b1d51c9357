"""Push certificates and keys of a test authority, in the formats of Apple and Google.

Apple's VoIP Services certificates have `UID=<bundle id>.voip` and `CN=VoIP Services: <bundle id>` in the subject, and
the extension 1.2.840.113635.100.6.3.4; its newer push certificates list topics in 1.2.840.113635.100.6.3.6 (Apple's
WWDR Certification Practice Statement). Google's key file: cloud.google.com, "Create and delete service account keys".
"""

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from app.vending.push.material_errors import MaterialReport

BUNDLE_ID = "com.example.softphone"
VOIP = x509.ObjectIdentifier("1.2.840.113635.100.6.3.4")
TOPICS = x509.ObjectIdentifier("1.2.840.113635.100.6.3.6")
NULL = b"\x05\x00"
EC = "ec"
"""The owner of a certificate for `token_key()`."""

YEAR = timedelta(days=365)


@cache
def _key(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def key(name: str = "app", bits: int = 2048) -> rsa.RSAPrivateKey:
    """A cached key of that name."""
    return _key(name, bits)


@cache
def token_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(private: Any, *, passphrase: bytes | None = None, pkcs8: bool = False) -> str:
    form = PrivateFormat.PKCS8 if pkcs8 else PrivateFormat.TraditionalOpenSSL
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return str(private.private_bytes(Encoding.PEM, form, encryption), "ascii")


def pem_block(label: str, encoded: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.b64encode(encoded).decode()}\n-----END {label}-----\n"


def codes(report: MaterialReport) -> list[str]:
    return [fault.code for fault in report.faults]


def der_string(text: str) -> bytes:
    return bytes([0x0C, len(text)]) + text.encode()


def sequence(*parts: bytes) -> bytes:
    content = b"".join(parts)
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return b"\x30" + length + content


def topics(*pairs: tuple[str, str]) -> bytes:
    """Pairs of a topic and its use, as in Apple's certificates."""
    return sequence(*(part for topic, use in pairs for part in (der_string(topic), sequence(der_string(use)))))


def certificate(
    *,
    owner: str = "app",
    uid: str | None = f"{BUNDLE_ID}.voip",
    cn: str = f"VoIP Services: {BUNDLE_ID}",
    extensions: dict[x509.ObjectIdentifier, bytes] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    serial: int = 1,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.NameAttribute(NameOID.COMMON_NAME, cn)]
    if uid is not None:
        names.insert(0, x509.NameAttribute(NameOID.USER_ID, uid))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(authority)
        .public_key((token_key() if owner == EC else key(owner)).public_key())
        .serial_number(serial)
        .not_valid_before(since or now - timedelta(days=1))
        .not_valid_after(until or now + YEAR)
    )
    for oid, value in ({VOIP: NULL} if extensions is None else extensions).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(key("authority"), hashes.SHA256())


def cert_pem(**shape: Any) -> str:
    return certificate(**shape).public_bytes(Encoding.PEM).decode()


@cache
def authority_pem(name: str) -> str:
    """The certificate of the test authority (`authority`), or of the root that issued it (`root`)."""
    common = {"authority": "Test authority", "root": "Test root"}
    now = datetime.now(UTC)
    subject, issuer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (common[name], common["root"])
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key(name).public_key())
        .serial_number(9)
        .not_valid_before(now - YEAR)
        .not_valid_after(now + YEAR)
    )
    return builder.sign(key("root"), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def ios(alias: str = "softphone", **shape: Any) -> dict[str, Any]:
    """A valid request for an iOS push credential."""
    owner = shape.get("owner", "app")
    return {"type": "ios", "alias": alias, "certificate": cert_pem(**shape), "private_key": pem_of(key(owner))}


@cache
def _stable(serial: int) -> tuple[str, str]:
    return cert_pem(serial=serial), pem_of(key())


def same_ios(alias: str = "softphone", serial: int = 1) -> dict[str, Any]:
    """A request with the same certificate each time."""
    certificate, private_key = _stable(serial)
    return {"type": "ios", "alias": alias, "certificate": certificate, "private_key": private_key}


def service_account(**changes: Any) -> dict[str, Any]:
    good = {
        "type": "service_account",
        "project_id": "softphone-1234",
        "private_key_id": "0f3a",
        "private_key": pem_of(key("google"), pkcs8=True),
        "client_email": "firebase-adminsdk@softphone-1234.iam.gserviceaccount.com",
        "client_id": "1045",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "universe_domain": "googleapis.com",
    } | changes
    return {name: value for name, value in good.items() if value is not ...}


def android(alias: str = "softphone-android", **changes: Any) -> dict[str, Any]:
    return {"type": "android", "alias": alias, "project_account_json_file": service_account(**changes)}


def secrets_in(request: dict[str, Any]) -> list[str]:
    """Pieces of key material that must not appear in any output."""
    text = request.get("private_key") or request["project_account_json_file"]["private_key"]
    lines = [line for line in str(text).splitlines() if line and not line.startswith("-")]
    return [lines[1], lines[5], json.dumps(text)[60:110]]
