"""The settings of the sign-in of operators at /ops and /docs: the issuer's client, and the scopes that it requests."""

from typing import TYPE_CHECKING

from app.adapters.addresses import is_safe_url
from app.vending.policy import ADMIN_SCOPE

if TYPE_CHECKING:
    from app.config.file import IssuerTable

OPS_SCOPES = frozenset({"openid", ADMIN_SCOPE})
"""The default of `ops_scopes`."""

SCOPE = r"^[\x21\x23-\x5b\x5d-\x7e]{1,255}$"
"""RFC 6749 section 3.3."""


def find_sign_in_fault(table: "IssuerTable") -> tuple[str, str] | None:
    """The setting and the fault of the sign-in; None if there is none."""
    if table.ops_client_id is None:
        if table.ops_scopes != OPS_SCOPES:
            return "ops_scopes", "has no effect without ops_client_id; remove it"
        return None
    if table.header is not None:
        return "ops_client_id", f"has no effect, because a proxy adds the tokens in {table.header}; remove it"
    if table.tenants is not None:
        return "ops_client_id", "is not possible for an issuer template; use an issuer of one tenant"
    if not is_safe_url(table.discovery_url or table.issuer, allows_http=table.allow_http):
        return "ops_client_id", "requires an issuer with a discovery document, at an https URL"
    if "openid" not in table.ops_scopes:
        return "ops_scopes", "must contain openid, so that the page gets an ID token with its nonce"
    return None
