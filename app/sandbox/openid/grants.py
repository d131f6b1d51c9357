"""Authorization codes and refresh tokens (RFC 6749, RFC 7636): each is used once, and reuse ends the grant."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from app.sandbox.openid.tokens import Clock, TokenRequestError
from app.sandbox.signing import base64url

CODE_SECONDS = 60
"""Lifetime of an authorization code."""


@dataclass
class AuthorizationGrant:
    """The access that a user gave to an application."""

    user: str
    client_id: str
    redirect_uri: str
    code_challenge: str
    scopes: list[str]
    session_id: str
    nonce: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    """The only refresh token that is valid. None before the code is redeemed, and after the grant has ended."""
    has_redeemed_code: bool = False


class Grants:
    """The grants of one provider, by their codes and refresh tokens."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_code: dict[str, tuple[AuthorizationGrant, float]] = {}
        self._by_refresh_token: dict[str, AuthorizationGrant] = {}

    def add(self, grant: AuthorizationGrant) -> str:
        """The code of a new grant."""
        code = secrets.token_urlsafe(32)
        self._by_code[code] = (grant, self._clock() + CODE_SECONDS)
        return code

    def redeem_code(self, code: str, *, client_id: str, redirect_uri: str, code_verifier: str) -> AuthorizationGrant:
        """The grant of a code. A wrong attempt uses the code up too. Raises TokenRequestError."""
        grant, expires_at = self._by_code.get(code, (None, 0.0))
        if grant is None:
            raise invalid_grant("The code is unknown.")
        if grant.has_redeemed_code:
            self.end(grant)  # RFC 6749, 4.1.2: another party has the code
            raise invalid_grant("The code was already used.")
        grant.has_redeemed_code = True
        if self._clock() >= expires_at:
            raise invalid_grant("The code has expired.")
        if client_id != grant.client_id:
            raise invalid_grant("The code was issued to another client_id.")
        if redirect_uri != grant.redirect_uri:
            raise invalid_grant("redirect_uri differs from that of the authorization request.")
        if not hmac.compare_digest(code_challenge(code_verifier).encode(), grant.code_challenge.encode()):
            raise invalid_grant("code_verifier does not match code_challenge.")
        return grant

    def redeem_refresh_token(self, token: str, *, client_id: str) -> AuthorizationGrant:
        """The grant of a refresh token. Raises TokenRequestError."""
        grant = self._by_refresh_token.get(token)
        if grant is None:
            raise invalid_grant("The refresh token is unknown.")
        if client_id != grant.client_id:
            raise invalid_grant("The refresh token was issued to another client_id.")
        if token != grant.refresh_token:
            self.end(grant)  # RFC 9700, 4.14.2: another party has the token
            raise invalid_grant("The refresh token was already used.")
        return grant

    def new_refresh_token(self, grant: AuthorizationGrant) -> str:
        """The next refresh token of a grant. The previous one becomes invalid."""
        token = secrets.token_urlsafe(32)
        self._by_refresh_token[token] = grant
        grant.refresh_token = token
        return token

    def end(self, grant: AuthorizationGrant) -> None:
        """Invalidate all refresh tokens of a grant."""
        grant.refresh_token = None


def code_challenge(code_verifier: str) -> str:
    """The S256 challenge of a verifier."""
    return base64url(hashlib.sha256(code_verifier.encode()).digest())


def invalid_grant(description: str) -> TokenRequestError:
    return TokenRequestError(error="invalid_grant", error_description=description)
