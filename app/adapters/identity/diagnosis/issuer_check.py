"""Finds the issuer of a token as the service does. If no issuer matches, explains why."""

from typing import Any

from app.adapters.identity import expectations
from app.adapters.identity.claims import Issuer
from app.adapters.identity.diagnosis import issuer_hints
from app.adapters.identity.diagnosis.claim_checks import CheckList, Claims
from app.adapters.identity.diagnosis.issuer_hints import NearIssuer
from app.adapters.identity.diagnosis.shown import shown
from app.adapters.identity.diagnosis.token_report import CheckState
from app.adapters.identity.issuers import Issuers
from app.vending.errors import TokenRejected


def issuer_of(
    checklist: CheckList, claims: Claims, issuers: Issuers, header: dict[str, Any] | None = None
) -> tuple[str, Issuer] | None:
    """The issuer. If no issuer matches, the most similar one, so that further checks can be run."""
    found: list[tuple[str, Issuer]] = []
    near = issuer_hints.nearest(claims, issuers)
    configured = list(issuers)
    iss = claims.get("iss")
    checklist.run(
        "issuer",
        lambda: found.append(issuers.of(claims, is_access_token=True)),
        "unknown_issuer",
        f"iss {shown(iss)}" if "iss" in claims else "no iss",
        lambda: _why_unknown(claims, configured, near, header or {}),
    )
    if found:
        return found[0]
    if near is not None:
        return near.name, near.issuer
    return (configured[0].issuer, configured[0]) if len(configured) == 1 else None


def assumed_issuer(checklist: CheckList, claims: Claims, issuers: Issuers) -> tuple[str, Issuer] | None:
    """The issuer of claims without `iss`, if one issuer is configured."""
    configured = list(issuers)
    if "iss" in claims or len(configured) != 1 or configured[0].takes_tokens_without_iss:
        return None
    [issuer] = configured
    iss = issuer.issuer
    if issuer.template is not None:
        iss = issuer.template.filled(str(claims.get(issuer.template.claim, "")))
        try:
            issuers.of(claims | {"iss": iss}, is_access_token=True)
        except TokenRejected:
            return None
    checklist.note("issuer", CheckState.ASSUMED, f"no iss: {iss} is assumed", "unknown_issuer")
    return iss, issuer


def _why_unknown(claims: Claims, issuers: list[Issuer], near: NearIssuer | None, header: dict[str, Any]) -> str:
    iss = claims.get("iss")
    if "signer" in header and "client" in header:
        return "this is probably a token of an AWS load balancer: set header and signer of its issuer"
    if "iss" not in claims:
        return "tokens without iss need takes_tokens_without_iss = true at their issuer"
    if not isinstance(iss, str):
        return "iss must be text"
    if (known := issuer_hints.known_issuer(iss)) is not None:
        return known
    for issuer in issuers:
        template = issuer.template
        if template is None or (tenant := template.tenant_of(iss)) is None:
            continue
        if isinstance(issuer.tenants, frozenset) and tenant not in issuer.tenants:
            known = expectations.one_of(issuer.tenants)
            return f"the tenant {shown(tenant)} is not in tenants of {issuer.issuer}, which are {known}"
        return f"the claim {template.claim} must name the tenant in iss, but it is {shown(claims.get(template.claim))}"
    if near is not None:
        return near.difference + (". The setting must be exactly the token's iss" if near.distance == 0 else "")
    return "no issuer matches: the token comes from another provider, or its issuer is not configured"
