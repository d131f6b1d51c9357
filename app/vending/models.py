"""Values of the domain: principals, login requests, credentials and login tokens."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Platform(StrEnum):
    """Platform of the device. It decides the credential's lifetime: a push-woken mobile app needs a long-lived one."""

    BROWSER = "browser"
    IOS = "ios"
    ANDROID = "android"


class LoginMethod(StrEnum):
    """The secret that a device logs in with."""

    LOGIN_TOKEN = "login_token"  # noqa: S105 - the name of a method
    SIP_PASSWORD = "sip_password"  # noqa: S105 - the name of a method


class IssueSource(StrEnum):
    """The source of a login. The cost of a login differs by a factor of a hundred."""

    CACHED = "cached"
    """From the login cache."""
    RENEWED = "renewed"
    """A token minted on the device's existing credential."""
    POOLED = "pooled"
    """On a credential from the warm pool."""
    CREATED = "created"
    """On a new credential, which takes some seconds to propagate at Telnyx."""


class UserKey(NamedTuple):
    """A user: issuer and subject. Equal subjects of two issuers are two users."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller: the result of verifying a token. Holds no part of the token itself."""

    issuer: str
    subject: str
    expires_at: datetime
    scopes: frozenset[str] = frozenset()
    issued_at: datetime | None = None
    """When the identity provider issued the token, according to the token."""
    session: str | None = None
    """The identity provider's session (`sid`), if the token names one."""
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)
    """The verified claims, for policy. They may contain personal data: never log them."""
    issuer_template: str | None = None
    """The template in the configuration that `issuer` fills; None if the configuration names the issuer itself."""
    user_key: UserKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_key", UserKey(self.issuer, self.subject))

    @property
    def configured_issuer(self) -> str:
        """The issuer as the configuration names it, for settings and rules of an issuer."""
        return self.issuer_template or self.issuer


@dataclass(frozen=True, slots=True)
class RtcOptions:
    """Options of the WebRTC SDK that policy gives a user. None leaves the choice to the client."""

    region: str | None = None
    caller_id_name: str | None = None
    caller_id_number: str | None = None
    """In E.164."""
    client_options: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """Options for the constructor, by the SDK's names."""


NO_RTC_OPTIONS = RtcOptions()


class RateLimitStatus(NamedTuple):
    """The caller's rate limit status after this request."""

    limit: int
    remaining: int
    reset_seconds: float


class IssueRequest(NamedTuple):
    """A device's request for a login. `None` leaves the choice to policy, or keeps what the device had before."""

    device_id: str
    platform: Platform = Platform.BROWSER
    login_method: LoginMethod = LoginMethod.LOGIN_TOKEN
    ttl_seconds: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """Telnyx's telephony credential: only the fields that Dialtone reads, without the SIP password."""

    id: str
    name: str
    connection_id: str | None
    sip_username: str
    expires_at: datetime | None
    created_at: datetime | None
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class LoginToken:
    """The Telnyx JWT that a device logs in with. A bearer secret: never logged, and stored only encrypted."""

    secret: str = field(repr=False)
    expires_at: datetime

    @property
    def sha256(self) -> str:
        """Links a token to the request that it was issued for, without revealing it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SipPassword:
    """A credential's SIP password, read from Telnyx on request. Never logged, never stored."""

    secret: str = field(repr=False)
