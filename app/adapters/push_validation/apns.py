"""Validation of Apple's VoIP certificate and its private key, in PEM.

A certificate is for VoIP pushes if it has the extension of VoIP Services certificates, or a topic that ends in `.voip`
in its list of topics or in the subject's user id. Source: Apple's WWDR Certification Practice Statement (certificate
profiles, extensions under 1.2.840.113635.100.6.3) and Apple's own certificates.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from app.adapters.push_validation.keys import WeakKey, load
from app.adapters.push_validation.pem import blocks
from app.vending.push.material_errors import MaterialFault, MaterialReport
from app.vending.push.models import PushMaterial, PushType

VOIP_SERVICES = x509.ObjectIdentifier("1.2.840.113635.100.6.3.4")
"""The extension of VoIP Services certificates."""

TOPICS = x509.ObjectIdentifier("1.2.840.113635.100.6.3.6")
"""The extension with the topics that a certificate may push to: bundle id, bundle id + `.voip`, and more."""

VOIP_SUFFIX = ".voip"
COMMON_NAME_PREFIX = "VoIP Services:"
MAX_FIELD_BYTES = 32 * 1024
"""Apple's certificates have about 2 KB, RSA keys of 4096 bits about 3 KB."""

_UTF8_STRING, _CONSTRUCTED = 0x0C, 0x20


def validate(certificate: str, private_key: str, now: datetime) -> MaterialReport:
    """The material of a valid pair, or all its faults."""
    faults = [
        MaterialFault("material_too_large", field)
        for field, text in (("certificate", certificate), ("private_key", private_key))
        if len(text) > MAX_FIELD_BYTES
    ]
    if faults:
        return MaterialReport(None, tuple(faults))
    is_swapped = _holds_key(certificate) and _holds_certificate(private_key)
    if is_swapped and not _holds_certificate(certificate):
        return MaterialReport(None, (MaterialFault("fields_swapped", "certificate"),))
    cert = _certificate(certificate, faults)
    key = _private_key(private_key, faults)
    if cert is not None:
        _check_certificate(cert, now, faults)
    if cert is not None and key is not None and _spki(cert) != _spki(key):
        faults.append(MaterialFault("key_mismatch", "private_key"))
    if faults or cert is None or key is None:
        return MaterialReport(None, tuple(faults))
    der = cert.public_bytes(Encoding.DER)
    upload = {
        "type": PushType.IOS.value,
        "certificate": cert.public_bytes(Encoding.PEM).decode("ascii"),
        "private_key": blocks(private_key)[0].text,  # without the text that openssl writes around it
    }
    return MaterialReport(
        PushMaterial(
            type=PushType.IOS,
            app_id=_bundle_id(cert) or "",
            identity=b"ios" + der,
            fingerprint_sha256=hashlib.sha256(der).hexdigest(),
            not_after=cert.not_valid_after_utc,
            upload=upload,
        )
    )


def _certificate(text: str, faults: list[MaterialFault]) -> x509.Certificate | None:
    found = [block for block in blocks(text) if block.label.endswith("CERTIFICATE")]
    if len(found) > 1:
        faults.append(MaterialFault("certificate_chain", "certificate"))
    elif not found:
        code = _key_for_certificate(text) or _binary(text) or "certificate_unreadable"
        faults.append(MaterialFault(code, "certificate"))
    else:
        try:
            return x509.load_pem_x509_certificate(found[0].text.encode())
        except Exception:
            faults.append(MaterialFault("certificate_unreadable", "certificate"))
    return None


def _private_key(text: str, faults: list[MaterialFault]) -> PrivateKeyTypes | None:
    found = [block for block in blocks(text) if block.label.endswith("PRIVATE KEY")]
    if len(found) != 1:
        swapped = "fields_swapped" if not found and _holds_certificate(text) else None
        faults.append(MaterialFault(swapped or _binary(text) or "private_key_unreadable", "private_key"))
        return None
    if found[0].label.startswith("ENCRYPTED") or "ENCRYPTED" in found[0].text:
        faults.append(MaterialFault("private_key_encrypted", "private_key"))
        return None
    try:
        key = load(found[0].text)
    except WeakKey:
        faults.append(MaterialFault("private_key_weak", "private_key"))
        return None
    except Exception:
        faults.append(MaterialFault("private_key_unreadable", "private_key"))
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and found[0].label == "PRIVATE KEY":
        # Apple's key for token authentication is a P-256 key in PKCS#8. VoIP certificates have RSA keys.
        faults.append(MaterialFault("is_p8_token_key", "private_key"))
        return None
    return key


def _check_certificate(cert: x509.Certificate, now: datetime, faults: list[MaterialFault]) -> None:
    if not _is_voip(cert):
        faults.append(MaterialFault("certificate_not_voip", "certificate"))
    elif _bundle_id(cert) is None:
        faults.append(MaterialFault("bundle_id_missing", "certificate"))
    if now >= cert.not_valid_after_utc:
        faults.append(MaterialFault("certificate_expired", "certificate"))
    elif now < cert.not_valid_before_utc:
        faults.append(MaterialFault("certificate_not_yet_valid", "certificate"))


def _is_voip(cert: x509.Certificate) -> bool:
    has_extension = any(extension.oid == VOIP_SERVICES for extension in cert.extensions)
    return has_extension or any(topic.endswith(VOIP_SUFFIX) for topic in (*_topics(cert), _user_id(cert)))


def _bundle_id(cert: x509.Certificate) -> str | None:
    """The bundle id from the VoIP topic, the subject's user id or its common name, in this order."""
    voip = (topic for topic in (*_topics(cert), _user_id(cert)) if topic.endswith(VOIP_SUFFIX))
    names = (str(name.value) for name in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    titled = (name.removeprefix(COMMON_NAME_PREFIX).strip() for name in names if name.startswith(COMMON_NAME_PREFIX))
    found = next(voip, "").removesuffix(VOIP_SUFFIX) or _user_id(cert) or next(titled, "")
    return found if found and len(found) <= 255 and found.isprintable() else None


def _user_id(cert: x509.Certificate) -> str:
    return next((str(name.value) for name in cert.subject.get_attributes_for_oid(NameOID.USER_ID)), "")


def _topics(cert: x509.Certificate) -> list[str]:
    for extension in cert.extensions:
        if extension.oid == TOPICS and isinstance(extension.value, x509.UnrecognizedExtension):
            return list(_utf8_strings(extension.value.value))
    return []


def _utf8_strings(der: bytes) -> Iterator[str]:
    """Every UTF8String in a DER value, at any depth. Stops at the first invalid byte."""
    while len(der) >= 2:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 3 or len(der) < 2 + size:
                return
            length, start = int.from_bytes(der[2 : 2 + size]), 2 + size
        content, der = der[start : start + length], der[start + length :]
        if tag == _UTF8_STRING:
            yield content.decode("utf-8", "replace")
        elif tag & _CONSTRUCTED:
            yield from _utf8_strings(content)


def _spki(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _holds_key(text: str) -> bool:
    return any(block.label.endswith("PRIVATE KEY") for block in blocks(text))


def _holds_certificate(text: str) -> bool:
    return any(block.label.endswith("CERTIFICATE") for block in blocks(text))


def _key_for_certificate(text: str) -> str | None:
    """The fault code if the certificate field contains a private key: Apple's token key, or swapped fields."""
    if not _holds_key(text):
        return None
    faults: list[MaterialFault] = []
    _private_key(text, faults)
    return "is_p8_token_key" if any(fault.code == "is_p8_token_key" for fault in faults) else "fields_swapped"


def _binary(text: str) -> str | None:
    """The fault code if the field contains a binary file instead of PEM, possibly in base64."""
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raw = text.encode("latin-1", "replace")
    if raw[:1] != b"\x30":  # every DER file starts with a SEQUENCE
        return None
    # A PFX starts with its version, INTEGER 3 (RFC 7292 section 4); a certificate starts with another SEQUENCE.
    return "is_p12" if b"\x02\x01\x03" in raw[2:9] else "is_der"
