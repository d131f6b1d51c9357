"""Claims without a token, to explain the policy. They prove nothing."""

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from app.adapters.identity import claims as checks
from app.adapters.identity.issuers import Issuers
from app.vending.errors import TokenRejected
from app.vending.models import Principal


def principal_of(claims: dict[str, Any], issuers: Issuers) -> Principal:
    """The principal of the claims. Raises TokenRejected.

    Checks only what the principal is made of: issuer, subject and scopes.
    """
    iss, issuer = issuers.of(claims, is_access_token=True)
    subject, scopes = checks.subject_of(claims, issuer), checks.scopes_of(claims, issuer)
    never = datetime.max.replace(tzinfo=UTC)
    template = None if issuer.template is None else issuer.issuer
    return Principal(iss, subject, never, scopes, claims=MappingProxyType(claims), issuer_template=template)


def fault_of(claims: dict[str, Any], issuers: Issuers, now: float) -> str | None:
    """The reason code for which the service rejects tokens with these claims; None if it does not.

    `exp` may be absent. Raises TokenRejected if the claims belong to no issuer.
    """
    iss, issuer = issuers.of(claims, is_access_token=True)
    try:
        checks.principal_of({"exp": now + 1} | claims, issuer, iss, now)
    except TokenRejected as refusal:
        return refusal.reason
    return None
