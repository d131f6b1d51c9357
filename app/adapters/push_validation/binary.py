"""Conversion of binary files with push material to PEM: .p12 bundles, and certificates and keys in DER."""

from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from app.adapters.pem import canonical_pem
from app.adapters.push_validation.keys import load

_SEQUENCE = b"\x30"
"""Every certificate, key and PFX starts with this tag."""

_LONG_FORMS = (b"\x80", b"\x81", b"\x82", b"\x83")
"""How a length over 127 bytes starts; 0x80 is BER's indefinite length, which Apple's tools write."""

_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
"""The content type of a PKCS #7 file with certificates (RFC 2315 section 14)."""


class BundleLocked(ValueError):
    """The bundle cannot be opened with the password, or it is damaged."""


def is_binary(raw: bytes) -> bool:
    return raw[:1] == _SEQUENCE and raw[1:2] in _LONG_FORMS


def is_pfx(raw: bytes) -> bool:
    """True for a .p12: it starts with its version, INTEGER 3 (RFC 7292 section 4)."""
    return raw[:1] == _SEQUENCE and b"\x02\x01\x03" in raw[2:9]


def is_pkcs7(raw: bytes) -> bool:
    """True for a .p7b, and for a provisioning profile, which is signed data too."""
    return raw[:1] == _SEQUENCE and _SIGNED_DATA in raw[2:24]


def to_pem(raw: bytes, password: bytes | None) -> str | None:
    """The certificates and keys of the file; None if it has neither. Raises BundleLocked.

    The legacy encryption of bundles (RC2 with 40 bits, Triple DES) is supported. The password may be None or empty.
    """
    if is_pfx(raw):
        return _bundle(raw, password)
    with suppress(Exception):
        return _certificate_pem(x509.load_der_x509_certificate(raw))
    with suppress(Exception):
        return canonical_pem(load(raw))
    return None


def _bundle(raw: bytes, password: bytes | None) -> str:
    try:
        bundle = pkcs12.load_pkcs12(raw, password)
        certificates = [found.certificate for found in (bundle.cert, *bundle.additional_certs) if found is not None]
        key = "" if bundle.key is None else canonical_pem(bundle.key)
    except Exception as error:
        raise BundleLocked from error
    return "".join((*map(_certificate_pem, certificates), key))


def _certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")
