"""Why an issuer's keys could not be fetched, and how to fix it.

The provider's text is untrusted: it is escaped and shortened. URLs are shown without their query, which may hold a
secret. In a fix, a name in backticks is a setting of the issuer.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin, urlsplit

from app.adapters.addresses import is_private, is_safe_url
from app.adapters.http_client import ConnectFailed, FailureReason, HttpResponse, ResponseFailed
from app.adapters.identity.algorithms import EDDSA_ALGORITHMS
from app.adapters.identity.keys import EC_ALGORITHMS, RSA_ALGORITHMS, KeySet

MAX_SHOWN_LENGTH = 200
"""Characters of a provider's text in a reason."""

MAX_SHOWN_REASONS = 3
"""Skipped keys that a reason lists."""

KEY_SET = "key set"
DISCOVERY_DOCUMENT = "discovery document"
LOAD_BALANCER_KEY = "key of the load balancer"


class FetchFailed(Exception):
    """Keys could not be fetched. The message is the reason."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


_FIXES: Mapping[FailureReason, str] = MappingProxyType(
    {
        FailureReason.UNTRUSTED_CERTIFICATE: (
            "if a private CA signed it, set `ca_file` to the CA's certificates; if not, let the server send its "
            "intermediate certificates too"
        ),
        FailureReason.SELF_SIGNED_CERTIFICATE: (
            "set `ca_file` to a file with this certificate, or install a certificate of a trusted CA"
        ),
        FailureReason.EXPIRED_CERTIFICATE: (
            "renew the server's certificate; if it has not expired, correct this machine's clock"
        ),
        FailureReason.FUTURE_CERTIFICATE: "correct this machine's clock, or wait until the certificate is valid",
        FailureReason.CERTIFICATE_OF_OTHER_HOST: (
            "use the host name of the certificate in the URL, or install a certificate for this host name"
        ),
        FailureReason.TLS: "check that the server offers https on this port, without client certificates",
        FailureReason.UNKNOWN_HOST: "check the spelling of the host name, and the DNS of this machine",
        FailureReason.FORBIDDEN_ADDRESS: "add the network of the host to allowed_networks, if the host is trusted",
        FailureReason.REFUSED: "check the host and the port, and that the server is running",
        FailureReason.UNREACHABLE: "check the network between this machine and the host",
        FailureReason.CONNECT_TIMEOUT: (
            "check the firewall between this machine and the host; if a proxy is required, set DIALTONE_EGRESS_PROXY"
        ),
        FailureReason.UNKNOWN_PROXY: "check the host name in DIALTONE_EGRESS_PROXY, and the DNS of this machine",
        FailureReason.PROXY_UNREACHABLE: "check DIALTONE_EGRESS_PROXY, and that the proxy is available",
        FailureReason.PROXY_TIMEOUT: "check that the proxy in DIALTONE_EGRESS_PROXY responds and reaches the host",
        FailureReason.PROXY_TLS: "give the proxy a certificate that this machine trusts, or use its http:// address",
        FailureReason.PROXY_PASSWORD: "correct the user and the password in DIALTONE_EGRESS_PROXY",
        FailureReason.PROXY_REJECTED: (
            "allow connections to this host on the proxy; if no proxy is required for it, set `use_proxy` to false"
        ),
        FailureReason.INVALID_URL: "correct the URL",
        FailureReason.DEADLINE: "check that the server is not overloaded; if a proxy is required, set "
        "DIALTONE_EGRESS_PROXY",
        FailureReason.ENCODED: "turn off compression for this URL: the request accepts only `identity`",
        FailureReason.TOO_LARGE: "check that the URL is that of a key set or discovery document",
        FailureReason.CLOSED: "check the server's log, and that the URL has the right scheme and port",
        FailureReason.NOT_HTTP: "check that the URL has the right scheme and port",
        FailureReason.OTHER: "check the URL and the network between this machine and the host",
    }
)


def fix_of(reason: FailureReason, *, has_own_ca: bool = False) -> str:
    """The fix of a failed request. `has_own_ca`: the issuer has a `ca_file`."""
    if has_own_ca and reason is FailureReason.UNTRUSTED_CERTIFICATE:
        return "add the CA of the server's certificate to `ca_file`, which replaces the system's certificates"
    return _FIXES[reason]


def request_fault(error: ConnectFailed | ResponseFailed, url: str, *, has_own_ca: bool) -> FetchFailed:
    """A request without a complete response."""
    kind = "no connection to" if isinstance(error, ConnectFailed) else "no complete response from"
    return FetchFailed(f"{kind} {_shown_origin(url)}: {error}", fix_of(error.reason, has_own_ca=has_own_ca))


def status_fault(answer: HttpResponse, url: str, what: str) -> FetchFailed:
    """A response whose status is not 200."""
    setting = "`discovery_url`" if what == DISCOVERY_DOCUMENT else "`jwks_url`"
    reason = f"the request for the {what} at {shown_url(url)} returned status {answer.status}"
    match answer.status:
        case status if 300 <= status < 400:
            target = _redirect_target(answer.headers.get("location"), url)
            reason = f"{reason}, a redirect to {target}; redirects are not followed"
            fix = f"set {setting} to the URL to which it redirects"
        case status if what == LOAD_BALANCER_KEY and status < 500:
            fix = "check that no proxy or firewall changes the responses of AWS"
        case 401 | 403:
            fix = "let the provider and its firewall allow requests from this machine to this URL, without credentials"
        case 404 | 410 if what == DISCOVERY_DOCUMENT:
            fix = "correct the issuer, or set `discovery_url` to its discovery document or `jwks_url` to its key set"
        case 404 | 410:
            fix = "set `jwks_url` to the URL of the key set"
        case 407:
            fix = _FIXES[FailureReason.PROXY_PASSWORD]
        case 429:
            fix = "wait; the provider limits the number of requests from this machine"
        case status if status >= 500:
            fix = "wait until the provider is available again; if it stays unavailable, ask its operator"
        case _:
            fix = f"check that the URL is that of the {what}"
    return FetchFailed(reason, fix)


def body_fault(body: bytes, url: str, what: str, *, is_json: bool = False) -> FetchFailed:
    """A body that is not a JSON object. `is_json`: it is another JSON value."""
    setting = "`discovery_url`" if what == DISCOVERY_DOCUMENT else "`jwks_url`"
    start = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    fix = f"set {setting} to the URL of the {what}"
    match start:
        case b"":
            kind = "is empty"
        case _ if is_json:
            kind = "is not a JSON object"
        case _ if start.startswith(b"\x1f\x8b"):
            kind, fix = "is compressed, without a Content-Encoding header", _FIXES[FailureReason.ENCODED]
        case _ if start.startswith(b"-----begin"):
            kind, fix = "is a PEM text instead of JSON", "set `pem` to this text"
        case _ if start.startswith(b"<?xml"):
            kind = "is XML instead of JSON"
        case _ if start.startswith(b"<"):
            kind, fix = "is an HTML page instead of JSON", f"{fix}; a login page or a web application responds here"
        case _:
            kind = "is not valid JSON"
    return FetchFailed(f"the {what} at {shown_url(url)} {kind}", fix)


def jwks_uri_of(document: Mapping[str, Any], issuer: str, *, allows_http: bool) -> str:
    """The `jwks_uri` of a discovery document, which must name the configured issuer. Raises FetchFailed.

    Source: OpenID Connect Discovery 1.0 section 4.
    """
    check_issuer(document, issuer)
    url = document.get("jwks_uri")
    if url is None:
        raise FetchFailed("the discovery document has no jwks_uri", "set `jwks_url` to the provider's key set")
    if isinstance(url, str) and is_safe_url(url, allows_http=allows_http):
        return url
    if not isinstance(url, str) or not is_safe_url(url.replace("http:", "https:", 1)):
        raise FetchFailed(
            f"the jwks_uri of the discovery document is not an https URL: {shown_url(str(url))}",
            "correct the URL in the provider's settings, or set `jwks_url` to its key set",
        )
    fix = "correct the provider's public URL, so that its document has https URLs"
    if not allows_http and is_private(urlsplit(url).hostname or ""):
        fix += "; if no certificate is possible in this private network, set `allow_http`"
    raise FetchFailed(f"the jwks_uri of the discovery document is plain http: {shown_url(url)}", fix)


def check_issuer(document: Mapping[str, Any], issuer: str) -> None:
    """Raises FetchFailed if the discovery document does not name this issuer."""
    found = document.get("issuer")
    if found == issuer:
        return
    if isinstance(document.get("keys"), list):
        raise FetchFailed("the discovery document is a key set", "set `jwks_url` to its URL instead of `discovery_url`")
    if not isinstance(found, str):
        raise FetchFailed(
            "the discovery document names no issuer",
            "set `discovery_url` to the discovery document, or `jwks_url` to the key set",
        )
    reason = f"the discovery document names the issuer {shown_text(found)} instead of {shown_text(issuer)}"
    if found.rstrip("/") == issuer.rstrip("/"):
        slash = "with" if found.endswith("/") else "without"
        raise FetchFailed(reason, f"set `issuer` to {shown_text(found)}, {slash} a slash at its end")
    if found.removeprefix("http:") == issuer.removeprefix("https:"):
        raise FetchFailed(reason, "correct the provider's public URL: it does not know that a proxy adds https")
    raise FetchFailed(
        reason,
        f"if tokens have the `iss` {shown_text(found)}, set `issuer` to it; if not, correct `discovery_url` or set "
        "`jwks_url`",
    )


def document_fault(document: Mapping[str, Any], error: ValueError) -> FetchFailed:
    """A JSON object that is not a key set."""
    if "jwks_uri" in document:
        return FetchFailed(
            "the key set is a discovery document", "set `discovery_url` to its URL instead of `jwks_url`"
        )
    return FetchFailed(f"the key set is {error}", "set `jwks_url` to the URL of the key set")


def keys_fault(document: Mapping[str, Any], keys: KeySet, algorithms: Iterable[str]) -> FetchFailed:
    """A key set without a usable key."""
    entries = document.get("keys", document)
    if not entries:
        fix = "check that the provider signs with a private key; with a shared secret, it publishes no key"
        return FetchFailed("the key set is empty", fix)
    if isinstance(entries, list) and not any(key.is_fault for key in keys.skipped):
        found = sorted({name for entry in entries for name in _algorithms_of(entry)}.difference(algorithms))
        reason = f"the key set has no key for the allowed algorithms {', '.join(sorted(algorithms))}"
        if found:
            return FetchFailed(f"{reason}; it has keys for {', '.join(found)}", "add the algorithm to `algorithms`")
        return FetchFailed(reason, "ask the operator of the identity provider for a key for signatures")
    reasons = sorted({f"{key.kid or 'a key'}: {key.reason}" for key in keys.skipped})
    return FetchFailed(
        "; ".join(["the key set has no usable key", *reasons[:MAX_SHOWN_REASONS]]),
        "ask the operator of the identity provider to correct these keys",
    )


def _algorithms_of(entry: Any) -> Iterable[str]:
    """The algorithms with which a key in the set could be used. Never contains other text of the set."""
    if not isinstance(entry, dict) or entry.get("use", "sig") not in ("sig", None, ""):
        return ()
    operations = entry.get("key_ops")
    if operations and "verify" not in operations:
        return ()
    usual: Iterable[str]
    match entry.get("kty"), entry.get("crv"):
        case "RSA", _:
            possible, usual = RSA_ALGORITHMS, ("RS256", "PS256")
        case "EC", curve:
            possible = usual = frozenset(name for name, own in EC_ALGORITHMS.items() if own == curve)
        case "OKP", "Ed25519":
            possible, usual = EDDSA_ALGORITHMS, sorted(EDDSA_ALGORITHMS)[:1]
        case _:
            return ()
    own = entry.get("alg")
    return [name for name in possible if name == own] if own else usual


def shown_text(text: str) -> str:
    """A provider's text in printable ASCII, escaped and shortened."""
    escaped = text[:MAX_SHOWN_LENGTH].encode("unicode_escape").decode("ascii")
    return escaped[:MAX_SHOWN_LENGTH] + ("..." if max(len(text), len(escaped)) > MAX_SHOWN_LENGTH else "")


def shown_url(url: str) -> str:
    """A URL without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an invalid URL"
    return shown_text(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl())


def _shown_origin(url: str) -> str:
    try:
        return shown_url(urlsplit(url)._replace(path="").geturl())
    except ValueError:
        return "an invalid URL"


def _redirect_target(location: str | None, url: str) -> str:
    if location is None:
        return "no URL"
    try:
        origin = _shown_origin(urljoin(url, location))
    except ValueError:
        return "an invalid URL"
    return "another path of the same host" if origin == _shown_origin(url) else origin
