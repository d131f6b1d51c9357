"""Checks of an issuer's key URLs, of its signer, and of the request header that contains its tokens."""

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from app.adapters.addresses import is_loopback, is_safe_url
from app.adapters.identity.load_balancer import HEADER as LOAD_BALANCER_HEADER
from app.adapters.identity.load_balancer import region_of

if TYPE_CHECKING:
    from app.config.file import IssuerTable

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_OTHER_USE = frozenset(
    {"authorization", "proxy-authorization", "cookie", "host", "origin", "connection", "content-type", "content-length"}
    | {"transfer-encoding", "accept", "user-agent", "referer", "x-request-id", "x-forwarded-for", "x-forwarded-proto"}
)
"""Headers with another meaning. Tokens in `Authorization` are accepted without a setting."""


class KeyAccessFault(NamedTuple):
    field: str
    message: str


def find_fault(issuer: "IssuerTable") -> KeyAccessFault | None:
    """The first fault of an issuer's settings; None if there is none."""
    if issuer.issuer != issuer.issuer.strip() or not issuer.issuer.isprintable():
        return KeyAccessFault("issuer", "has white space around it or a control character in it; remove it")
    is_fixed = any((issuer.pem, issuer.pem_file, issuer.secret_env, issuer.secret_file))
    return (
        _header_fault(issuer) or _signer_fault(issuer, is_fixed=is_fixed) or _address_fault(issuer, is_fixed=is_fixed)
    )


def _header_fault(issuer: "IssuerTable") -> KeyAccessFault | None:
    if issuer.header is None:
        return None
    if not _HEADER_NAME.match(issuer.header):
        return KeyAccessFault("header", "must be the name of a header: letters, digits and hyphens")
    if issuer.header.lower() in _OTHER_USE:
        return KeyAccessFault("header", "is a header with another meaning; set the header that the proxy adds")
    if issuer.header.lower() == LOAD_BALANCER_HEADER and issuer.signer is None:
        return KeyAccessFault("signer", "is required with this header, because AWS customers share keys; set the ARN")
    return None


def _signer_fault(issuer: "IssuerTable", *, is_fixed: bool) -> KeyAccessFault | None:
    if issuer.signer is None:
        return None
    if region_of(issuer.signer) is None:
        return KeyAccessFault("signer", "must be the ARN of an application load balancer in an AWS commercial region")
    if (issuer.header or "").lower() != LOAD_BALANCER_HEADER:
        return KeyAccessFault("header", f"must be {LOAD_BALANCER_HEADER} if signer is set")
    is_elsewhere = issuer.jwks_url is not None and not is_loopback(urlsplit(issuer.jwks_url).hostname or "")
    if is_fixed or is_elsewhere or issuer.discovery_url is not None:  # on this machine, the sandbox simulates AWS
        return KeyAccessFault("signer", "excludes other key sources, because AWS publishes the keys; remove them")
    if not issuer.algorithms <= {"ES256"}:
        return KeyAccessFault("algorithms", "must be ES256 if signer is set")
    return None


def _address_fault(issuer: "IssuerTable", *, is_fixed: bool) -> KeyAccessFault | None:
    if is_fixed:
        given = next((name for name in ("ca_file", "allow_http") if getattr(issuer, name)), None)
        return None if given is None else KeyAccessFault(given, "has no effect, because no keys are fetched; remove it")
    for field in ("jwks_url", "discovery_url"):
        url = getattr(issuer, field)
        if url is None or is_safe_url(url, allows_http=issuer.allow_http):
            continue
        if is_safe_url(url, allows_http=True):
            return KeyAccessFault(field, "must be an https URL; for http to this private host, set allow_http")
        if issuer.allow_http and is_safe_url(url.replace("http:", "https:", 1)):
            return KeyAccessFault(field, "must be an https URL, because allow_http applies only to private hosts")
        return KeyAccessFault(field, "must be an https URL (or http to localhost), without user, password or fragment")
    has_source = issuer.jwks_url or issuer.discovery_url or issuer.signer
    if not has_source and not is_safe_url(issuer.issuer, allows_http=issuer.allow_http):
        return KeyAccessFault(
            "issuer",
            "is not an https URL, so keys cannot be discovered; set jwks_url, discovery_url, a PEM or a shared secret",
        )
    return None
