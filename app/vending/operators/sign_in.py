"""The sign-in of operators at the identity provider: authorization code flow with PKCE, in the operator's browser.

The service only tells the browser where and with which client to sign in. It sees no code and stores no token.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SignInClient:
    """The client of the identity provider, from the configuration. A public client: it has no secret."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    audience: str | None
    """The audience to request; None if the issuer has none or several. Not every provider needs it."""
    uses_id_token: bool
    """Whether Dialtone accepts the issuer's ID tokens instead of its access tokens."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """The client with the endpoints of its provider, as the discovery document names them."""

    client: SignInClient
    authorization_endpoint: str
    token_endpoint: str
    end_session_endpoint: str | None
    """None if the provider has none."""


class SignInSource(Protocol):
    """The sign-in of the current configuration."""

    @property
    def client(self) -> SignInClient | None:
        """None if no issuer has a client for operators."""

    async def current(self) -> SignIn | None:
        """None if `client` is None. Raises IdentityUnavailable if the endpoints are not known."""
