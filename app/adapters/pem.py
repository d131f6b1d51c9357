r"""PEM (RFC 7468): extraction of blocks from the text of files, environment variables and forms, and writing of keys.

Line ends may be missing, doubled or replaced by spaces or a literal `\n`. Lines may be indented, and other text may
precede or follow a block. A block leaves this module as decoded bytes, so that the spelling does not matter after it.
"""

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

MAX_BLOCKS = 20
"""A text with more blocks is not searched. No certificate chain is that long."""

_BLOCK = re.compile(r"-----BEGIN([A-Z0-9\s]{1,64})-----((?:(?!-----).)*)-----END[A-Z0-9\s]{1,64}-----", re.DOTALL)
_ESCAPE = re.compile(r"\\+([nrt/])")
"""Line ends and slashes as JSON and shells escape them, once or repeatedly."""


@dataclass(frozen=True, slots=True)
class PemBlock:
    label: str
    """The label without spaces, such as `CERTIFICATE` or `RSAPRIVATEKEY`."""
    is_encrypted: bool
    der: bytes = field(repr=False)
    """Empty if the content is not base64."""

    @property
    def is_certificate(self) -> bool:
        return self.label.endswith("CERTIFICATE")

    @property
    def is_private_key(self) -> bool:
        return self.label.endswith("PRIVATEKEY")


def blocks(text: str) -> list[PemBlock]:
    """Every complete block."""
    if text.count("-----BEGIN") > MAX_BLOCKS:
        return []
    plain = _ESCAPE.sub(lambda match: "/" if match[1] == "/" else "\n", without_format_characters(text))
    return [_block(match[1], match[2]) for match in _BLOCK.finditer(plain)]


def decoded(text: str) -> bytes:
    """The bytes of base64 with any white space, with or without padding. Empty if the text is not base64."""
    digits = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def canonical_pem(key: PrivateKeyTypes) -> str:
    """The key in PKCS#8, as `openssl pkey` writes it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def without_format_characters(text: str) -> str:
    """Drops characters that no editor shows: byte order marks, zero-width spaces, soft hyphens."""
    return text if text.isascii() else "".join(char for char in text if unicodedata.category(char) != "Cf")


def _block(label: str, body: str) -> PemBlock:
    compact = "".join(label.split())
    # PKCS#8 has the word in the label, the older format in a header (RFC 1421 section 4.6).
    is_encrypted = compact.startswith("ENCRYPTED") or "ENCRYPTED" in body
    return PemBlock(compact, is_encrypted, b"" if is_encrypted else decoded(body))
