"""Configuration of grants: their keys, and what a policy rule for grants may contain."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import SecretStr

from app.adapters.identity.grant_keys import GrantKeys, GrantSigningKey
from app.adapters.identity.tenants import is_issued_by
from app.config.tables import FieldError
from app.vending.grants.models import GRANT_ISSUERS, RESERVED_PREFIX, GrantKind
from app.vending.models import LoginMethod
from app.vending.outbound import OutboundRequirement
from app.vending.policy import Allowance, Policy, Rule

NAMES = {issuer: issuer for issuer in GRANT_ISSUERS}
"""The names of the issuers of grants in rules."""

FOR_OTHER_TOKENS = ("scopes", "push_scopes", "admin", "admin_requires_scope", "vouches_for")
"""Settings that require scopes or give rights over other users. A grant has neither."""


def is_reserved(issuer: str) -> bool:
    """Whether tokens of this issuer may have an issuer of grants: its own, or one that fills its template."""
    return issuer.startswith(RESERVED_PREFIX) or any(is_issued_by(issuer, granting) for granting in GRANT_ISSUERS)


def check(issuers: frozenset[str] | None, given: Mapping[str, object]) -> None:
    """Raises FieldError for a rule that mixes grants with other issuers, or that gives a grant too much.

    `given` are the fields that are set.
    """
    named = (issuers or frozenset()) & GRANT_ISSUERS.keys()
    if not named:
        return
    if named != issuers:
        raise FieldError("issuers", "grants require a rule of their own; remove the other issuers")
    if (field := next((name for name in FOR_OTHER_TOKENS if name in given), None)) is not None:
        raise FieldError(field, "is not possible in a rule for grants; remove it")
    if GrantKind.GUEST.issuer in named and given.get("effect") != "deny":
        _check_guests(given)


def _check_guests(given: Mapping[str, object]) -> None:
    if "connection_id" not in given:
        raise FieldError("connection_id", "is required for guests: name a connection whose outbound calls are limited")
    if given.get("push"):
        raise FieldError("push", "is not possible for guests; remove it")
    grants = given.get("grants")
    if isinstance(grants, frozenset) and LoginMethod.SIP_PASSWORD in grants:
        raise FieldError("grants", "must not contain sip_password for guests")
    if given.get("outbound") is OutboundRequirement.ANY:
        raise FieldError("outbound", "must be none or limited for guests")


def limited(issuers: frozenset[str] | None, allowance: Allowance) -> Allowance:
    """The permissions of a rule for these issuers.

    Guests get login tokens only, no push, and a connection on which a stolen login has a limited cost.
    """
    if issuers is None or GrantKind.GUEST.issuer not in issuers:
        return allowance
    is_any = allowance.outbound is OutboundRequirement.ANY
    outbound = OutboundRequirement.LIMITED if is_any else allowance.outbound
    login_methods = allowance.login_methods & {LoginMethod.LOGIN_TOKEN}
    return replace(allowance, push=False, login_methods=login_methods, outbound=outbound)


def grant_rules(policy: Policy) -> list[Rule]:
    """The rules that allow grants."""
    return [
        rule for rule in policy.rules if rule.allowance is not None and (rule.issuers or set()) & GRANT_ISSUERS.keys()
    ]


def load_grant_keys(
    signing: SecretStr | None, other: SecretStr | None, namespace: str, policy: Policy
) -> GrantKeys | None:
    """The keys of grants; None if there is no signing key. Raises FieldError with the setting's name."""
    if signing is None:
        if other is not None:
            raise FieldError("other_grant_key", "is set without DIALTONE_GRANT_KEY; set both")
        if (rule := next(iter(grant_rules(policy)), None)) is not None:
            fix = "set DIALTONE_GRANT_KEY_FILE to the file of a private key"
            raise FieldError("grant_key", f"is not set, but the rule {rule.name} is for grants; {fix}")
        return None
    first = _signing_key("grant_key", signing)
    second = None if other is None else _signing_key("other_grant_key", other)
    if second is not None and second.kid == first.kid:
        raise FieldError("other_grant_key", "is the same key as DIALTONE_GRANT_KEY")
    return GrantKeys(first, second, namespace)


def _signing_key(field: str, secret: SecretStr) -> GrantSigningKey:
    try:
        return GrantSigningKey(secret.get_secret_value())
    except ValueError as error:
        raise FieldError(field, str(error)) from None
