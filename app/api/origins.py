"""The origins whose pages may use this service."""

from collections.abc import Iterable


class AllowedOrigins:
    """Origins, and patterns with one leading wildcard label.

    `https://*.example.com` matches `https://a.example.com`, but neither `https://a.b.example.com` nor `https://example.com`.
    """

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self.listed = frozenset(origins)

    def __contains__(self, origin: str) -> bool:
        if "*" in origin:
            return False
        if origin in self.listed:
            return True
        scheme, separator, host = origin.partition("://")
        label, dot, domain = host.partition(".")
        return _is_label(label) and f"{scheme}{separator}*{dot}{domain}" in self.listed


def _is_label(text: str) -> bool:
    return 0 < len(text) <= 63 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()
