"""The policy in effect, for operators."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.vending.grants.models import GrantKind
from app.vending.policy import Policy, PolicyMode, Rule
from app.vending.visibility import Visibility

RULE_EXAMPLE: dict[str, Any] = {
    "name": "contractors",
    "effect": "deny",
    "mode": "enforce",
    "issuers": ["https://id.example.com"],
    "claims": ["employment"],
    "scopes": [],
    "admin": False,
    "vouches_for": [],
    "admin_issuers": None,
}


class PolicyRuleInfo(BaseModel):
    """One rule. The values of its conditions are not shown."""

    name: str
    effect: Literal["allow", "deny"]
    mode: PolicyMode = Field(description="`shadow`: the rule decides nothing; its decision is only logged.")
    issuers: list[str] | None = Field(description="The issuers that the rule applies to. Null: all.")
    claims: list[str] = Field(description="Names of the claims that the rule examines.")
    scopes: list[str] = Field(description="Scopes that the token must have for the rule to match.")
    admin: bool = Field(description="Whether the rule allows operators' requests.")
    vouches_for: list[GrantKind] = Field(description="The kinds of grants that the rule lets a backend mint.")
    admin_issuers: list[str] | None = Field(description="The issuers whose users these operators see. Null: all.")

    @classmethod
    def from_rule(cls, rule: Rule, visibility: Visibility) -> Self:
        return cls(
            name=rule.name,
            effect="deny" if rule.allowance is None else "allow",
            mode=rule.mode,
            issuers=None if rule.issuers is None else sorted(rule.issuers),
            claims=sorted({condition.path[0] for condition in rule.claims}),
            scopes=sorted(rule.scopes),
            admin=rule.allowance is not None and rule.allowance.admin,
            vouches_for=[] if rule.allowance is None else sorted(rule.allowance.vouches_for),
            admin_issuers=_shown(rule.allowance.visibility & visibility) if rule.allowance is not None else None,
        )


class PolicyInfo(BaseModel):
    """The policy of the responding replica. The first enforced rule that matches decides."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"mode": "enforce", "rules": [RULE_EXAMPLE], "visible_issuers": None}]}
    )

    mode: Literal["enforce", "shadow", "none"] = Field(
        description="`enforce`: users without a matching rule are denied. `shadow`: decisions are only logged. `none`: "
        "there are no rules, and every user of a configured issuer is allowed."
    )
    rules: list[PolicyRuleInfo] = Field(description="In the order of evaluation.")
    visible_issuers: list[str] | None = Field(description="The issuers whose users the caller sees. Null: all.")

    @classmethod
    def from_policy(cls, policy: Policy, visibility: Visibility) -> Self:
        """The rules that apply to visible issuers, for an operator that sees these."""
        return cls(
            mode=policy.mode.value if policy.rules else "none",
            rules=[PolicyRuleInfo.from_rule(rule, visibility) for rule in policy.visible_rules(visibility)],
            visible_issuers=_shown(visibility),
        )


def _shown(visibility: Visibility) -> list[str] | None:
    return None if visibility.issuers is None else sorted(visibility.issuers)
