"""Values of grants: their kinds, the issuers of their users, and the row of a grant in the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.vending.models import Principal, UserKey

ORIGIN_CLAIM = "origin"
"""The claim with the only origin whose pages may use the grant."""

RESERVED_PREFIX = "dialtone:"
"""No identity provider may have an issuer that begins with this."""


MAX_GRANT_TTL = timedelta(hours=1)
"""The largest DIALTONE_GRANT_TTL_SECONDS."""


class GrantKind(StrEnum):
    """The kind of caller that a backend vouches for."""

    USER = "user"
    """A user with a name, which the backend has authenticated."""
    GUEST = "guest"
    """A caller without an account, such as a visitor of a web page."""

    @property
    def issuer(self) -> str:
        """The issuer of the users of this kind. No other token has it, so a grant cannot act as another user."""
        return f"{RESERVED_PREFIX}{self.value}s"


GRANT_ISSUERS = {kind.issuer: kind for kind in GrantKind}


def is_granted(principal: Principal) -> bool:
    """Whether the principal was proved by a grant."""
    return principal.issuer in GRANT_ISSUERS


def may_use_origin(principal: Principal, origin: str | None) -> bool:
    """False if the principal's grant is bound to another origin. `origin` is None without the header."""
    return not is_granted(principal) or principal.claims.get(ORIGIN_CLAIM, origin) == origin


@dataclass(frozen=True, slots=True)
class AccessGrant:
    """A grant, as the ledger stores it. The token is not stored. Its `sid` is the id, so a grant is a session."""

    id: str
    kind: GrantKind
    subject: str
    backend: UserKey
    """The backend that minted it."""
    origin: str | None
    created_at: datetime
    expires_at: datetime
    device_id: str | None = None
    """The device that used it first, and may use it from then on."""
    revoked_at: datetime | None = None

    @property
    def user_key(self) -> UserKey:
        return UserKey(self.kind.issuer, self.subject)

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """The principal that a token with these claims proves."""
        return Principal(
            self.kind.issuer, self.subject, self.expires_at, issued_at=self.created_at, session=self.id, claims=claims
        )
