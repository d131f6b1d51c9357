"""Extraction of PEM blocks from text, with or without the lines that tools write around them (RFC 7468)."""

import re
from dataclasses import dataclass, field

MAX_BLOCKS = 20
"""A text with more blocks is not searched. No certificate chain is that long."""

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PemBlock:
    label: str
    """The label, such as `CERTIFICATE` or `RSA PRIVATE KEY`."""
    text: str = field(repr=False)
    """From BEGIN to END, followed by a line break."""


def blocks(text: str) -> list[PemBlock]:
    r"""Every complete block. Also accepts one line with a literal `\n` as line end, as in environment variables."""
    if text.count("-----BEGIN ") > MAX_BLOCKS:
        return []
    return [PemBlock(match[1], match[0] + "\n") for match in _BLOCK.finditer(text.replace("\\n", "\n"))]
