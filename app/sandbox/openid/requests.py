"""Reads the requests of OAuth and OpenID Connect clients, and rejects those that are invalid (RFC 6749, RFC 7636)."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from starlette.requests import Request

from app.sandbox.openid.tokens import TokenRequestError
from app.sandbox.provider import DEMO_USERS

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 digest in base64url."""
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, 3.3."""
_URL = re.compile(r"[\x21-\x5b\x5d-\x7e]+")
"""Browsers read a backslash as a slash, and urlsplit removes control characters."""
_EMAIL_SUFFIX = "@example.com"


class InvalidTarget(Exception):
    """The client or the redirect URI is not valid: the browser must not be redirected. The message is for the page."""


class AuthorizationError(Exception):
    """An error that the application gets as parameters of its redirect URI (RFC 6749, 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass(frozen=True)
class Target:
    """The redirect URI of an authorization request, and the state that the application expects with it."""

    client_id: str
    redirect_uri: str
    state: str | None

    def url(self, **parameters: str) -> str:
        state = {} if self.state is None else {"state": self.state}
        return with_parameters(self.redirect_uri, parameters | state)


@dataclass(frozen=True)
class AuthorizationRequest:
    """A valid authorization request, besides its target."""

    scopes: list[str]
    nonce: str | None
    code_challenge: str
    is_silent: bool
    """Whether no page may be shown (`prompt=none`)."""
    user: str | None
    """The demo user that `login_hint` names."""
    max_age: int | None
    """The longest time since the user signed in, in seconds."""


def read_target(parameters: dict[str, list[str]]) -> Target:
    """Raises InvalidTarget."""
    client_id, redirect_uri = (parameters.get(name, []) for name in ("client_id", "redirect_uri"))
    if len(client_id) != 1 or not client_id[0]:
        raise InvalidTarget("The request needs one client_id.")
    if len(redirect_uri) != 1 or not is_loopback_url(redirect_uri[0]):
        raise InvalidTarget(
            "The request needs one redirect_uri on this machine, such as http://localhost:3000/callback."
        )
    return Target(client_id[0], redirect_uri[0], parameters.get("state", [None])[0])


def read_authorization_request(parameters: dict[str, list[str]]) -> AuthorizationRequest:
    """Raises AuthorizationError."""
    if repeated := [name for name, values in parameters.items() if len(values) > 1]:
        raise _invalid(f"The parameter {repeated[0]!r} occurs more than once.")
    given = {name: values[0] for name, values in parameters.items() if values[0]}
    if "request" in given:
        raise AuthorizationError("request_not_supported", "Request objects are not supported.")
    if "request_uri" in given:
        raise AuthorizationError("request_uri_not_supported", "Request objects are not supported.")
    if "response_type" not in given:
        raise _invalid("response_type is missing.")
    if given["response_type"] != "code":
        raise AuthorizationError("unsupported_response_type", "The only response_type is code.")
    if given.get("response_mode", "query") != "query":
        raise _invalid("The only response_mode is query.")
    if "code_challenge" not in given:
        raise _invalid("code_challenge is missing: PKCE is required.")
    if given.get("code_challenge_method") != "S256":
        raise _invalid("The only code_challenge_method is S256.")
    if not _CHALLENGE.fullmatch(given["code_challenge"]):
        raise _invalid("code_challenge is not a SHA-256 digest in base64url.")
    prompts = given.get("prompt", "").split()
    if "none" in prompts and len(prompts) > 1:
        raise _invalid("prompt=none cannot be combined with other values.")
    max_age = given.get("max_age")
    if max_age is not None and not (max_age.isascii() and max_age.isdecimal()):
        raise _invalid("max_age must be a number of seconds.")
    return AuthorizationRequest(
        scopes=_scopes(given.get("scope", "")),
        nonce=given.get("nonce"),
        code_challenge=given["code_challenge"],
        is_silent=prompts == ["none"],
        user=_demo_user(given.get("login_hint", "")),
        max_age=None if max_age is None else int(max_age),
    )


async def read_token_request(request: Request) -> dict[str, str]:
    """The form of a request to the token endpoint, with the client_id of HTTP Basic. Raises TokenRequestError.

    A client secret is not checked: no client is registered.
    """
    form = read_form(await request.body())
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            client_id, _, _ = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise TokenRequestError(error="invalid_client") from None
        form["client_id"] = unquote_plus(client_id)
    return form


def read_form(encoded: bytes) -> dict[str, str]:
    """The parameters that are not empty. Raises TokenRequestError."""
    fields = parse_qsl(encoded.decode("utf-8", "replace"))
    form = dict(fields)
    if len(form) < len(fields):
        raise invalid_request("A parameter occurs more than once.")
    return form


def required(form: dict[str, str], *names: str) -> list[str]:
    """The values of parameters. Raises TokenRequestError."""
    if missing := [name for name in names if name not in form]:
        raise invalid_request(f"{missing[0]} is missing.")
    return [form[name] for name in names]


def invalid_request(description: str) -> TokenRequestError:
    return TokenRequestError(error="invalid_request", error_description=description)


def is_loopback_url(url: str) -> bool:
    """Whether a URL is an http or https URL of this machine, on any port, without a fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises ValueError for a port that is not a number
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    is_plain = _URL.fullmatch(url) is not None and "#" not in url and "@" not in parts.netloc
    return is_plain and is_loopback and parts.scheme in ("http", "https")


def with_parameters(url: str, parameters: dict[str, str]) -> str:
    """The URL with more query parameters."""
    if not parameters:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(parameters)}"


def grouped(parameters: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All values of each parameter."""
    found: dict[str, list[str]] = {}
    for name, value in parameters:
        found.setdefault(name, []).append(value)
    return found


def _scopes(text: str) -> list[str]:
    scopes = text.split()
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise AuthorizationError("invalid_scope", "A scope contains a character that is not allowed.")
    return scopes


def _demo_user(login_hint: str) -> str | None:
    name = login_hint.removesuffix(_EMAIL_SUFFIX)
    return name if name in DEMO_USERS else None


def _invalid(description: str) -> AuthorizationError:
    return AuthorizationError("invalid_request", description)
