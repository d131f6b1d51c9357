"""Recognition of files that are neither a PEM certificate nor a PEM private key, such as signing requests."""

from app.adapters.pem import blocks, decoded, without_format_characters
from app.adapters.push_validation.binary import is_binary, is_pfx, is_pkcs7

_CODES_BY_LABEL = {
    "CERTIFICATEREQUEST": "is_certificate_request",
    "NEWCERTIFICATEREQUEST": "is_certificate_request",
    "PUBLICKEY": "is_public_key",
    "RSAPUBLICKEY": "is_public_key",
    "PKCS7": "is_pkcs7",
    "CMS": "is_pkcs7",
}

_START_LENGTH = 24
"""Characters that the first elements of a binary file take."""


def other_kind_of(text: str) -> str | None:
    """The fault code of the kind of file that the text is; None if the kind is not known."""
    for block in blocks(text):
        if block.label in _CODES_BY_LABEL:
            return _CODES_BY_LABEL[block.label]
    raw = decoded(without_format_characters(text).strip().strip("\"'`"))
    if b"-----BEGIN" in raw:
        return "is_base64_of_pem"
    if is_binary(raw):
        return _code_of_binary(raw) or "pem_boundaries_missing"
    # Binary, decoded as Latin-1, or as UTF-8 with a replacement character for the length.
    raw = text[:_START_LENGTH].replace("\ufffd", "\x82").encode("latin-1", "replace")
    return _code_of_binary(raw) or "is_der" if is_binary(raw) else None


def _code_of_binary(raw: bytes) -> str | None:
    if is_pfx(raw):
        return "is_p12"
    return "is_pkcs7" if is_pkcs7(raw) else None
