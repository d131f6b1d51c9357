"""Reading of DER (X.690) without a schema, for untrusted values: it stops at the first invalid byte."""

from collections.abc import Iterator

INTEGER, OCTET_STRING, OBJECT_IDENTIFIER, UTF8_STRING, SEQUENCE = 0x02, 0x04, 0x06, 0x0C, 0x30
CONSTRUCTED = 0x20
"""The bit of tags whose content is a series of elements."""


def elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each element of a series."""
    while len(der) >= 2:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 3 or len(der) < 2 + size:
                return
            length, start = int.from_bytes(der[2 : 2 + size]), 2 + size
        yield tag, der[start : start + length]
        der = der[start + length :]
