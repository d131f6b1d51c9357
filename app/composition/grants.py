"""Builds the components of grants."""

from datetime import timedelta

from app.adapters.rate_limiter import RateLimiter
from app.composition.components import (
    GrantComponents,
    IdentityComponents,
    LedgerComponents,
    Overrides,
    TelephonyComponents,
)
from app.config.settings import Settings
from app.observability.audit_log import AuditLog
from app.vending.grants.mint import GrantMinter
from app.vending.grants.revoke import GrantRevoker


def build_grants(
    settings: Settings,
    overrides: Overrides,
    audit: AuditLog,
    limiter: RateLimiter,
    ledger: LedgerComponents,
    identity: IdentityComponents,
    telephony: TelephonyComponents,
) -> GrantComponents:
    minter = GrantMinter(
        identity.policy,
        ledger.grants,
        identity.grant_keys,
        limiter,
        audit,
        overrides.clock,
        overrides.new_id,
        timedelta(seconds=settings.grant_ttl_seconds),
    )
    revoker = GrantRevoker(ledger.grants, identity.not_before, telephony.revoker, audit, overrides.clock)
    return GrantComponents(minter, revoker)
