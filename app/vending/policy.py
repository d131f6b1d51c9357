"""Policy: an ordered list of rules over a principal's issuer, claims and scopes, as pure functions.

The first matching rule decides. Once a policy is enforced, a user without a matching rule is denied. The decision and
its explanation use the same function (`Rule.why_not`), so they cannot differ.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from app.vending.claim_conditions import ClaimCondition
from app.vending.errors import (
    AccessDenied,
    GrantNotAllowed,
    InsufficientScope,
    OutboundRequirementNotMet,
    PushNotAllowed,
)
from app.vending.grants.models import GrantKind, is_granted
from app.vending.models import NO_RTC_OPTIONS, IssueRequest, LoginMethod, Platform, Principal, RtcOptions
from app.vending.outbound import OutboundRequirement
from app.vending.telephony.durations import lifetime
from app.vending.visibility import ALL_ISSUERS, Tenant, Visibility

ADMIN_SCOPE = "dialtone:admin"
"""Scope that an operator's token must hold, in addition to what policy requires."""

GRANTS_SCOPE = "dialtone:grants"
"""Scope that a backend's token must hold to mint grants, in addition to what policy requires."""


class DeviceLimitAction(StrEnum):
    """The action when a new device would exceed the device limit."""

    REJECT = "reject"
    EVICT_OLDEST = "evict_oldest"
    """The user's least recently used device is logged out."""


DEFAULT_ACTIONS: Mapping[Platform, DeviceLimitAction] = MappingProxyType(
    {
        Platform.BROWSER: DeviceLimitAction.EVICT_OLDEST,
        Platform.IOS: DeviceLimitAction.REJECT,
        Platform.ANDROID: DeviceLimitAction.REJECT,
    }
)
"""A browser tab is a device, and closed tabs do not log out. A phone stays logged in while its app is closed."""


RETRY_UNMET_SECONDS = 60.0
"""`Retry-After` of a login that an outbound requirement denies. The connection is read again after about a minute."""


class PolicyMode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"
    """Decides nothing; the log records what it would have decided."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The permissions and limits of a user."""

    connection_id: str
    """The Telnyx credential connection that new credentials belong to."""
    ttl: Mapping[Platform, timedelta]
    """Default lifetime of a credential by platform, which is also the maximum that a caller may request."""
    login_methods: frozenset[LoginMethod] = frozenset({LoginMethod.LOGIN_TOKEN})
    max_devices: int = 10
    at_device_limit: DeviceLimitAction | None = None
    """None means DEFAULT_ACTIONS."""
    push: bool = True
    """Whether push credentials may be registered; the token must also hold `push_scopes`."""
    push_scopes: frozenset[str] = frozenset()
    admin: bool = False
    """Whether a token with ADMIN_SCOPE may call the operator API."""
    admin_requires_scope: bool = True
    """False: `admin` suffices without ADMIN_SCOPE, for identity providers whose scopes cannot contain it."""
    vouches_for: frozenset[GrantKind] = frozenset()
    """The kinds of grants that a token with GRANTS_SCOPE may mint."""
    outbound: OutboundRequirement = OutboundRequirement.ANY
    """The requirement that the connection must meet before its users can log in."""
    visibility: Visibility = ALL_ISSUERS
    """The issuers whose users an operator may see and change."""
    rtc: RtcOptions = NO_RTC_OPTIONS
    max_lease_age: timedelta | None = None
    """The age at which a device's credential is replaced. None: never."""

    def action_at_limit(self, platform: Platform) -> DeviceLimitAction:
        return self.at_device_limit or DEFAULT_ACTIONS[platform]

    def is_operator(self, scopes: frozenset[str]) -> bool:
        """Whether a token with these scopes may call the operator API."""
        return self.admin and (ADMIN_SCOPE in scopes or not self.admin_requires_scope)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy."""

    name: str
    allowance: Allowance | None
    """The permissions that the rule grants. None means that it denies."""
    issuers: frozenset[str] | None = None
    """The issuers that the rule applies to, as the configuration names them. None means all."""
    claims: tuple[ClaimCondition, ...] = ()
    scopes: frozenset[str] = frozenset()
    """Scopes that the token must hold for the rule to match."""
    mode: PolicyMode = PolicyMode.ENFORCE

    def why_not(self, principal: Principal) -> str | None:
        """Why the rule does not apply to the principal, scopes aside; None if it applies."""
        if self.issuers is None and is_granted(principal):
            return "the rule names no issuer, and grants require a rule of their own"
        if self.issuers is not None and principal.configured_issuer not in self.issuers:
            return f"the issuer is not {' or '.join(sorted(self.issuers))}"
        for condition in self.claims:
            if (why := condition.why_not(principal.claims)) is not None:
                return why
        return None

    def missing_scopes(self, principal: Principal) -> frozenset[str]:
        return self.scopes - principal.scopes

    def visible_to(self, visibility: Visibility) -> "Rule | None":
        """The rule with its visible issuers only; None if it applies to no user of a visible issuer."""
        if visibility.issuers is None:
            return self
        possible = visibility.issuers - {one.issuer for one in visibility.tenants if not self._may_match(one)}
        if self.issuers is None:
            return self if possible else None
        tenants = {one.issuer for one in visibility.tenants if one.template in self.issuers}
        issuers = (self.issuers | tenants) & possible
        return replace(self, issuers=issuers) if issuers else None

    def _may_match(self, tenant: Tenant) -> bool:
        """False if a condition on the tenant id or the issuer excludes the tenant's users."""
        known = {"iss": tenant.issuer, tenant.claim: tenant.tenant_id}
        return all(one.why_not(known) is None for one in self.claims if len(one.path) == 1 and one.path[0] in known)


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """Result of evaluating rules for one principal."""

    rule: str | None
    """Name of the deciding rule; None if no rule matches."""
    allowance: Allowance | None


@dataclass(frozen=True, slots=True)
class Policy:
    """An operator's rules and defaults."""

    default: Allowance
    """The permissions of every user of a configured issuer while no policy is enforced. Grants are denied then."""
    rules: tuple[Rule, ...] = ()
    mode: PolicyMode = PolicyMode.ENFORCE
    required_scopes: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    """By issuer, as the configuration names it: scopes that its tokens need for every operation of a user."""

    def connections(self) -> frozenset[str]:
        """Every connection that the policy can assign."""
        given = [rule.allowance.connection_id for rule in self.rules if rule.allowance is not None]
        return frozenset({self.default.connection_id, *given})

    def outbound_requirements(self) -> Mapping[tuple[str, OutboundRequirement], tuple[str, ...]]:
        """The names of the enforced rules that require something of their connection, by connection and requirement."""
        found: dict[tuple[str, OutboundRequirement], tuple[str, ...]] = {}
        for rule in self.rules if self.is_enforced else ():
            allowance = rule.allowance
            if rule.mode is PolicyMode.ENFORCE and allowance and allowance.outbound is not OutboundRequirement.ANY:
                key = allowance.connection_id, allowance.outbound
                found[key] = (*found.get(key, ()), rule.name)
        return found

    def connections_to_check(self, known: Container[tuple[str, OutboundRequirement]] = ()) -> list[str]:
        """The connections with requirements, sorted. A connection whose requirements are all `known` is left out."""
        return sorted({key[0] for key in self.outbound_requirements() if key not in known})

    def claims(self) -> frozenset[str]:
        """Names of the claims that the rules examine."""
        return frozenset(condition.path[0] for rule in self.rules for condition in rule.claims)

    def visible_rules(self, visibility: Visibility) -> tuple[Rule, ...]:
        """The rules that apply to users of visible issuers. Their `issuers` contain no other issuer."""
        return tuple(seen for rule in self.rules if (seen := rule.visible_to(visibility)) is not None)

    @property
    def is_enforced(self) -> bool:
        return bool(self.rules) and self.mode is PolicyMode.ENFORCE

    def enforced(self, principal: Principal) -> PolicyResult:
        """The result that applies to the principal now."""
        if not self.is_enforced:
            return PolicyResult(None, None if is_granted(principal) else self.default)
        return _first_fit((rule for rule in self.rules if rule.mode is PolicyMode.ENFORCE), principal)

    def shadow(self, principal: Principal) -> PolicyResult:
        """The result if every shadow rule were enforced."""
        return _first_fit(self.rules, principal) if self.rules else PolicyResult(None, self.default)

    def helpful_scopes(
        self, principal: Principal, required: frozenset[str], is_enough: Callable[[Allowance], bool]
    ) -> frozenset[str]:
        """The scopes with which the policy would allow the denied request. Empty if no scopes would.

        If there are several sets, returns the one with the fewest missing scopes.

        ADMIN_SCOPE and GRANTS_SCOPE count only if they are `required`: they do not help a user.
        """
        wanted = {required} | {required | rule.scopes for rule in self.rules if rule.why_not(principal) is None}
        for scopes in sorted(wanted, key=lambda scopes: (len(scopes - principal.scopes), sorted(scopes))):
            if {ADMIN_SCOPE, GRANTS_SCOPE} & (scopes - principal.scopes - required):
                continue
            allowance = self.enforced(replace(principal, scopes=principal.scopes | scopes)).allowance
            if allowance is not None and is_enough(allowance):
                return scopes
        return frozenset()

    @property
    def has_shadow(self) -> bool:
        return bool(self.rules) and (
            self.mode is PolicyMode.SHADOW or any(rule.mode is PolicyMode.SHADOW for rule in self.rules)
        )


@dataclass(frozen=True, slots=True)
class IssueTerms:
    """The terms of one requested login."""

    allowance: Allowance
    ttl: timedelta
    session: str | None
    """The identity provider's session that the device will belong to."""


class ActivePolicy:
    """The current policy. A reload replaces it between two decisions."""

    def __init__(self, policy: Policy, on_difference: Callable[[Principal, PolicyResult, PolicyResult], None]) -> None:
        """`on_difference` is called with the enforced and the shadow result if they differ."""
        self.policy = policy
        self._on_difference = on_difference
        self._unmet: frozenset[tuple[str, OutboundRequirement]] = frozenset()

    def authorize(
        self, principal: Principal, is_enough: Callable[[Allowance], bool] = lambda allowance: True
    ) -> Allowance:
        """The permissions of the principal. Raises InsufficientScope, or AccessDenied if policy grants none.

        InsufficientScope names only scopes that would help: with them, a rule would match whose permissions are enough.
        """
        required = self.policy.required_scopes.get(principal.configured_issuer, frozenset())
        return self._authorize(principal, required, is_enough)

    def authorize_issue(self, principal: Principal, wanted: IssueRequest) -> IssueTerms:
        """The terms of this device's login. Raises what `authorize` raises, and GrantNotAllowed.

        Raises OutboundRequirementNotMet if the connection is known not to meet the rule's requirement.
        """
        allowance = self.authorize(principal, lambda allowance: wanted.login_method in allowance.login_methods)
        if wanted.login_method not in allowance.login_methods:
            raise GrantNotAllowed
        self.check_outbound(allowance)
        ttl = lifetime(allowance.ttl, wanted.platform, wanted.ttl_seconds)
        return IssueTerms(allowance, ttl, principal.session)

    def check_outbound(self, allowance: Allowance) -> None:
        """Raises OutboundRequirementNotMet if the connection is known not to meet the requirement."""
        if (allowance.connection_id, allowance.outbound) in self._unmet:
            raise OutboundRequirementNotMet(retry_after_seconds=RETRY_UNMET_SECONDS)

    def use_unmet(self, unmet: Iterable[tuple[str, OutboundRequirement]]) -> None:
        """Set the connections that do not meet a requirement, each with that requirement."""
        before, self._unmet = self._unmet, frozenset(unmet)
        if before != self._unmet:
            self.policy = replace(self.policy)  # decisions that are cached with the former object are made again

    def authorize_operator(self, principal: Principal) -> Visibility:
        """The issuers that the operator may see. Every operator request starts here.

        Raises InsufficientScope without ADMIN_SCOPE, and AccessDenied if policy does not grant operator rights.

        A rule with `admin_requires_scope = false` grants them without the scope.
        """
        if is_granted(principal):
            raise AccessDenied
        granted = self.policy.enforced(principal).allowance
        is_by_rule = granted is not None and granted.is_operator(principal.scopes)
        required = frozenset[str]() if is_by_rule else frozenset({ADMIN_SCOPE})
        allowance = self._authorize(principal, required, lambda allowance: allowance.admin)
        if not allowance.admin:
            raise AccessDenied
        return allowance.visibility

    def authorize_grants(self, backend: Principal, kind: GrantKind) -> None:
        """Raises InsufficientScope, or AccessDenied if policy does not let the backend mint grants of this kind."""
        if is_granted(backend):
            raise AccessDenied
        allowance = self._authorize(backend, frozenset({GRANTS_SCOPE}), lambda allowance: kind in allowance.vouches_for)
        if kind not in allowance.vouches_for:
            raise AccessDenied

    def authorize_all_devices(self, principal: Principal) -> Allowance:
        """As `authorize`, for an operation on all devices of a user. A grant belongs to one device, so it is denied."""
        if is_granted(principal):
            raise AccessDenied
        return self.authorize(principal)

    def is_operator_of_all(self, principal: Principal) -> bool:
        """Whether the principal is an operator of all issuers."""
        try:
            self.authorize_operator(principal).check_all()
        except AccessDenied:
            return False
        return True

    def authorize_push(self, principal: Principal) -> None:
        """Raises InsufficientScope, or PushNotAllowed if policy does not allow push registrations."""
        allowance = self.authorize(principal, lambda allowance: allowance.push)
        if not allowance.push:
            raise PushNotAllowed
        if not allowance.push_scopes <= principal.scopes:
            raise InsufficientScope(allowance.push_scopes)

    def _authorize(
        self, principal: Principal, required: frozenset[str], is_enough: Callable[[Allowance], bool]
    ) -> Allowance:
        policy = self.policy
        if required <= principal.scopes:
            outcome = policy.enforced(principal)
            if policy.has_shadow and (shadow := policy.shadow(principal)).allowance != outcome.allowance:
                self._on_difference(principal, outcome, shadow)
            if outcome.allowance is not None:
                return outcome.allowance
            if outcome.rule is not None:
                raise AccessDenied(outcome.rule)
        if needed := policy.helpful_scopes(principal, required, is_enough):
            raise InsufficientScope(needed)
        raise AccessDenied


@dataclass(frozen=True, slots=True)
class RuleEvaluation:
    """Evaluation of one rule for one principal."""

    rule: Rule
    why_not: str | None
    """None if the rule matches."""
    decides: bool = False


def explain(policy: Policy, principal: Principal) -> list[RuleEvaluation]:
    """Evaluate every rule in order, including those after the deciding one."""
    findings = []
    is_decided = not policy.is_enforced
    for rule in policy.rules:
        why_not = rule.why_not(principal)
        if why_not is None and (missing := rule.missing_scopes(principal)):
            why_not = f"the token lacks the scope {' '.join(sorted(missing))}"
        decides = why_not is None and not is_decided and rule.mode is PolicyMode.ENFORCE
        is_decided = is_decided or decides
        findings.append(RuleEvaluation(rule, why_not, decides))
    return findings


def _first_fit(rules: Iterable[Rule], principal: Principal) -> PolicyResult:
    for rule in rules:
        if rule.why_not(principal) is None and not rule.missing_scopes(principal):
            return PolicyResult(rule.name, rule.allowance)
    return PolicyResult(None, None)
