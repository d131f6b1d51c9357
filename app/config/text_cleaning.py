"""Cleans the values of variables and of files of secrets: white space, quotes and invisible characters."""

import re

_HIDDEN = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff"
"""Control characters, byte-order marks and zero-width characters. Not U+200C and U+200D, which words may contain."""

_HIDDEN_INSIDE = re.compile(f"[{_HIDDEN}]")
_EDGES = re.compile(f"\\A[\\s\u200c\u200d{_HIDDEN}]+|[\\s\u200c\u200d{_HIDDEN}]+\\Z")
_OTHER_ENCODING = re.compile("[\ud800-\udfff]")
"""Bytes of the environment that are not UTF-8 (PEP 383)."""

_COMMENT = re.compile(r"(?:\A|\s)#")
_IPV6_IN_BRACKETS = re.compile(r"\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]")

_QUOTES = "\"'"
_TYPOGRAPHIC_QUOTES = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"


def stripped(text: str) -> str:
    """The text without white space, line ends and invisible characters at its ends."""
    return _EDGES.sub("", text)


def cleaned(text: str, *, is_list: bool = False) -> str:
    """The value without white space at its ends, and without one pair of quotes, which `docker --env-file` keeps.

    In a list, each value may have its own quotes, which `words` removes. Raises ValueError, without the value, for
    quotes that are no pair, for invisible characters inside, and for a comment: `docker --env-file` and systemd keep
    it, and its words would become values of a list.
    """
    value = stripped(text)
    if (inner := unquoted(value)) is not None:
        value = stripped(inner)
    elif not is_list and value.startswith(tuple(_QUOTES)):
        raise ValueError("begins with a quotation mark that has no counterpart at the end; remove it")
    if _COMMENT.search(value) and not value.startswith("{") and "-----BEGIN" not in value:  # JSON and PEM may have it
        raise ValueError("has a comment in its value, which begins with #; remove it")
    return _checked(value)


def cleaned_secret(text: str) -> str:
    """A secret of any characters, without white space at its ends. Raises ValueError for quotes around it.

    Quotes may belong to such a secret. They are neither removed nor used silently.
    """
    value = stripped(text)
    if unquoted(value) is not None:
        raise ValueError("has quotes around its value; remove them, or write the secret to a file if it includes them")
    return _checked(value)


def checked(value: str) -> str:
    """A value of a file, to which no program adds quotes. Raises ValueError for quotes and invisible characters."""
    if unquoted(value) is not None:
        raise ValueError("has a second pair of quotes around its value; remove it")
    return _checked(value)


def unquoted(value: str) -> str | None:
    """The text between one pair of quotes; None if the value is not such a text."""
    quote = value[:1]
    is_pair = len(value) > 1 and quote in _QUOTES and value.endswith(quote) and quote not in value[1:-1]
    return value[1:-1] if is_pair else None


def words(value: str) -> tuple[str, ...]:
    """Values that are separated by commas or white space. Raises ValueError for JSON and for unpaired quotes."""
    if value.startswith("[") and not _IPV6_IN_BRACKETS.match(value):
        raise ValueError("must be values separated by commas, not a JSON list")
    found = tuple(unquoted(word) or word for word in re.split(r"[,\s]+", value) if word)
    if any('"' in word or word.startswith("'") or word.endswith("'") for word in found):
        raise ValueError("has a quotation mark in a value; remove it")
    return found


def _checked(value: str) -> str:
    if _OTHER_ENCODING.search(value):
        raise ValueError("is not UTF-8 text")
    if (hidden := _HIDDEN_INSIDE.search(value)) is not None:
        raise ValueError(f"contains the invisible character U+{ord(hidden[0]):04X}; write the value without it")
    if value[:1] and (value[0] in _TYPOGRAPHIC_QUOTES or value[-1] in _TYPOGRAPHIC_QUOTES):
        raise ValueError("has typographic quotation marks around its value; remove them")
    return value
