"""Policy: the first matching rule decides, and the explanation is the decision."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.vending.claim_conditions import ClaimCondition
from app.vending.errors import AccessDenied, DialtoneError, GrantNotAllowed, InsufficientScope
from app.vending.models import IssueRequest, LoginMethod, Platform, Principal
from app.vending.outbound import OutboundRequirement
from app.vending.policy import (
    ADMIN_SCOPE,
    ActivePolicy,
    Allowance,
    Policy,
    PolicyMode,
    PolicyResult,
    Rule,
    explain,
)

STAFF, GUESTS = "https://id.example.com", "https://guests.example.com"
DEFAULT = Allowance("77", {platform: timedelta(days=1) for platform in Platform})
DESK = replace(DEFAULT, connection_id="88", max_devices=3)
LAPTOP = IssueRequest("laptop")


def user(issuer: str = STAFF, scopes: str = "phone", **claims: Any) -> Principal:
    never = datetime.max.replace(tzinfo=UTC)
    return Principal(issuer, "alice", never, frozenset(scopes.split()), claims=claims)


def active_policy(
    *rules: Rule, noted: list[tuple[PolicyResult, PolicyResult]] | None = None, **changes: Any
) -> ActivePolicy:
    heard = [] if noted is None else noted
    return ActivePolicy(Policy(DEFAULT, rules, **changes), lambda _, now, then: heard.append((now, then)))


def test_without_a_policy_all_users_get_the_same_terms() -> None:
    assert active_policy().authorize_issue(user(), LAPTOP).allowance == DEFAULT


def test_users_without_a_matching_rule_are_denied() -> None:
    policy = active_policy(Rule("desk", DESK, claims=(ClaimCondition("department", ("support",)),)))

    assert policy.authorize_issue(user(department="support"), LAPTOP).allowance == DESK
    with pytest.raises(AccessDenied):
        policy.authorize_issue(user(department="sales"), LAPTOP)
    with pytest.raises(AccessDenied):
        policy.authorize_issue(user(), LAPTOP)


def test_connections_to_check_are_those_with_new_requirements() -> None:
    limited, closed = (
        replace(DESK, connection_id=name, outbound=requirement)
        for name, requirement in (("99", OutboundRequirement.LIMITED), ("88", OutboundRequirement.NONE))
    )
    policy = Policy(DEFAULT, (Rule("limited", limited), Rule("closed", closed), Rule("all", DEFAULT)))

    assert policy.connections_to_check() == ["88", "99"]
    assert policy.connections_to_check({("99", OutboundRequirement.LIMITED)}) == ["88"]


def test_first_matching_rule_decides() -> None:
    suspended = Rule("suspended", None, claims=(ClaimCondition("status", ("suspended",)),))
    policy = active_policy(suspended, Rule("desk", DESK, frozenset({STAFF})), Rule("all", DEFAULT))

    assert policy.authorize(user()) == DESK
    assert policy.authorize(user(GUESTS)) == DEFAULT
    with pytest.raises(AccessDenied):
        policy.authorize(user(status="suspended"))


def test_missing_scopes_of_the_nearest_rule_are_named() -> None:
    gold = Rule("gold", DESK, scopes=frozenset({"phone", "gold", "audited"}))
    plain = Rule("plain", DEFAULT, scopes=frozenset({"phone"}))
    policy = active_policy(gold, plain)

    assert policy.authorize(user(scopes="phone gold audited")) == DESK
    assert policy.authorize(user(scopes="phone")) == DEFAULT
    with pytest.raises(InsufficientScope) as refusal:
        policy.authorize(user(scopes="mail"))
    assert refusal.value.needed == {"phone"}


def test_required_scopes_of_an_issuer_precede_every_rule() -> None:
    policy = active_policy(Rule("all", DEFAULT), required_scopes={STAFF: frozenset({"phone", "calls"})})

    with pytest.raises(InsufficientScope) as refusal:
        policy.authorize(user(scopes="phone"))
    assert refusal.value.needed == {"phone", "calls"}
    assert policy.authorize(user(GUESTS, "")) == DEFAULT


def test_grant_must_be_allowed() -> None:
    with pytest.raises(GrantNotAllowed):
        active_policy().authorize_issue(user(), IssueRequest("laptop", login_method=LoginMethod.SIP_PASSWORD))
    with pytest.raises(GrantNotAllowed):
        active_policy(Rule("backend", replace(DEFAULT, login_methods=frozenset()))).authorize_issue(user(), LAPTOP)


def test_operator_needs_the_scope_and_a_rule() -> None:
    policy = active_policy(Rule("operators", replace(DEFAULT, admin=True), frozenset({STAFF})), Rule("all", DEFAULT))

    policy.authorize_operator(user(scopes=ADMIN_SCOPE))
    with pytest.raises(InsufficientScope):
        policy.authorize_operator(user(scopes="phone"))
    with pytest.raises(AccessDenied):
        policy.authorize_operator(user(GUESTS, ADMIN_SCOPE))


OPERATORS = Rule("operators", replace(DEFAULT, admin=True), scopes=frozenset({ADMIN_SCOPE}))
LINES = Rule("lines", DEFAULT, scopes=frozenset({"phone"}))
STAFF_LINES = replace(LINES, issuers=frozenset({STAFF}))


def refused_issue(policy: ActivePolicy, principal: Principal, wanted: IssueRequest = LAPTOP) -> set[str] | None:
    with pytest.raises(AccessDenied) as refusal:
        policy.authorize_issue(principal, wanted)
    return named_scopes(refusal.value)


def named_scopes(refusal: AccessDenied) -> set[str] | None:
    return set(refusal.needed) if isinstance(refusal, InsufficientScope) else None


@pytest.mark.parametrize(
    ("rules", "principal", "named"),
    [
        ((OPERATORS,), user(), None),
        ((OPERATORS, STAFF_LINES), user(GUESTS), None),
        ((STAFF_LINES, OPERATORS), user(GUESTS, ""), None),
        ((OPERATORS, LINES), user(scopes=""), {"phone"}),
        ((OPERATORS, STAFF_LINES), user(scopes="mail"), {"phone"}),
        ((replace(LINES, scopes=frozenset({"phone", ADMIN_SCOPE})),), user(), None),
        ((replace(LINES, scopes=frozenset({"phone", ADMIN_SCOPE})),), user(scopes=ADMIN_SCOPE), {"phone", ADMIN_SCOPE}),
        ((replace(LINES, allowance=None), LINES), user(scopes=""), None),
        ((replace(LINES, allowance=None),), user(scopes=""), None),
        ((replace(LINES, mode=PolicyMode.SHADOW),), user(scopes=""), None),
        ((replace(LINES, allowance=replace(DEFAULT, login_methods=frozenset())),), user(scopes=""), None),
    ],
    ids=lambda value: " ".join(rule.name for rule in value) if isinstance(value, tuple) else None,
)
def test_denial_names_only_scopes_that_would_allow_the_request(
    rules: tuple[Rule, ...], principal: Principal, named: set[str] | None
) -> None:
    assert refused_issue(active_policy(*rules), principal) == named


def test_scope_of_a_rule_is_named_only_for_the_login_method_that_it_allows() -> None:
    only_password = replace(DEFAULT, login_methods=frozenset({LoginMethod.SIP_PASSWORD}))
    policy = active_policy(LINES, Rule("desk", only_password, scopes=frozenset({"desk"})))
    wanted = IssueRequest("desk", login_method=LoginMethod.SIP_PASSWORD)

    assert refused_issue(policy, user(scopes="")) == {"phone"}
    assert refused_issue(policy, user(scopes=""), wanted) == {"desk"}


def test_scope_of_a_rule_without_push_is_not_named_for_a_push_registration() -> None:
    policy = active_policy(replace(LINES, allowance=replace(DEFAULT, push=False)))

    with pytest.raises(AccessDenied) as refusal:
        policy.authorize_push(user(scopes=""))
    assert not isinstance(refusal.value, InsufficientScope)


def test_required_scope_of_an_issuer_is_named_only_if_a_rule_matches_with_it() -> None:
    required = {STAFF: frozenset({"calls"}), GUESTS: frozenset({"calls"})}
    policy = active_policy(STAFF_LINES, required_scopes=required)

    assert refused_issue(policy, user(scopes="")) == {"phone", "calls"}
    assert refused_issue(policy, user(GUESTS, "")) is None


@pytest.mark.parametrize(
    ("rules", "principal", "named"),
    [
        ((LINES,), user(), None),
        ((OPERATORS, LINES), user(), {ADMIN_SCOPE}),
        ((replace(OPERATORS, issuers=frozenset({STAFF})), LINES), user(GUESTS), None),
        ((replace(OPERATORS, issuers=frozenset({STAFF})), LINES), user(GUESTS, ADMIN_SCOPE), None),
        ((replace(OPERATORS, scopes=frozenset({"ops"})),), user(), {ADMIN_SCOPE, "ops"}),
        ((LINES, OPERATORS), user(), None),
    ],
    ids=lambda value: " ".join(rule.name for rule in value) if isinstance(value, tuple) else None,
)
def test_operator_scope_is_named_only_if_policy_would_then_grant_operator_rights(
    rules: tuple[Rule, ...], principal: Principal, named: set[str] | None
) -> None:
    with pytest.raises(AccessDenied) as refusal:
        active_policy(*rules).authorize_operator(principal)
    assert named_scopes(refusal.value) == named


BY_RULE = replace(DEFAULT, admin=True, admin_requires_scope=False)
OPERATORS_BY_RULE = Rule("operators", BY_RULE, claims=(ClaimCondition("role", ("operator",)),))


def test_rule_can_make_an_operator_without_the_scope() -> None:
    policy = active_policy(OPERATORS_BY_RULE, Rule("all", replace(DEFAULT, admin=True)))

    policy.authorize_operator(user(role="operator"))
    policy.authorize_operator(user(scopes=ADMIN_SCOPE))
    for other in (user(role="agent"), user(), user(role=["agent"])):
        with pytest.raises(InsufficientScope):
            policy.authorize_operator(other)


def test_rule_makes_no_operator_without_the_scope_by_default() -> None:
    policy = active_policy(replace(OPERATORS_BY_RULE, allowance=replace(DEFAULT, admin=True)))

    with pytest.raises(InsufficientScope):
        policy.authorize_operator(user(role="operator"))


def test_rule_alone_makes_no_operator_in_shadow_mode_or_after_another_rule() -> None:
    for policy in (
        active_policy(replace(OPERATORS_BY_RULE, mode=PolicyMode.SHADOW), Rule("all", DEFAULT)),
        active_policy(OPERATORS_BY_RULE, mode=PolicyMode.SHADOW),
        active_policy(Rule("all", DEFAULT), OPERATORS_BY_RULE),
        active_policy(Rule("blocked", None), OPERATORS_BY_RULE),
        active_policy(replace(OPERATORS_BY_RULE, scopes=frozenset({"operate"}))),
    ):
        with pytest.raises(AccessDenied):
            policy.authorize_operator(user(role="operator"))


def test_shadow_mode_rule_does_not_decide_and_is_recorded() -> None:
    noted: list[tuple[PolicyResult, PolicyResult]] = []
    contractors = Rule("contractors", None, claims=(ClaimCondition("contractor", (True,)),), mode=PolicyMode.SHADOW)
    policy = active_policy(contractors, Rule("all", DEFAULT), noted=noted)

    assert policy.authorize(user(contractor=True)) == DEFAULT
    assert policy.authorize(user()) == DEFAULT

    assert noted == [(PolicyResult("all", DEFAULT), PolicyResult("contractors", None))]


def test_shadow_mode_policy_permits_all_and_records_denials() -> None:
    noted: list[tuple[PolicyResult, PolicyResult]] = []
    policy = active_policy(Rule("staff", DEFAULT, frozenset({STAFF})), mode=PolicyMode.SHADOW, noted=noted)

    assert policy.authorize(user()) == DEFAULT
    assert policy.authorize(user(GUESTS)) == DEFAULT

    assert noted == [(PolicyResult(None, DEFAULT), PolicyResult(None, None))]


def test_shadow_mode_rules_alone_still_deny_by_default() -> None:
    with pytest.raises(AccessDenied):
        active_policy(Rule("staff", DEFAULT, mode=PolicyMode.SHADOW)).authorize(user())


CONDITIONS = st.builds(
    ClaimCondition, st.sampled_from(["a", "b"]), st.lists(st.sampled_from(["x", 1, True]), min_size=1).map(tuple)
)
RULES = st.lists(
    st.builds(
        Rule,
        st.uuids().map(str),
        st.sampled_from([None, DEFAULT, DESK]),
        st.sampled_from([None, frozenset({STAFF}), frozenset({GUESTS})]),
        st.lists(CONDITIONS, max_size=2).map(tuple),
        st.sampled_from([frozenset(), frozenset({"phone"}), frozenset({"gold"})]),
        st.sampled_from(PolicyMode),
    ),
    max_size=5,
)
USERS = st.builds(
    lambda issuer, scopes, claims: user(issuer, scopes, **claims),
    st.sampled_from([STAFF, GUESTS]),
    st.sampled_from(["", "phone", "phone gold"]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", 1, True, ["x", 1]])),
)


@given(RULES, USERS, st.sampled_from(PolicyMode))
def test_explanation_equals_the_decision(rules: list[Rule], who: Principal, mode: PolicyMode) -> None:
    policy = Policy(DEFAULT, tuple(rules), mode)

    deciding = [finding.rule for finding in explain(policy, who) if finding.decides]

    try:
        allowance = ActivePolicy(policy, lambda *_: None).authorize(who)
    except DialtoneError:
        assert [rule.allowance for rule in deciding] in ([], [None])
    else:
        assert [rule.allowance for rule in deciding] == ([allowance] if policy.is_enforced else [])
