"""Values of the domain: who asks, for which device, what they get. Leases: see `telephony/lease.py`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Platform(StrEnum):
    """Where the phone runs. It decides how long a credential lives: a woken mobile app needs a durable one."""

    BROWSER = "browser"
    IOS = "ios"
    ANDROID = "android"


class Grant(StrEnum):
    """What the device logs in with."""

    LOGIN_TOKEN = "login_token"  # noqa: S105 - the name of a grant
    SIP_PASSWORD = "sip_password"  # noqa: S105 - the name of a grant


class IssueSource(StrEnum):
    """How a device came to its login; what it costs differs by a factor of a hundred."""

    CACHED = "cached"
    """It was at hand."""
    RENEWED = "renewed"
    """Minted on the credential that the device had."""
    POOLED = "pooled"
    """On a credential made ahead."""
    CREATED = "created"
    """On a new one, which Telnyx takes some seconds to spread."""


class UserKey(NamedTuple):
    """A user: an issuer and a subject. Equal subjects of two issuers are two users."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, proved: the outcome of checking a token. Holds no part of the token itself."""

    issuer: str
    subject: str
    expires_at: datetime
    scopes: frozenset[str] = frozenset()
    issued_at: datetime | None = None
    """When the identity provider says that it issued the token."""
    session: str | None = None
    """The session at the identity provider (`sid`), where its tokens name one."""
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)
    """The verified claims, for policy. Personal data may be among them: not for logs."""
    user_key: UserKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_key", UserKey(self.issuer, self.subject))


class RateLimitStatus(NamedTuple):
    """How a caller stands with a limit, after this request."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """A device wants to log in. `None` leaves the choice to policy, or to what the device had before."""

    device_id: str
    platform: Platform = Platform.BROWSER
    grant: Grant = Grant.LOGIN_TOKEN
    ttl_seconds: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """Telnyx's telephony credential, without its SIP password: only the fields that Dialtone reads."""

    id: str
    name: str
    connection_id: str | None
    sip_username: str
    expires_at: datetime | None
    created_at: datetime | None
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class LoginToken:
    """What a phone logs in with. A bearer secret: never logged, never stored."""

    secret: str = field(repr=False)
    expires_at: datetime

    @property
    def sha256(self) -> str:
        """Traces a token to the request that it was made for, without being one."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SipPassword:
    """The password of a credential, read back from Telnyx when asked for. Never logged, never stored."""

    secret: str = field(repr=False)
