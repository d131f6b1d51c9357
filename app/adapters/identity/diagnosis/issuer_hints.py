"""Finds the configured issuer that is most similar to an unknown `iss`, and describes the difference."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from app.adapters.identity.claims import Issuer
from app.adapters.identity.diagnosis.shown import shown

_DEFAULT_PORTS = {"https": 443, "http": 80}
_ENTRA = {"login.microsoftonline.com": "v2", "sts.windows.net": "v1"}
"""Entra's hosts, and the version of the tokens that have them as the issuer."""

_KNOWN_ISSUERS = {
    "telnyx_telephony": "this is a Telnyx login token, which Dialtone issues: send the provider's access token",
}


class NearIssuer(NamedTuple):
    """A configured issuer, and how the token's `iss` differs from it."""

    issuer: Issuer
    name: str
    """The `iss` that the issuer's tokens have. For a template, it is filled."""
    difference: str
    distance: int
    """0: only the notation differs. 1: the same host or path. 2: the same provider."""


class _Address(NamedTuple):
    """The parts of an issuer's URL in one notation."""

    scheme: str
    host: str
    port: int | None
    path: str
    has_port: bool


def nearest(claims: dict[str, Any], issuers: Iterable[Issuer]) -> NearIssuer | None:
    """The most similar issuer. None if no issuer is similar."""
    iss = claims.get("iss")
    if not isinstance(iss, str):
        return None
    found = [near for issuer in issuers for name in _names(issuer, claims) if (near := _compared(iss, issuer, name))]
    return min(found, key=lambda near: near.distance, default=None)


def known_issuer(iss: Any) -> str | None:
    """A hint for an issuer whose tokens are sent by mistake."""
    return _KNOWN_ISSUERS.get(iss) if isinstance(iss, str) else None


def _names(issuer: Issuer, claims: dict[str, Any]) -> list[str]:
    if issuer.template is None:
        return [issuer.issuer]
    own = claims.get(issuer.template.claim)
    tenants = sorted(issuer.tenants) if isinstance(issuer.tenants, frozenset) else []
    named = [own] if isinstance(own, str) and (issuer.tenants == "any" or own in tenants) else []
    return [issuer.template.filled(tenant) for tenant in [*named, *tenants]]


def _compared(iss: str, issuer: Issuer, name: str) -> NearIssuer | None:
    ours, theirs = _address(name), _address(iss)
    if (differences := _notation(iss, name)) is not None:
        return NearIssuer(issuer, name, f"{_from(name)} {' and '.join(differences)}", 0)
    if ours is None or theirs is None:
        return None
    if ours.host in _ENTRA and theirs.host in _ENTRA:
        return NearIssuer(issuer, name, _of_entra(ours, theirs, name), 1)
    if theirs.host == "session.firebase.google.com" and ours.host == "securetoken.google.com":
        difference = "this is a Firebase session cookie: send the ID token that the Firebase SDK returns"
        return NearIssuer(issuer, name, difference, 1)
    if ours.host == theirs.host and ours.port == theirs.port:
        difference = f"{_from(name)} in the path: it is another tenant, realm or server of the same host"
        return NearIssuer(issuer, name, difference, 1)
    if ours.path == theirs.path and len(ours.path) > 1:
        difference = (
            f"{_from(name)} in the host: the provider is reached under two addresses, or it is another provider"
        )
        return NearIssuer(issuer, name, difference, 1)
    if ours.host == theirs.host:
        return NearIssuer(issuer, name, f"{_from(name)} in the port and the path", 1)
    if _domain(ours.host) == _domain(theirs.host):
        difference = f"{_from(name)} in the host: it is another tenant or environment of the same provider"
        return NearIssuer(issuer, name, difference, 2)
    return None


def _from(name: str) -> str:
    return f"the token's issuer differs from the configured issuer {shown(name)}"


def _notation(iss: str, name: str) -> list[str] | None:
    """The differences in notation. None if the texts name two different issuers."""
    ours, theirs = _address(name), _address(iss)
    differences = []
    if iss.strip() != iss:
        differences.append("by white space around it")
    if iss.strip() == name:
        return differences
    if ours is None or theirs is None:
        return None
    if ours.host != theirs.host or ours.path.lower() != theirs.path.lower():
        return None
    if "://" not in iss:
        differences.append("by its scheme, which it lacks")
    elif "://" not in name:
        differences.append(f"by its scheme {theirs.scheme}, which the configured one lacks")
    elif ours.scheme != theirs.scheme:
        differences.append(f"by its scheme, which is {theirs.scheme} instead of {ours.scheme}")
    if ours.port != theirs.port and (ours.scheme == theirs.scheme or {ours.port, theirs.port} != {80, 443}):
        differences.append(f"by its port, which is {theirs.port} instead of {ours.port}")
    elif ours.has_port != theirs.has_port and ours.port == theirs.port:
        differences.append(f"by the port {ours.port}, which the token's issuer {'has' if theirs.has_port else 'lacks'}")
    if iss.strip().endswith("/") != name.endswith("/"):
        has = "has" if iss.strip().endswith("/") else "lacks"
        differences.append(f"by a trailing slash, which the token's issuer {has}")
    if ours.path != theirs.path:
        differences.append("by upper and lower case in the path")
    if not differences:
        differences.append(
            "by upper and lower case" if iss.lower() == name.lower() else "by its notation: compare the slashes"
        )
    return differences


def _address(text: str) -> _Address | None:
    with_scheme = text.strip() if "://" in text else f"https://{text.strip()}"
    try:
        url = urlsplit(with_scheme)
        port = url.port or _DEFAULT_PORTS.get(url.scheme.lower())
    except ValueError:
        return None
    if not url.hostname or ("." not in url.hostname and "://" not in text):
        return None
    return _Address(
        url.scheme.lower(), url.hostname.lower(), port, re.sub("/+", "/", url.path).rstrip("/"), url.port is not None
    )


def _of_entra(ours: _Address, theirs: _Address, name: str) -> str:
    texts = []
    if _ENTRA[ours.host] != _ENTRA[theirs.host]:
        wanted = 2 if _ENTRA[ours.host] == "v2" else 1
        texts.append(
            f"this is an Entra token of version {_ENTRA[theirs.host][1]}, and the configured issuer {shown(name)} is "
            f"of version {wanted}: set requestedAccessTokenVersion to {wanted} in the manifest of the API, or "
            "configure the issuer and the audience of the token"
        )
    if ours.path.split("/")[1:2] != theirs.path.split("/")[1:2]:
        texts.append(f"the token's tenant is not the one of the configured issuer {shown(name)}")
    return ". Also, ".join(texts) or f"{_from(name)} in the path"


def _domain(host: str) -> str:
    """The last two labels, which is enough for a hint."""
    return ".".join(host.split(".")[-2:])
