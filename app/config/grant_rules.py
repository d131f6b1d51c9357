"""Rules for grants: what such a rule may contain, and which rules of a policy are for grants."""

from app.config.tables import FieldError
from app.vending.grants.models import GRANT_ISSUERS, GrantKind
from app.vending.models import Grant
from app.vending.policy import Policy, Rule

FOR_OTHER_TOKENS = ("scopes", "push_scopes", "admin", "admin_requires_scope", "vouches_for")
"""Settings that require scopes or give rights over other users. A grant has neither."""


def check(issuers: frozenset[str], given: dict[str, object]) -> None:
    """Raises FieldError for a rule that mixes grants with other issuers, or that gives a grant too much.

    `given` are the fields that are set.
    """
    named = issuers & GRANT_ISSUERS.keys()
    if not named:
        return
    if named != issuers:
        raise FieldError("issuers", "grants require a rule of their own; remove the other issuers")
    if (field := next((name for name in FOR_OTHER_TOKENS if name in given), None)) is not None:
        raise FieldError(field, "is not possible in a rule for grants; remove it")
    if GrantKind.GUEST.issuer in named and given.get("effect") != "deny":
        _check_guests(given)


def _check_guests(given: dict[str, object]) -> None:
    if "connection_id" not in given:
        raise FieldError("connection_id", "is required for guests: name a connection whose outbound calls are limited")
    if given.get("push"):
        raise FieldError("push", "is not possible for guests; remove it")
    grants = given.get("grants")
    if isinstance(grants, frozenset) and Grant.SIP_PASSWORD in grants:
        raise FieldError("grants", "must not contain sip_password for guests")


def grant_rules(policy: Policy) -> list[Rule]:
    """The rules that allow grants."""
    return [rule for rule in policy.rules if rule.allowance is not None and _names(rule, *GRANT_ISSUERS)]


def guest_connections(policy: Policy) -> frozenset[str]:
    """The connections that guests call through."""
    found = [rule for rule in grant_rules(policy) if _names(rule, GrantKind.GUEST.issuer)]
    return frozenset(rule.allowance.connection_id for rule in found if rule.allowance is not None)


def _names(rule: Rule, *issuers: str) -> bool:
    return rule.issuers is not None and not rule.issuers.isdisjoint(issuers)
