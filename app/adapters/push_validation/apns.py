"""Validation of Apple's VoIP certificate and its private key, in PEM.

A certificate is for VoIP pushes if it has the extension of VoIP Services certificates, or a topic that ends in `.voip`
in its list of topics or in the subject's user id. Source: Apple's WWDR Certification Practice Statement (certificate
profiles, extensions under 1.2.840.113635.100.6.3) and Apple's own certificates.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.adapters.pem import blocks, canonical_pem
from app.adapters.push_validation import der
from app.adapters.push_validation.keys import SUPPORTED_ALGORITHMS, WeakKey, load, spki
from app.adapters.push_validation.other_kinds import other_kind_of
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


def validate(certificate: str, private_key: str, now: datetime) -> MaterialReport:
    """The material of a valid pair in canonical form, or all its faults.

    The certificate may be part of a chain, and the key one of several. The pair that belongs together is selected.
    """
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
    certificates = _certificates(certificate, faults)
    keys, unusable_keys = _private_keys(private_key)
    cert = _own_certificate(certificates, keys, faults)
    if cert is not None:
        _check_certificate(cert, now, faults)
    key = next((key for key in keys if cert is not None and spki(key) == spki(cert)), None)
    if key is None:
        faults += unusable_keys or _mismatch(keys, has_certificate=cert is not None)
    if faults or cert is None or key is None:
        return MaterialReport(None, tuple(faults))
    encoded = cert.public_bytes(Encoding.DER)
    return MaterialReport(
        PushMaterial(
            type=PushType.IOS,
            app_id=_bundle_id(cert) or "",
            identity=b"ios" + encoded,
            fingerprint_sha256=hashlib.sha256(encoded).hexdigest(),
            not_after=cert.not_valid_after_utc,
            upload={
                "type": PushType.IOS.value,
                "certificate": cert.public_bytes(Encoding.PEM).decode("ascii"),
                "private_key": canonical_pem(key),
            },
        )
    )


def _certificates(text: str, faults: list[MaterialFault]) -> list[x509.Certificate]:
    """The different certificates in the text."""
    found = {block.der for block in blocks(text) if block.is_certificate}
    if not found:
        code = _key_for_certificate(text) or other_kind_of(text) or "certificate_unreadable"
        faults.append(MaterialFault(code, "certificate"))
    try:
        return [_load_certificate(encoded) for encoded in found]
    except Exception:
        faults.append(MaterialFault("certificate_unreadable", "certificate"))
        return []


def _load_certificate(encoded: bytes) -> x509.Certificate:
    """The certificate, with every part parsed that is used later: the library parses some of them on access."""
    cert = x509.load_der_x509_certificate(encoded)
    if cert.public_key_algorithm_oid not in SUPPORTED_ALGORITHMS:
        raise ValueError("not an RSA or EC key")
    _ = (cert.subject, cert.issuer, cert.extensions, cert.not_valid_before_utc, cert.not_valid_after_utc, spki(cert))
    return cert


def _own_certificate(
    found: list[x509.Certificate], keys: list[PrivateKeyTypes], faults: list[MaterialFault]
) -> x509.Certificate | None:
    """The app's own certificate among those of its issuers: it belongs to the key, is for VoIP, and issued no other."""
    public_keys, issuers = {spki(key) for key in keys}, {cert.issuer for cert in found if cert.issuer != cert.subject}
    own = found
    for is_own in (
        lambda cert: spki(cert) in public_keys,
        _is_voip,
        lambda cert: cert.subject not in issuers,
    ):
        own = [cert for cert in own if is_own(cert)] or own
    if len(own) > 1:
        faults.append(MaterialFault("certificate_chain", "certificate"))
    return own[0] if len(own) == 1 else None


def _private_keys(text: str) -> tuple[list[PrivateKeyTypes], list[MaterialFault]]:
    """The different usable keys in the text, and the fault of a key that cannot be used."""
    found = [block for block in blocks(text) if block.is_private_key]
    keys: dict[bytes, PrivateKeyTypes] = {}
    codes: list[str] = []
    if not found:
        codes.append("is_certificate" if _holds_certificate(text) else other_kind_of(text) or "private_key_unreadable")
    for block in found:
        try:
            key = load(block.der)
            keys[spki(key)] = key
        except WeakKey:
            codes.append("private_key_weak")
        except Exception as error:
            is_encrypted = block.is_encrypted or isinstance(error, TypeError)
            codes.append("private_key_encrypted" if is_encrypted else "private_key_unreadable")
    return list(keys.values()), [MaterialFault(code, "private_key") for code in codes[:1]]


def _mismatch(keys: list[PrivateKeyTypes], *, has_certificate: bool) -> list[MaterialFault]:
    """The fault of keys that do not belong to the certificate."""
    # Apple's key for token authentication is an EC key. VoIP Services certificates have RSA keys.
    if any(isinstance(key, ec.EllipticCurvePrivateKey) for key in keys):
        return [MaterialFault("is_p8_token_key", "private_key")]
    return [MaterialFault("key_mismatch", "private_key")] if has_certificate else []


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


def _utf8_strings(value: bytes) -> Iterator[str]:
    """Every UTF8String in a DER value, at any depth."""
    for tag, content in der.elements(value):
        if tag == der.UTF8_STRING:
            yield content.decode("utf-8", "replace")
        elif tag & der.CONSTRUCTED:
            yield from _utf8_strings(content)


def _holds_key(text: str) -> bool:
    return any(block.is_private_key for block in blocks(text))


def _holds_certificate(text: str) -> bool:
    return any(block.is_certificate for block in blocks(text))


def _key_for_certificate(text: str) -> str | None:
    """The fault code if the certificate field contains a private key: Apple's token key, or another one."""
    if not _holds_key(text):
        return None
    keys, _ = _private_keys(text)
    return "is_p8_token_key" if _mismatch(keys, has_certificate=False) else "is_private_key"
