"""Checks of `issuer` against the issuers of well-known identity providers.

`check` rejects only issuers that the documentation of the provider, or OpenID Connect Discovery 1.0, excludes.
`find_warnings` reports issuers that are probably wrong. A token without `iss` needs no issuer of a known form.
"""

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urlsplit

from app.config.config_warning import ConfigWarning
from app.config.tables import FieldError
from app.config.token_claims import TokenKind

if TYPE_CHECKING:
    from app.config.file import IssuerTable

_TENANT = r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\{[A-Za-z][A-Za-z0-9_]*\})"
"""The id of an Entra tenant in lower case, or the claim that contains it."""

_NEVER = r"(?!)"
"""A pattern that matches no path, for hosts that no issuer has."""


class _Provider(NamedTuple):
    name: str
    host: str
    """A regular expression of the host names of its issuers."""
    path: str
    """A regular expression of the paths of its issuers. The scheme is https, and there is no port and no query."""
    form: str


_PROVIDERS = (
    _Provider("Auth0", r"[a-z0-9.-]+\.auth0\.com", "/", "https://TENANT.REGION.auth0.com/"),
    _Provider(
        "Entra ID",
        r"login\.microsoftonline\.com",
        rf"/{_TENANT}/v2\.0/?",  # tokens of Azure AD B2C had a slash at the end under this host name
        "https://login.microsoftonline.com/TENANT_ID/v2.0 or https://sts.windows.net/TENANT_ID/",
    ),
    _Provider("Entra ID (v1.0)", r"sts\.windows\.net", rf"/{_TENANT}/", "https://sts.windows.net/TENANT_ID/"),
    _Provider(
        "Azure AD B2C",
        r"[a-z0-9-]+\.b2clogin\.com",
        rf"/(?:{_TENANT}|tfp/{_TENANT}/[A-Za-z0-9_.-]+)/v2\.0/",
        "https://TENANT.b2clogin.com/TENANT_ID/v2.0/",
    ),
    _Provider(
        "Entra External ID",
        r"[a-z0-9-]+\.ciamlogin\.com",
        rf"/{_TENANT}/v2\.0",
        "https://TENANT_ID.ciamlogin.com/TENANT_ID/v2.0",
    ),
    _Provider(
        "Okta", r"[a-z0-9-]+-admin\.(?:okta|oktapreview|okta-emea)\.com", _NEVER, "https://DOMAIN.okta.com/oauth2/ID"
    ),
    _Provider(
        "Okta",
        r"[a-z0-9-]+\.(?:okta|oktapreview|okta-emea)\.com",
        r"(?:/oauth2/[A-Za-z0-9_-]+)?",
        "https://DOMAIN.okta.com/oauth2/ID",
    ),
    _Provider(
        "Cognito",
        r"cognito-idp(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?",
        r"/[a-z0-9-]+_[A-Za-z0-9]+",
        "https://cognito-idp.REGION.amazonaws.com/POOL_ID",
    ),
    _Provider(
        "Cognito",
        r"[a-z0-9-]+\.auth(?:-fips)?\.[a-z0-9-]+\.amazoncognito\.com",
        _NEVER,
        "https://cognito-idp.REGION.amazonaws.com/POOL_ID",
    ),
    _Provider("Google", r"accounts\.google\.com", "", "https://accounts.google.com"),
    _Provider("Firebase", r"securetoken\.google\.com", r"/[a-z0-9:.-]+", "https://securetoken.google.com/PROJECT_ID"),
    _Provider("Google IAP", r"cloud\.google\.com", "/iap", "https://cloud.google.com/iap"),
    _Provider("Apple", r"appleid\.apple\.com", "", "https://appleid.apple.com"),
    _Provider("Supabase", r"[a-z0-9]+\.supabase\.co", "/auth/v1", "https://PROJECT.supabase.co/auth/v1"),
    _Provider("Clerk", r"[a-z0-9-]+\.clerk\.accounts\.dev", "", "https://NAME.clerk.accounts.dev"),
    _Provider("Zitadel Cloud", r"(?:[a-z0-9-]+\.)+zitadel\.cloud", "", "https://NAME.REGION.zitadel.cloud"),
    _Provider(
        "Cloudflare Access",
        r"[a-z0-9-]+\.cloudflareaccess\.com",
        r"(?:/cdn-cgi/access/sso/oidc/[0-9a-f]+)?",
        "https://TEAM.cloudflareaccess.com",
    ),
    _Provider("GitLab", r"gitlab\.com", "", "https://gitlab.com"),
    _Provider(
        "GitHub Actions",
        r"token\.actions\.githubusercontent\.com",
        r"(?:/[A-Za-z0-9_.-]+)?",
        "https://token.actions.githubusercontent.com",
    ),
)
"""Source: each provider's documentation of its tokens or of its discovery document."""

_NOT_IN_URLS = re.compile(r"[\\\"`^|]")
"""Characters that no URL has (RFC 3986). Braces and angle brackets have their own messages."""

_TWICE = re.compile(r"(?P<part>/realms/|/application/o/|\.supabase\.co\b).*(?P=part)|/oidc(?P<end>/oidc)\Z")
"""Parts that a preset adds to a value, and that the value then already had."""

_KEY_SET = re.compile(r"(?:/jwks(?:\.json|_uri)?|/jwk|/certs|/discovery/(?:v2\.0/)?keys|/v1/keys|\.json)/?\Z")
_ENDPOINT = re.compile(r"/(?:authorize|authorization|token|userinfo|introspect|logout)/?\Z")
_KEYCLOAK_REALM = re.compile(r"/realms/[^/]+/\Z")
_KEYCLOAK_ENDPOINT = "/protocol/openid-connect"
_AUTHENTIK = re.compile(r"/application/o/[^/]+\Z")
_OKTA_ORG = re.compile(r"https://[a-z0-9-]+\.(?:okta|oktapreview|okta-emea)\.com")
_ENTRA_SLASH = re.compile(r"https://login\.microsoftonline\.com/.*/v2\.0/")
_DISCOVERY = re.compile(r"/\.well-known/(?:openid-configuration|oauth-authorization-server)/?\Z")
_DOTTED = re.compile(r"(?:\$\.)?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\$\.\w+")
_UNSET = re.compile(r"null|undefined|none|nil|nan|true|false|-", re.IGNORECASE)
_NO_AUDIENCE = re.compile(r"[*,;|\\\"'`\uff0c\u3001]")
"""A wildcard, separators of lists, and quotes: a token has none of them in its audience."""

_PLACEHOLDER_HOST = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|invalid)\Z")
_PLACEHOLDER = re.compile(r"[<>]|\A\$\w+\Z|\$[{(]|\{\{|\bYOUR[_-]|\bCHANGE[_-]?ME\b", re.IGNORECASE)


def check(issuer: "IssuerTable") -> None:
    """Raises FieldError for an issuer that no token can have."""
    text = issuer.issuer
    parts = _split(text)
    if issuer.takes_tokens_without_iss or parts is None:
        return
    if parts.username is not None:
        raise FieldError("issuer", "has a user or a password in it, which no issuer has; remove it")
    if re.search(r"\s", text):
        raise FieldError("issuer", "has white space in it, which no URL has; remove it")
    if (found := _NOT_IN_URLS.search(text)) is not None:
        raise FieldError("issuer", f"has the character {found[0]} in it, which no issuer has; remove it")
    if (found := _TWICE.search(text)) is not None:
        raise FieldError(
            "issuer", f"{text} has {found['part'] or found['end']} twice; remove this part from the value that you set"
        )
    if "/.well-known/" in f"{parts.path}/":
        raise FieldError(
            "issuer",
            f"{text} is the URL of a document, not an issuer; write the value of `issuer` in the discovery document",
        )
    if _KEYCLOAK_ENDPOINT in parts.path or parts.path.endswith((".json", "/jwks")):
        raise FieldError(
            "issuer", f"{text} is the URL of a key set or an endpoint; write the exact `iss` of the provider's tokens"
        )
    is_discovered = not any((issuer.jwks_url, issuer.discovery_url, issuer.pem, issuer.pem_file, issuer.signer))
    if is_discovered and not issuer.is_symmetric and (parts.query or "?" in text):
        raise FieldError(
            "issuer", f"{text} has a query, which an issuer with discovery must not have; remove it, or set jwks_url"
        )
    for provider in _PROVIDERS:
        if re.fullmatch(provider.host, parts.hostname or ""):
            _check_form(text, parts._replace(netloc=parts.netloc.lower()).geturl(), provider)
            return


def _check_form(text: str, with_lower_host: str, provider: _Provider) -> None:
    form = re.compile(f"https://{provider.host}{provider.path}")
    if form.fullmatch(with_lower_host):
        return
    bare = with_lower_host.rstrip("/")
    similar = (bare, f"{bare}/", bare.lower(), f"{bare.lower()}/")
    correct = next((candidate for candidate in similar if form.fullmatch(candidate)), provider.form)
    raise FieldError("issuer", f"no token of {provider.name} has the issuer {text}; write {correct}")


def find_warnings(issuer: "IssuerTable") -> list[ConfigWarning]:
    """Settings that are probably wrong. The place of a warning is a field of the issuer."""
    return [
        *_issuer_warnings(issuer),
        *_key_url_warnings(issuer),
        *_audience_warnings(issuer),
        *_claim_warnings(issuer),
    ]


def _issuer_warnings(issuer: "IssuerTable") -> list[ConfigWarning]:
    text = issuer.issuer
    parts = _split(text)
    if issuer.takes_tokens_without_iss:
        return []
    if _PLACEHOLDER.search(text) or (parts and _PLACEHOLDER_HOST.search(parts.hostname or "")):
        return [ConfigWarning("issuer", f"{text} looks like an example", "write the `iss` of your provider's tokens")]
    if parts is None:
        if re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(/\S*)?", text) and text != "accounts.google.com":
            return [ConfigWarning("issuer", f"{text} has no scheme", "begin it with https://, if the `iss` does")]
        return []
    seen, fix = "", "write the exact `iss` of the provider's tokens"
    if _KEY_SET.search(parts.path):
        seen = f"{text} looks like the URL of a key set"
    elif _ENDPOINT.search(parts.path):
        seen = f"{text} looks like the URL of an endpoint"
    elif parts.query or parts.fragment or text.endswith(("?", "#")):
        seen = f"{text} has a query or a fragment, which issuers of OpenID Connect do not have"
    elif text.endswith((",", ";", ".", "'")):
        seen = f"{text} ends with {text[-1]}"
    elif not text.startswith(parts.scheme):  # urlsplit has converted it to lower case
        seen = f"{text} has capital letters in its scheme"
    elif parts.netloc != parts.netloc.lower():
        seen = f"{text} has capital letters in its host name"
    elif parts.netloc.endswith((":443", ":80")):
        seen = f"{text} has a port, which is the default"
    elif _KEYCLOAK_REALM.search(parts.path):
        seen, fix = f"{text} ends with a slash, and issuers of Keycloak do not", "remove the slash"
    elif _AUTHENTIK.search(parts.path):
        seen, fix = f"{text} has no slash at its end, and issuers of authentik do", "add the slash"
    elif _ENTRA_SLASH.fullmatch(text):
        seen, fix = f"{text} ends with a slash, and issuers of Entra ID do not", "remove the slash"
    elif "//" in parts.path:
        seen = f"{text} has two slashes in its path"
    elif _OKTA_ORG.fullmatch(text) and issuer.token_kind is TokenKind.ACCESS:
        seen = f"{text} is Okta's org server, whose access tokens only Okta can verify"
        fix = "use the issuer of a custom authorization server, https://DOMAIN.okta.com/oauth2/ID"
    return [ConfigWarning("issuer", seen, fix)] if seen else []


def _key_url_warnings(issuer: "IssuerTable") -> list[ConfigWarning]:
    url = issuer.jwks_url or ""
    if not _DISCOVERY.search(url):
        return []
    return [ConfigWarning("jwks_url", f"{url} is the URL of a discovery document", "set discovery_url to it instead")]


def _claim_warnings(issuer: "IssuerTable") -> list[ConfigWarning]:
    """Names of claims in the notation of other programs, which Dialtone takes literally."""
    settings = {"subject_claim": [issuer.subject_claim], "scope_claim": [issuer.scope_claim]}
    settings |= {"audience_claims": list(issuer.audience_claims), "required_claims": list(issuer.required_claims)}
    return [
        ConfigWarning(
            setting,
            f"{name} is read as the name of one claim",
            f"for a claim inside another one, write {'/' + name.removeprefix('$.').replace('.', '/')}",
        )
        for setting, names in settings.items()
        for name in names
        if _DOTTED.fullmatch(name) and name != "kubernetes.io"
    ]


def _audience_warnings(issuer: "IssuerTable") -> list[ConfigWarning]:
    examples = [
        ConfigWarning(
            "audiences", f"{audience} looks like an example", "write the `aud` of the tokens for this service"
        )
        for audience in sorted(issuer.audiences)
        if _PLACEHOLDER.search(audience) or _PLACEHOLDER_HOST.search(_host(audience))
    ]
    doubtful = [
        ConfigWarning("audiences", seen, "write each accepted `aud` exactly, as one value")
        for audience in sorted(issuer.audiences)
        if (seen := _why_doubtful(audience)) is not None
    ]
    of_provider = [
        ConfigWarning(
            "audiences",
            f"{audience} is an audience of the provider itself, which tokens for other purposes have too",
            "write the audience of your own API",
        )
        for audience in sorted(issuer.audiences)
        if _is_of_provider(audience, issuer.issuer)
    ]
    return examples + doubtful + of_provider


def _why_doubtful(audience: str) -> str | None:
    if _UNSET.fullmatch(audience):
        return f"{audience} looks like the value of a variable that is not set"
    found = _NO_AUDIENCE.search(audience)
    return None if found is None else f"{audience} has the character {found[0]} in it, which is compared literally"


def _is_of_provider(audience: str, issuer: str) -> bool:
    """Auth0's endpoint `userinfo` and its Management API, and Keycloak's client `account`."""
    if audience == "account":
        return "/realms/" in issuer
    return audience in (f"{issuer.rstrip('/')}/userinfo", f"{issuer.rstrip('/')}/api/v2/")


def _split(text: str) -> SplitResult | None:
    """The parts of a URL; None for another text."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return parts if parts.hostname else None


def _host(text: str) -> str:
    parts = _split(text)
    return (parts.hostname or "") if parts else text
